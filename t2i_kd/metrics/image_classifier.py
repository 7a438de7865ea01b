"""A small classifier of a data set's own pictures: an evaluator that has nothing to do with a teacher.

It names classes (`classification`), and its last hidden layer gives the features of `--extractor=own`. Source: ours.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.metrics.cache import digest_of_training
from t2i_kd.metrics.classifier_training import TrainingBatches, attribute_targets, soften, train_classifier
from t2i_kd.metrics.extractors import keras_extractor

STEPS = 1000
LEARNING_RATE = 2e-3
FEATURES = 64
LARGEST_SIDE = 64
SMALLEST_SIDE = 16
TURNS = "turns"
PROTOCOL_OF_TURNS = (
    "our convolutional network, 64 features, trained without labels to tell by how many quarters a picture of the real "
    "training split is turned"
)
PROTOCOL = "our convolutional network, 64 features, trained on the real training split"


def targets_of(dataset):
    """What a classifier can learn of a set: {"label": int [n]}, or each attribute where the set has attributes.

    Raises:
        UserError: naming `--dataset`, where the set has neither attributes nor two classes.
    """
    if dataset.attributes:
        return attribute_targets(dataset)
    if len(np.unique(dataset.labels)) < 2:
        raise UserError(f"--dataset: {dataset.name} has no two classes for a classifier of its own to tell apart")
    return {"label": np.asarray(dataset.labels, "int32")}


@dataclass(frozen=True)
class ImageClassifier:
    """A trained classifier.

    Attributes:
        network: float32 RGB [batch, side, side, 3] in 0-255 -> {"features": [batch, 64], target: logits}.
    """

    network: keras.Model

    def logits(self, images, target="label"):
        """float32 [n, classes] of uint8 pictures, an array or a reader."""
        network = keras.Model(self.network.input, {"logits": self.network.output[target]})
        return np.concatenate([found["logits"] for found in keras_extractor("own", {}, network).batches(images)])

    @property
    def sides(self):
        """Of the pictures that it reads, and of what it averages them down to."""
        side = self.network.input.shape[1]
        return side, side // max(1, side // LARGEST_SIDE)

    def extractor(self):
        """The `Extractor` of its features; it has probabilities where it learned classes, not attributes."""
        outputs = {"features": self.network.output["features"]}
        if "label" in self.network.output:
            outputs["probabilities"] = ops.softmax(self.network.output["label"])
        network = keras.Model(self.network.input, outputs)
        if TURNS in self.network.output:
            return keras_extractor("own_turns", {"classifier": PROTOCOL_OF_TURNS}, network, self.sides[1])
        return keras_extractor("own", {"classifier": PROTOCOL}, network, self.sides[1])


def build_image_classifier(side, classes, seed):
    """The untrained network: four convolutions, 32 to 128 channels, each but the first halving the picture.

    Args:
        side: of the pictures; beyond 64 they are averaged down to 64 first, below 16 their pixels become squares.
        classes: {target: number of its classes}.
        seed: of the initial weights.
    """
    image = keras.Input((side, side, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    if side > LARGEST_SIDE:
        x = keras.layers.AveragePooling2D(side // LARGEST_SIDE)(x)
    if side < SMALLEST_SIDE:
        x = keras.layers.UpSampling2D(SMALLEST_SIDE // side)(x)
    for index, (filters, strides) in enumerate(((32, 1), (64, 2), (128, 2), (128, 2))):
        initializer = keras.initializers.HeNormal(seed=seed + index)
        x = keras.layers.Conv2D(
            filters, 3, strides, padding="same", use_bias=False, kernel_initializer=initializer, name=f"conv{index}"
        )(x)
        x = keras.layers.BatchNormalization(name=f"norm{index}")(x)
        x = keras.layers.ReLU()(x)
    pooled = [keras.layers.GlobalAveragePooling2D()(x)]
    if "label" not in classes:
        # Attributes name places too.
        pooled.append(keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(x)))
    x = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    dense = functools.partial(keras.layers.Dense, kernel_initializer=keras.initializers.HeNormal(seed=seed + 4))
    # Normalised, so that distances of features are of order 1.
    x = keras.layers.BatchNormalization(name="features_norm")(dense(FEATURES, use_bias=False, name="features_dense")(x))
    features = keras.layers.ReLU(name="features")(x)
    heads = {name: dense(count, name=f"{name}_logits")(features) for name, count in classes.items()}
    return keras.Model(image, {"features": features, **heads}, name="image_classifier")


def train_image_classifier(dataset, seed=0, steps=STEPS, cache=None, key=""):
    """Trains on real (or generated) pictures; see `classifier_training.train_classifier`.

    Pictures are softened at random (`classifier_training.soften`), because generated ones are softer than real ones;
    those with classes are also mirrored at random, those with attributes not, for attributes name places.

    Args:
        dataset: `CaptionedImages` with labels or attributes.
        seed: of weights, order and augmentation.
        steps: batches of 64 pictures.
        cache: an `ArrayCache` that keeps the weights, or None.
        key: digest of the pictures, for the cache.

    Returns:
        An `ImageClassifier`.

    Raises:
        UserError: naming `--dataset`, where there is nothing to learn.
    """
    return _trained(dataset, dataset.images, targets_of(dataset), seed, steps, cache, key)


def has_classes(dataset):
    """Whether a classifier of a set's own can be trained; else `train_without_labels` can."""
    return bool(dataset.attributes) or len(np.unique(dataset.labels)) >= 2


def train_without_labels(dataset, seed=0, steps=STEPS, cache=None, key=""):
    """A network of the same layers that has learned to tell by how many quarters a picture is turned; as above.

    Source: Gidaris, Singh & Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations" (ICLR
    2018); the layers are ours.
    """
    turned = Turned(dataset.images)
    return _trained(dataset, turned, {TURNS: np.arange(len(turned), dtype="int32") % 4}, seed, steps, cache, key)


class Turned(Sequence):
    """Every picture four times, turned by none, one, two and three quarters."""

    def __init__(self, images):
        self._images = images

    def __len__(self):
        return 4 * len(self._images)

    def __getitem__(self, index):
        return np.rot90(self._images[index // 4], index % 4)


def _trained(dataset, images, targets, seed, steps, cache, key):
    classes = {name: int(values.max()) + 1 for name, values in targets.items()}
    if "label" in targets and dataset.label_names:
        classes = {"label": len(dataset.label_names)}
    network = build_image_classifier(len(images[0]), classes, seed)
    train_classifier(
        network,
        classes,
        lambda: TrainingBatches(images, targets, _mirrored if "label" in targets else soften, seed, steps),
        LEARNING_RATE,
        cache,
        ("classifier", digest_of_training(network, key, steps, seed, *targets, *targets.values())),
    )
    return ImageClassifier(network)


def _mirrored(images, rng):
    images = soften(images, rng)
    mirrored = rng.random(len(images)) < 0.5
    images[mirrored] = images[mirrored, :, ::-1]
    return images
