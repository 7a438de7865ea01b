"""Teachers with two towers: an image and a text each become a vector of length 1 in one space."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

SMALLEST_LENGTH = 1e-12


@dataclass(frozen=True)
class DualEncoder:
    """A pretrained network that knows which texts go with an image.

    Attributes:
        name: what `--teacher` said.
        image: `keras.Model`, not trainable, from float RGB [batch, side, side, 3] in 0-255 to float32 [batch, dim],
            rows of length 1; differentiable.
        text: function from a sequence of texts to float32 [texts, dim], rows of length 1. Raises `UserError` for a
            text that is longer than it takes.
    """

    name: str
    image: keras.Model
    text: Callable

    @property
    def dim(self):
        """The width of the space."""
        return self.image.output.shape[-1]

    def prompts(self, texts):
        """`text` of the prompts, float32 [texts, dim]. Raises `ValueError` where it is not of the space."""
        vectors = np.asarray(self.text(list(texts)), np.float32)
        if vectors.shape != (len(texts), self.dim) or not np.isfinite(vectors).all():
            raise ValueError(f"{self.name}: vectors of texts of shape {vectors.shape}, not {(len(texts), self.dim)}")
        return vectors


def unit(vectors):
    """Rows divided by their length, in NumPy."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), SMALLEST_LENGTH)


def resampling(length, side, kind):
    """float32 [side, length]: output a = sum_h w_ah input_h, along one axis, as Pillow resizes.

    w_ah = K((h + 1/2 - c_a) / s), divided by their sum over h, with c_a = (a + 1/2) length / side and s = max(1,
    length / side). K(x) is 1 - |x| within 1 (`bilinear`) or Keys's cubic with a = -1/2 (`bicubic`). `nearest`: 1 where
    c_a lies in pixel h.
    """
    centres = (np.arange(side) + 0.5) * length / side
    if kind == "nearest":
        return (np.floor(centres)[:, None] == np.arange(length)).astype("float32")
    x = np.abs((np.arange(length) + 0.5 - centres[:, None]) / max(1.0, length / side))
    if kind == "bilinear":
        weights = np.maximum(1 - x, 0.0)
    else:
        outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = np.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, np.where(x < 2, outer, 0.0))
    return (weights / weights.sum(1, keepdims=True)).astype("float32")


def resized(image, side, kind):
    """The symbolic images, float [batch, length, length, 3], at the side at which an encoder reads them.

    Two fixed matrix products, whose gradient is deterministic and the same on every backend. Args: kind: see
    `resampling`.
    """
    if image.shape[1] == side:
        return image
    weights = resampling(image.shape[1], side, kind)
    return ops.einsum("bw,nawc->nabc", weights, ops.einsum("ah,nhwc->nawc", weights, image))


def image_tower(image, vectors, name):
    """The frozen `keras.Model` from symbolic images to vectors, which are divided by their length."""
    unit_vectors = keras.layers.UnitNormalization(axis=-1, dtype="float32", name="vector")(vectors)
    tower = keras.Model(image, unit_vectors, name=name)
    tower.trainable = False
    return tower
