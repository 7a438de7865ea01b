"""The evaluator of `attribute_accuracy`: a small network that reads colour, shape, place, ... off a picture.

It learns from real training pictures only. Since the pictures that it classifies show combinations that it has never
met, no head may guess one attribute from another: shape and size are read off a matte, which knows neither colour nor
background. Training pictures are blurred, faded and made noisy at random, because generated pictures are softer than
real ones and softness is not what is measured. Our own construction.
"""

import functools
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.metrics.cache import digest, digest_of_training
from t2i_kd.metrics.classifier_training import (
    TrainingBatches,
    attribute_targets,
    attribute_values,
    soften,
    train_classifier,
)
from t2i_kd.metrics.finite import require_finite

SIDE = 32
STEPS = 400
LEARNING_RATE = 4e-3
PREDICTION_BATCH = 250
# Attributes that are read off the matte; all others, and any that a later data set brings, are read off the picture.
MATTE_ATTRIBUTES = ("shape", "size")


@dataclass(frozen=True)
class AttributeClassifier:
    """A trained evaluator.

    Attributes:
        network: {"picture", "matte"} as `network_inputs` gives them -> {attribute: logits [batch, values]}.
        values: for each attribute its possible values, in the order of the logits.
    """

    network: keras.Model
    values: dict[str, tuple[str, ...]]

    @property
    def fingerprint(self):
        """A digest of its weights."""
        return digest(*(np.asarray(weights) for weights in self.network.get_weights()))

    def predict(self, images):
        """The most probable value of each attribute.

        Args:
            images: RGB [n, resolution, resolution, 3] in 0-255, an array or a reader.

        Returns:
            For each picture a dict {attribute: value}.

        Raises:
            UserError: where a logit is NaN or infinite.
        """
        small, predicted = shrink(images), []
        for start in range(0, len(small), PREDICTION_BATCH):
            logits = self.network(network_inputs(small[start : start + PREDICTION_BATCH]), training=False)
            found = {name: ops.convert_to_numpy(logits[name]) for name in self.values}
            for name, values in found.items():
                require_finite("--metrics: attribute_accuracy", f"its classifier's logits of {name}", values)
            best = {name: np.argmax(values, axis=-1) for name, values in found.items()}
            predicted += [
                {name: self.values[name][choice] for name, choice in zip(best, row, strict=True)}
                for row in zip(*best.values(), strict=True)
            ]
        return predicted


def build_attribute_classifier(values, seed=0):
    """The evaluator's network, untrained: a softmax head per attribute on two small stacks of convolutions.

    The matte's stack ends in maxima and means over all places, so that shape and size are the same everywhere; the
    picture's stack keeps its 4x4 places.

    Args:
        values: {attribute: its values}.
        seed: of the initial weights.
    """
    picture = keras.Input((SIDE, SIDE, 3), name="picture")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(picture)
    x = keras.layers.AveragePooling2D(2)(x)
    x = keras.layers.MaxPooling2D(2)(_convolution(24, seed)(x))
    x = keras.layers.MaxPooling2D(2)(_convolution(32, seed + 1)(x))
    placed = keras.layers.Flatten()(x)
    matte_input = keras.Input((SIDE, SIDE, 1), name="matte")
    x = keras.layers.MaxPooling2D(2)(_convolution(16, seed + 2)(matte_input))
    x = keras.layers.MaxPooling2D(2)(_convolution(32, seed + 3)(x))
    x = _convolution(64, seed + 4)(x)
    placeless = keras.layers.Concatenate()(
        [keras.layers.GlobalMaxPooling2D()(x), keras.layers.GlobalAveragePooling2D()(x)]
    )
    heads = {
        name: keras.layers.Dense(len(choices), kernel_initializer=_initializer(seed + 5 + index), name=name)(
            placeless if name in MATTE_ATTRIBUTES else placed
        )
        for index, (name, choices) in enumerate(values.items())
    }
    return keras.Model({"picture": picture, "matte": matte_input}, heads, name="attribute_classifier")


