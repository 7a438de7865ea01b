"""A small classifier of a data set's own pictures: an evaluator that has nothing to do with a teacher.

It names classes (`classification`), and its last hidden layer gives the features of `--extractor=own`. Source: ours.
"""

import functools
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
    targets = targets_of(dataset)
    classes = {name: int(values.max()) + 1 for name, values in targets.items()}
    if not dataset.attributes and dataset.label_names:
        classes = {"label": len(dataset.label_names)}
    network = build_image_classifier(len(dataset.images[0]), classes, seed)
    train_classifier(
        network,
        classes,
        lambda: TrainingBatches(dataset.images, targets, _mirrored if "label" in targets else soften, seed, steps),
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
