"""Keeps the images of one caption as different from each other as its noise should make them.

A generator against discriminators that know the caption may answer each caption with one image: its noise is not read.
The term here is a hinge: below a target share of the difference between real images of different captions it pushes
the images of one caption apart, above it it is silent.

Source: the idea is that of mode seeking (Mao et al., "Mode Seeking Generative Adversarial Networks", CVPR 2019). Ours:
the distance is taken through the frozen network that the discriminators look through, real images give its unit, and
it ends at a target.
"""

import numpy as np
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.metrics.diversity import mean_pair_distance
from t2i_kd.metrics.tap_errors import SCALE_BATCH, SCALE_IMAGES
from t2i_kd.recipe import SeedDiversityStage
from t2i_kd.training.adversarial import check_stage_weights
from t2i_kd.training.distribution import gathered
from t2i_kd.training.system import evenly

# One in so many captions of a batch is drawn a second time.
DRAWN_AGAIN = 4
SMALLEST_DISTANCE = 1e-6
# Of the parts that images are compared by; the coarsest tap that discriminators look through has 4 x 4 places.
SIDES = (1, 2, 4)


class SeedDiversity:
    """The distance between two images of one caption, and the loss where it is too small.

    With p_l(x) the means of tap l over `side` by `side` equal parts of its places, D_l the mean distance
    |p_l(x) - p_l(x')| of two training images, and G(t, z), G(t, z') two images of each of m captions,

        rho = mean_l (1 / (m D_l)) sum_i |p_l(G(t_i, z_i)) - p_l(G(t_i, z'_i))|,      L = max(0, target - rho).

    Args:
        projection: of `training.projected.build_projection`.
        images: the training images, uint8 [n, side, side, 3], an array or a reader; 128 of them are looked at.
        target: the share, 0 to 1.
        weight: of L in the generator's loss.
        side: of `SIDES`.
    """

    def __init__(self, projection, images, target, weight=1.0, side=1):
        self.projection, self.target, self.weight, self.side = projection, target, weight, side
        chosen = np.stack(evenly(images, SCALE_IMAGES))
        self.distances = {
            tap: max(float(mean_pair_distance(vectors, np.ones((1, len(vectors))))[0]), SMALLEST_DISTANCE)
            for tap, vectors in self._pooled_in_parts(chosen.astype("float32")).items()
        }

    def _pooled_in_parts(self, images):
        starts = range(0, len(images), SCALE_BATCH)
        parts = [self.pooled(images[start : start + SCALE_BATCH]) for start in starts]
        return {tap: np.concatenate([ops.convert_to_numpy(part[tap]) for part in parts]) for tap in parts[0]}

    def pooled(self, images):
        """{tap: p_l, float32 [batch, parts x channels]} of images, float [batch, height, width, 3] in 0-255."""
        features = self.projection(images, training=False)
        return {tap: self._means(ops.cast(values, "float32")) for tap, values in features.items()}

    def _means(self, features):
        parts, (length, channels) = self.side, features.shape[-2:]
        rows = ops.reshape(features, (-1, parts, length // parts, parts, length // parts, channels))
        return ops.reshape(ops.mean(rows, axis=(2, 4)), (-1, parts * parts * channels))

    def loss(self, first, second):
        """(L, rho), float32 scalars, of two images of each caption, float [m, side, side, 3] in 0-255 each."""
        pooled, half = self.pooled(ops.concatenate([first, second])), ops.shape(first)[0]
        shares = []
        for tap, distance in self.distances.items():
            difference = pooled[tap][:half] - pooled[tap][half:]
            # The root has no slope at 0, where two images are the same.
            lengths = ops.sqrt(ops.sum(ops.square(difference), axis=-1) + (SMALLEST_DISTANCE * distance) ** 2)
            shares.append(ops.mean(lengths) / distance)
        # Of all replicas: the hinge is no mean over a batch.
        share = ops.mean(gathered(ops.reshape(sum(shares) / len(shares), (1,))))
        return ops.relu(self.target - share), share

    def weighted(self, generated):
        """(`weight` L, {"same_seeds": L, "seed_diversity": rho}).

        Args:
            generated: {"image": float [batch, side, side, 3] in 0-255, "second": what `second_images` gives}.
        """
        second = generated["second"]
        loss, share = self.loss(first_images(generated["image"], second), second)
        return self.weight * loss, {"same_seeds": loss, "seed_diversity": share}


def seed_diversity_of(stage, projection, images):
    """The `SeedDiversity` of a stage; None where its `seed_diversity_weight` is 0.

    Args:
        stage: `SeedDiversityStage`.
        projection, images: as `SeedDiversity` has them.
    """
    if not stage.seed_diversity_weight:
        return None
    weight, target = stage.seed_diversity_weight, stage.seed_diversity_target
    return SeedDiversity(projection, images, target, weight, stage.seed_diversity_side)


def check_seed_diversity(stage, noise_dim, objective):
    """Raises `UserError` for what a stage says of this term and cannot have, or for what nothing reads.

    Args:
        stage: `SeedDiversityStage`.
        noise_dim: of the student.
        objective: the one that can have the term.
    """
    check_stage_weights(stage, ("seed_diversity_weight",), objective)
    named = f"--stage {stage.name}: "
    weight, target, side = stage.seed_diversity_weight, stage.seed_diversity_target, stage.seed_diversity_side
    if not weight:
        for field in ("seed_diversity_target", "seed_diversity_side"):
            if getattr(stage, field) != getattr(SeedDiversityStage, field):
                raise UserError(f"{named}{field} is read only with a seed_diversity_weight above 0")
        return
    if not 0 < target <= 1:
        raise UserError(f"{named}seed_diversity_target is {target}, not above 0 and up to 1")
    if side not in SIDES:
        raise UserError(f"{named}seed_diversity_side is {side}, not 1, 2 or 4")
    if not noise_dim:
        raise UserError(f"{named}seed_diversity_weight needs --noise_dim, without it a caption has one image")


def second_images(generator, batch):
    """{"second": float [m, side, side, 3] in 0-255}: second images of some of a batch's captions; see `pairs_of`.

    Args:
        generator: `keras.Model` from what it reads, `noise` among it, to {"image"}.
        batch: {name: tensor [batch, ...]}, at least two rows.
    """
    return {"second": generator(pairs_of(batch, generator.input), training=True)["image"]}


def pairs_of(batch, names):
    """What a generator is given for the second images: every fourth caption of a batch, with the next one's noise.

    Args:
        batch: {name: tensor [batch, ...]}, at least two rows.
        names: those that the generator reads, `noise` among them.

    Returns:
        {name: tensor [m, ...]}, m a quarter of the batch.
    """
    noise = batch["noise"][1::DRAWN_AGAIN]
    return {name: noise if name == "noise" else first_images(batch[name], noise) for name in names}


def first_images(rows, second):
    """The rows of a batch that `pairs_of` has second ones of; args: tensors [batch, ...] and [m, ...]."""
    return rows[::DRAWN_AGAIN][: ops.shape(second)[0]]
