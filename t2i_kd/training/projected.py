"""Discriminators that see images through a frozen teacher's taps.

A tap phi_l of the teacher, divided by its typical size s_l, is mixed across its channels by a fixed random 1x1
convolution with orthonormal columns or rows (CCM); with cross-scale mixing (CSM) the coarser result, upsampled by
nearest neighbours and mixed again, is added to the finer one. A small trainable head for each tap scores the result,
place by place, and by projection says how well the image fits its text. No gradient and no update reaches teacher or
mixing; the generator's gradient reaches the pixels through them.

Sources: Sauer et al., "Projected GANs Converge Faster" (NeurIPS 2021): taps, CCM, CSM, multi-scale heads; Miyato &
Koyama, "cGANs with Projection Discriminator" (ICLR 2018); Miyato et al., "Spectral Normalization" (ICLR 2018). Ours:
the sizes s_l, the heads' widths, and 1x1 convolutions for CSM too.
"""

import math

import keras
import numpy as np
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.metrics.tap_errors import tap_scales
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher, teacher_shapes
from t2i_kd.training.batch_captions import next_rows
from t2i_kd.training.distribution import gathered
from t2i_kd.training.gan_losses import fake_loss, generator_loss, real_loss
from t2i_kd.training.spectral import SpectrallyNormalised

SMALLEST_MAP = 4
LARGEST_WIDTH = 256
# The logit of what does not count.
EXCLUDED = -1e9
# Of the mixed maps: at least as many as the tap has, doubled where it has few.
MIXED_CHANNELS = (32, 128)


def default_taps(shapes):
    """One tap a side, the last of each, without the image itself: from the finest to the coarsest.

    Args:
        shapes: {tap: (height, width, channels)}, from the pixels to the most abstract.
    """
    last = {}
    for tap, (height, width, _) in shapes.items():
        if tap != "image" and height == width and height >= SMALLEST_MAP:
            last[height] = tap
    return tuple(last.values())


def choose_taps(named, shapes):
    """The taps of a recipe's `discriminator_taps`, or the default ones.

    Args:
        named: names with commas between; empty: `default_taps`.
        shapes: {tap: (height, width, channels)} of the teacher.

    Raises:
        UserError: for a tap that the teacher does not have, one that is given twice, or a side that no head fits.
    """
    taps = tuple(name.strip() for name in named.split(",") if name.strip()) or default_taps(shapes)
    if not taps:
        raise UserError(f"--discriminator_taps: the teacher has no tap of {SMALLEST_MAP} or more places a side")
    for tap in taps:
        if tap not in shapes:
            raise UserError(f"--discriminator_taps: {tap!r} is none of the teacher's: {', '.join(shapes)}")
        if taps.count(tap) > 1:
            raise UserError(f"--discriminator_taps: {tap} is given twice")
        height, width, _ = shapes[tap]
        if height != width or height < SMALLEST_MAP or height & (height - 1):
            raise UserError(
                f"--discriminator_taps: {tap} has {height} x {width} places; a head takes a power of two from "
                f"{SMALLEST_MAP} up"
            )
    return taps


def seen_through(options, teacher):
    """The `TeacherOptions` of the network that discriminators see through.

    Args:
        options: `ProjectionOptions`.
        teacher: `TeacherOptions` of the recipe.
    """
    return TeacherOptions(teacher=options.discriminator_teacher) if options.discriminator_teacher else teacher


def discriminators_teacher(recipe):
    """The `TeacherOptions` of the network that discriminators alone see through; None: they take the teacher."""
    options = getattr(recipe, "projection", None)
    return seen_through(options, None) if getattr(options, "discriminator_teacher", "") else None


def check_projection(options, gan, teacher, side, named="--"):
    """Raises `UserError` where discriminators cannot see images through a teacher.

    Args:
        options: `ProjectionOptions`.
        gan: `GanOptions`.
        teacher: `TeacherOptions` of the recipe.
        side: of the images, in pixels.
        named: where `discriminator_side` stands, for the message.
    """
    teacher = seen_through(options, teacher)
    if teacher.teacher == "none":
        raise UserError("--teacher: discriminators that see through the teacher need one, not none")
    if options.discriminator_side and (options.discriminator_side < side or options.discriminator_side % side):
        raise UserError(f"{named}discriminator_side: {options.discriminator_side} is no multiple of the images' {side}")
    choose_taps(options.discriminator_taps, teacher_shapes(teacher, seen_side(options, teacher, side)))
    if gan.gradient_penalty != "none":
        raise UserError("--gradient_penalty: heads on the teacher's taps are spectrally normalised and take none")