def _convolution(filters, seed):
    return keras.layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=_initializer(seed))


def _initializer(seed):
    return keras.initializers.HeNormal(seed=seed)


def train_attribute_classifier(dataset, seed=0, steps=STEPS, cache=None, key=""):
    """Trains the evaluator on real pictures; see `classifier_training.train_classifier`.

    Args:
        dataset: the training split, a `CaptionedImages` with `attributes`.
        seed: of weights, order and augmentation; the same seed gives the same evaluator.
        steps: batches of 64 pictures.
        cache: an `ArrayCache` that keeps the weights, or None.
        key: digest of the pictures, for the cache.

    Returns:
        An `AttributeClassifier`.

    Raises:
        UserError: where the data set is empty or without attributes.
    """
    if not len(dataset) or not dataset.attributes:
        raise UserError(f"--dataset: {dataset.name} has no pictures with attributes to learn from")
    values, targets = attribute_values(dataset), attribute_targets(dataset)
    network = build_attribute_classifier(values, seed)
    labels = [[row[name] for name in values] for row in dataset.attributes]
    train_classifier(
        network,
        values,
        lambda: TrainingBatches(shrink(dataset.images), targets, _softened_inputs, seed, steps),
        LEARNING_RATE,
        cache,
        ("attributes", digest_of_training(network, key, steps, seed, values, labels)),
    )
    return AttributeClassifier(network, values)


def _softened_inputs(images, rng):
    return network_inputs(soften(images, rng))


def shrink(images):
    """Pictures of 32 px, so that every resolution costs the same: each pixel is the mean over the area that it covers.

    Pixel (a, b) is the mean over [a s, (a + 1) s] x [b s, (b + 1) s], s = resolution / 32, of the picture, whose pixels
    are squares of one colour: the mean of s x s pixels, or, where s is 1 / n, one pixel n x n times.

    Args:
        images: RGB [n, resolution, resolution, 3] in 0-255, an array or a reader.

    Returns:
        float32 [n, 32, 32, 3].
    """
    small = np.empty((len(images), SIDE, SIDE, 3), "float32")
    for index in range(len(images)):
        image = np.asarray(images[index], "float32")
        means = _area_means(len(image))
        small[index] = np.einsum("ah,hwc,bw->abc", means, image, means, optimize=True)
    return small


@functools.lru_cache(maxsize=4)
def _area_means(side):
    """What share of each of 32 equal parts of a line each of its `side` pixels is: float32 [32, side]."""
    edges, pixels = np.arange(SIDE + 1) * side / SIDE, np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(overlap, 0) * SIDE / side).astype("float32")


def network_inputs(images):
    """The inputs of the evaluator's network for float32 pictures [n, 32, 32, 3]: the pictures and their mattes."""
    return {"picture": images, "matte": matte(images)}


def matte(images):
    """How far each pixel is on the way from the background to the ink: 0 is background, 1 is ink.

    With b the median colour of the border, d = x - b, and the ink i = sum |d|^2 d / sum |d|^2 over the picture,
    the matte is (d . i) / |i|^2, clipped to [-0.5, 1.5]. It is the same for every pair of colours.

    Args:
        images: float32 [n, side, side, 3] in 0-255.

    Returns:
        float32 [n, side, side, 1].
    """
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    difference = images - np.median(border, axis=1)[:, None, None]
    weight = np.square(difference).sum(-1, keepdims=True)
    ink = (weight * difference).sum((1, 2), keepdims=True) / np.maximum(weight.sum((1, 2), keepdims=True), 1e-6)
    length = np.maximum(np.square(ink).sum(-1, keepdims=True), 1e-6)
    return np.clip((difference * ink).sum(-1, keepdims=True) / length, -0.5, 1.5).astype("float32")
