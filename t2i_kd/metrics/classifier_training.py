"""How evaluators that classify pictures are trained: what they learn, from which batches, and with which loss."""

import keras
import numpy as np

from t2i_kd.metrics.cache import ArrayCache
from t2i_kd.metrics.progress import TrainingBar

BATCH = 64


def attribute_values(dataset):
    """{attribute: its values in alphabetical order} of a data set with attributes."""
    return {name: tuple(sorted({row[name] for row in dataset.attributes})) for name in dataset.attributes[0]}


def attribute_targets(dataset):
    """{attribute: int32 [n]}, the place of each picture's value among `attribute_values`."""
    return {
        name: np.array([choices.index(row[name]) for row in dataset.attributes], "int32")
        for name, choices in attribute_values(dataset).items()
    }


class TrainingBatches(keras.utils.PyDataset):
    """Batches of 64; batch `i` is a function of (seed, i) alone, and every picture comes once before any comes again.

    Args:
        images: n pictures, an array or a reader.
        targets: {output: int [n]}.
        prepare: (float32 [batch, side, side, 3] in 0-255, a NumPy generator) -> the network's inputs.
        seed: of order and of `prepare`'s generator.
        steps: number of batches.
    """

    def __init__(self, images, targets, prepare, seed, steps):
        super().__init__()
        self.images, self.targets, self.prepare = images, targets, prepare
        self.seed, self.steps = seed, steps
        rng, count = np.random.default_rng([seed, 0]), len(images)
        self.order = np.concatenate([rng.permutation(count) for _ in range(-(-steps * BATCH // count))])

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        chosen = self.order[step * BATCH : (step + 1) * BATCH]
        images = np.stack([self.images[i] for i in chosen]).astype("float32")
        inputs = self.prepare(images, np.random.default_rng([self.seed, 1, step]))
        return inputs, {name: target[chosen] for name, target in self.targets.items()}


def train_classifier(network, names, make_batches, learning_rate, cache, kept_as):
    """Trains a network, or restores its weights: softmax cross-entropy summed over outputs, Adam, cosine decay to 0.

    Args:
        network: `keras.Model` with a dict of outputs.
        names: of the outputs that are logits of classes; others are not trained.
        make_batches: function to `TrainingBatches`, called where the network is trained.
        learning_rate: the first one.
        cache: an `ArrayCache` that keeps the weights, or None.
        kept_as: (kind, digest of all that the weights depend on), for the cache.
    """

    def fit():
        batches, trained = make_batches(), keras.Model(network.input, {name: network.output[name] for name in names})
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, len(batches))
        losses = {name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in names}
        trained.compile(optimizer=keras.optimizers.Adam(schedule), loss=losses, jit_compile=False)
        bar = TrainingBar(network.name.replace("_", " "), len(batches))
        trained.fit(batches, shuffle=False, verbose=0, callbacks=[bar])
        return network.get_weights()

    network.set_weights((cache or ArrayCache(None)).arrays(*kept_as, fit))


def soften(images, rng):
    """Softens real pictures at random: blur, contrast, brightness, noise; each picture draws its own strengths.

    Half of the pictures stay sharp; the others are mixed with themselves after a binomial 3x3 blur. Contrast is
    0.7-1.1 around mid-grey, brightness +-12, noise Gaussian with deviation up to 8.

    Args:
        images: float32 [n, side, side, 3] in 0-255.
        rng: a NumPy generator.

    Returns:
        float32 of the same shape in 0-255.
    """
    count = len(images)
    amount = rng.uniform(-1, 1, count).clip(min=0)
    contrast, brightness, noise = rng.uniform(0.7, 1.1, count), rng.uniform(-12, 12, count), rng.uniform(0, 8, count)
    amount, contrast, brightness, noise = (
        strength.astype("float32")[:, None, None, None] for strength in (amount, contrast, brightness, noise)
    )
    soft = images + amount * (_blur(images) - images)
    grain = noise * rng.standard_normal(images.shape, "float32")
    return np.clip((soft - 127.5) * contrast + 127.5 + brightness + grain, 0, 255)


def _blur(images):
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