def readable_side(teacher, side):
    """The smallest side that a teacher reads among `side` and its doubles.

    Args:
        teacher: `TeacherOptions`.
        side: of the images, in pixels.

    Raises:
        UserError: when the teacher reads none of them up to eight times the side.
    """
    for factor in (1, 2, 4, 8):
        try:
            teacher_shapes(teacher, factor * side)
        except UserError as error:
            refusal = error
        else:
            return factor * side
    raise refusal


def seen_side(options, teacher, side):
    """The side at which a teacher sees images for the discriminators: `discriminator_side`, or what it reads.

    Args:
        options: `ProjectionOptions`.
        teacher: `TeacherOptions`.
        side: of the images, in pixels.
    """
    return readable_side(teacher, options.discriminator_side or side)


def projection_at(side, options, teacher, images, seed):
    """The projection for images of a side, which are enlarged (bilinear) to `seen_side`.

    Args:
        side: in pixels.
        options: `ProjectionOptions`.
        teacher: `TeacherOptions` of the recipe.
        images: the training images, uint8 [n, resolution, resolution, 3], an array or a reader.
        seed: of the mixing.

    Returns:
        A `keras.Model` from float [batch, side, side, 3] in 0-255; see `build_projection`.
    """
    teacher = seen_through(options, teacher)
    read = seen_side(options, teacher, side)
    network = enlarged_teacher(teacher, side, read)
    shapes = {tap: tuple(output.shape[1:]) for tap, output in network.output.items()}
    taps = choose_taps(options.discriminator_taps, shapes)
    seen = keras.Model(network.input, {tap: network.output[tap] for tap in taps})
    scales = tap_scales(seen, Shrunk(images, side))
    return build_projection(network, {tap: scales[tap] for tap in taps}, options.discriminator_mixing, seed)


def enlarged_teacher(teacher, side, read):
    """A frozen teacher with images enlarged (bilinear) on their way to it.

    Args:
        teacher: `TeacherOptions`.
        side: of the images, in pixels.
        read: the side at which it sees them, a multiple.

    Returns:
        A `keras.Model` from float [batch, side, side, 3] in 0-255 to {tap: float [batch, height, width, channels]}.
    """
    network = load_teacher(teacher, read)
    image = keras.Input((side, side, 3), name="image")
    enlarged = image
    if read > side:
        # Of bfloat16 pixels Keras interpolates in float32, and clips the result, which takes as long again.
        enlarged = keras.layers.UpSampling2D(read // side, interpolation="bilinear", dtype="float32")(image)
    network = keras.Model(image, network(enlarged), name=f"teacher_{side}")
    network.trainable = False
    return network


class Shrunk:
    """Images by index at a smaller side, each pixel the mean of those that it covers, as the stages see real ones."""

    def __init__(self, images, side):
        self.images, self.side = images, side

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = np.asarray(self.images[index], "float32")
        factor = len(image) // self.side
        return image.reshape(self.side, factor, self.side, factor, 3).mean((1, 3))


def mixed_channels(channels):
    """How many channels a tap of `channels` is mixed to: twice as many, within `MIXED_CHANNELS`, and no fewer."""
    smallest, largest = MIXED_CHANNELS
    return max(channels, min(max(2 * channels, smallest), largest))


def orthogonal(inputs, outputs, rng):
    """A random 1x1 kernel [1, 1, inputs, outputs], its shorter side's vectors orthonormal."""
    values = rng.standard_normal((max(inputs, outputs), min(inputs, outputs)))
    columns, triangle = np.linalg.qr(values)
    columns = columns * np.sign(np.diag(triangle))
    matrix = columns.T if outputs > inputs else columns
    return matrix.reshape(1, 1, inputs, outputs).astype("float32")


def build_projection(teacher, scales, mixing, seed):
    """The frozen network in front of the heads.

    Args:
        teacher: a frozen teacher.
        scales: {tap: s_l} of the taps that are seen, the finest first.
        mixing: `none`; `channels`: CCM; `scales`: CCM and CSM.
        seed: of the mixing.

    Returns:
        A `keras.Model`, not trainable, from images float [batch, side, side, 3] in 0-255 to {tap: float [batch, height,
        width, channels]}.
    """
    rng, maps = np.random.default_rng([seed, len(scales)]), {}

    def mix(features, channels, name):
        inputs = features.shape[-1]
        layer = keras.layers.Conv2D(channels, 1, use_bias=False, name=name)
        mixed = layer(features)
        layer.set_weights([orthogonal(inputs, channels, rng)])
        return mixed

    coarser = None
    for tap, scale in reversed(scales.items()):
        channels = teacher.output[tap].shape[-1]
        features = keras.layers.Rescaling(1 / scale, name=f"{tap}_scaled")(teacher.output[tap])
        if mixing != "none":
            features = mix(features, mixed_channels(channels), f"{tap}_mixed")
        if mixing == "scales" and coarser is not None:
            coarser = mix(coarser, features.shape[-1], f"{tap}_from_coarser")
            factor = features.shape[1] // coarser.shape[1]
            features = features + keras.layers.UpSampling2D(factor, name=f"{tap}_upsampled")(coarser)
        coarser = maps[tap] = features
    network = keras.Model(teacher.input, {tap: maps[tap] for tap in scales}, name="projection")
    network.trainable = False
    return network


class TapDiscriminator(SpectrallyNormalised):
    """One tap's head: 4x4 convolutions of stride 2 down to 4 x 4 places, a 3x3, a score a place, and the text's.

    score_p = c(h_p) + <mean_q h_q, W t>, h the last map, p and q its places. LeakyReLU 0.2 between the layers; their
    kernels have spectral norm 1 after `normalise`, which comes before each step.

    Args:
        tap: its name.
        shape: (side, side, channels) of the projected tap; the side a power of two from 4 up.
        text_dim: width of the text vector t.
        channels: of the first convolution, doubled at each further one up to 256.
        prefix: of the tap's name in the names of layers, where several sides are seen.
    """

    def __init__(self, tap, shape, text_dim, channels, prefix=""):
        super().__init__(name=f"discriminator_{prefix}{tap}")
        seen = features = keras.Input(shape, name="features")
        width = channels
        for index in range(int(math.log2(shape[0] // SMALLEST_MAP))):
            width = min(channels << index, LARGEST_WIDTH)
            features = self._convolution(features, width, 4, 2, f"down{index + 1}")
        features = self._convolution(features, width, 3, 1, "last")
        places = self.kept_normal(keras.layers.Conv2D(1, 1, dtype="float32", name=f"{self.name}_score"))(features)
        places = keras.layers.Flatten(dtype="float32")(places)
        mean = keras.layers.GlobalAveragePooling2D(dtype="float32")(features)
        self.trunk = keras.Model(seen, {"places": places, "mean": mean}, name=f"{self.name}_trunk")
        text = keras.Input((text_dim,), name="text")
        match = self.kept_normal(keras.layers.Dense(width, use_bias=False, dtype="float32", name=f"{self.name}_text"))
        self.text = keras.Model(text, match(text), name=f"{self.name}_projection")
        self.add_vectors()

    def _convolution(self, features, channels, window, strides, name):
        layer = keras.layers.Conv2D(channels, window, strides, "same", name=f"{self.name}_{name}")
        return keras.layers.LeakyReLU(0.2)(self.kept_normal(layer)(features))

    def scores(self, seen, projected):
        """float32 scores [batch, places], high for real images with their own text.

        Args:
            seen: {"places", "mean"}, what `trunk` gives of a projected tap.
            projected: W t, float32 [batch, width], what `text` gives.
        """
        return seen["places"] + ops.sum(seen["mean"] * projected, axis=-1, keepdims=True)


class ProjectedDiscriminators:
    """All heads, and the network in front of them.

    Args:
        projection: of `build_projection`.
        text_dim: width of the text vector.
        channels: of each head's first convolution.
        prefix: of the taps' names in the names of layers and terms, where several sides are seen.
    """

    def __init__(self, projection, text_dim, channels, prefix=""):
        self.projection, self.prefix = projection, prefix
        self.heads = [
            TapDiscriminator(tap, tuple(output.shape[1:]), text_dim, channels, prefix)
            for tap, output in projection.output.items()
        ]

    def normalise(self):
        """`TapDiscriminator.normalise` of every head."""
        for head in self.heads:
            head.normalise()

    def features(self, images):
        """{tap: projected features} of images, float [batch, side, side, 3] in 0-255; differentiable in them."""
        return self.projection(images, training=False)

    def views(self, real, generated):
        """What the heads' trunks give of projected features {tap: map}, all in one pass.

        Returns:
            Two lists, of real and of generated images, of each head's {"places", "mean"}.
        """
        both = self.view({tap: ops.concatenate([features, generated[tap]]) for tap, features in real.items()})
        half = ops.shape(next(iter(real.values())))[0]
        return [
            [{name: values[part] for name, values in seen.items()} for seen in both]
            for part in (slice(None, half), slice(half, None))
        ]

    def discriminator_loss(self, kind, real, generated, texts, differs):
        """The discriminators' loss, and the shares of real and generated images that each head takes for real.

        L_D = sum_l [ l_real(s(x, t)) + (1 - w) l_fake(s(G(t), t)) + w l_fake(s(x, t')) ], t' the next text of the
        batch, w = 1/2 where it is another one, 0 elsewhere; means over images and places. Where no other text stands
        in the other half's place, a generated image counts whole: with the hinge, one that counts half may be shown
        twice too often and no head says so. Source: the matching-aware weights of GAN-CLS (Reed et al., ICML 2016).

        Args:
            kind: `hinge` or `bce`.
            real, generated: what `views` gives of features; those of generated images without a gradient.
            texts: float [batch, text_dim], without a gradient.
            differs: float32 [batch], 1 where the next text is another one.

        Returns:
            (loss, {term: float32 scalar}).
        """
        loss, terms, wrong_texts, wrong_share = 0.0, {}, next_rows(texts), differs / 2
        for head, seen, drawn in zip(self.heads, real, generated, strict=True):
            projected = head.text(texts)
            right, fake = head.scores(seen, projected), head.scores(drawn, projected)
            fakes = ops.mean(fake_loss(kind, fake), axis=1)
            wrong = ops.mean(fake_loss(kind, head.scores(seen, head.text(wrong_texts))), axis=1)
            against = ops.mean((1 - wrong_share) * fakes + wrong_share * wrong)
            own = ops.mean(real_loss(kind, right)) + against
            terms[head.name] = own
            tap = head.name.removeprefix("discriminator_")
            terms[f"real_for_real_{tap}"] = share_above_zero(right)
            terms[f"generated_for_real_{tap}"] = share_above_zero(fake)
            loss = loss + own
        return loss, terms

    def view(self, features):
        """What the heads' trunks give of projected features {tap: map}: a list of {"places", "mean"}."""
        return [head.trunk(seen) for seen, head in zip(features.values(), self.heads, strict=True)]

    def scores(self, view, texts):
        """{head: float32 scores [batch, places]} of what `view` gives, with texts float [batch, text_dim]."""
        return {
            head.name.removeprefix("discriminator_"): head.scores(seen, head.text(texts))
            for seen, head in zip(view, self.heads, strict=True)
        }

    def generator_loss(self, kind, view, texts):
        """sum_l of the generator's loss, means over images and places; (loss, {term: float32 scalar}).

        Args:
            kind: `hinge`, `bce` or `lsgan`.
            view: what `view` gives of generated images.
            texts: float [batch, text_dim].
        """
        scores = self.scores(view, texts)
        terms = {f"generator_{head}": ops.mean(generator_loss(kind, values)) for head, values in scores.items()}
        return sum(terms.values()), terms

    def caption_loss(self, view, texts, captions):
        """How badly each image tells its own text from the batch's others: the sum of the heads' `contrastive_loss`.

        Args:
            view: what `view` gives of images, real or generated.
            texts: float [batch, text_dim], without a gradient.
            captions: `BatchCaptions`.
        """
        return sum(
            contrastive_loss(seen["mean"], head.text(texts), captions)
            for seen, head in zip(view, self.heads, strict=True)
        )


def contrastive_loss(images, projected, captions):
    """The cross-entropy of an image's text among those of the whole batch, by the scores that the text adds.

        L = -(1 / B) sum_i log( e_ii / (e_ii + sum_{j: t_j not of image i} e_ij) ),   e_ij = exp(<h_i, W t_j>)

    Source: the contrastive loss of image and sentence of XMC-GAN (Zhang et al., CVPR 2021). Ours: the product of
    `TapDiscriminator`, where XMC-GAN has the cosine over a temperature of 0.1, whose slope grows without bound as h
    shrinks; a caption that is given twice, or that image i has beside its t_i, is no other one.

    Args:
        images: h, float32 [batch, width].
        projected: W t, float32 [batch, width].
        captions: `BatchCaptions`.

    Returns:
        float32 scalar, 0 or more; over the replicas of a strategy its mean is the whole batch's.
    """
    own = ops.sum(images * projected, axis=-1)
    others = ops.matmul(images, ops.transpose(gathered(projected)))
    others = ops.where(captions.differ(), others, EXCLUDED)
    return ops.mean(ops.softplus(ops.logsumexp(others, axis=-1) - own))


def share_above_zero(scores):
    """Which share of scores says real."""
    return ops.mean(ops.cast(scores > 0, "float32"))
