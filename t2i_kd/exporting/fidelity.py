"""The proof that an exported student draws what the Keras model draws."""

from dataclasses import dataclass

import numpy as np

from t2i_kd.exporting.core import core_inputs
from t2i_kd.imaging import to_uint8

# Largest difference of any pixel, in units of 1/255, over all checked captions.
LARGEST_ALLOWED = {"saved_model": 1, "litert": 1, "litert_float16": 2, "onnx": 1}
# 8-bit arithmetic moves every pixel: its mean difference is what is known of it, and only nonsense is refused.
MEAN_ALLOWED = {"litert_int8": 32.0}
REFERENCE_BATCH = 8
_HINT = "python -m t2i_kd.export --artifacts=... publishes the others without it"


class FidelityError(RuntimeError):
    """An artifact draws something else than the Keras model; nothing is published."""


@dataclass(frozen=True)
class Difference:
    """How far an artifact's pictures are from the Keras model's, both rounded to uint8, in units of 1/255.

    Attributes:
        largest: max |a - b| over all pixels of all captions.
        mean: mean |a - b|.
        captions: how many captions were drawn.
    """

    largest: int
    mean: float
    captions: int


def keras_pictures(student, captions, seeds):
    """What the student's Keras network draws.

    Args:
        student: a `t2i_kd.student.Student`.
        captions: n strings.
        seeds: n integers of 64 bits; without effect for a student without noise.

    Returns:
        uint8 [n, height, width, 3].

    Raises:
        FidelityError: when a pixel is not a finite number.
    """
    import keras

    pictures = []
    for start in range(0, len(captions), REFERENCE_BATCH):
        rows = slice(start, start + REFERENCE_BATCH)
        front_end = student.front_end
        features = front_end.features(captions[rows])
        inputs = core_inputs(features, seeds[rows], front_end.input_name, student.noise_dim)
        image = keras.ops.convert_to_numpy(student.network(inputs, training=False)["image"])
        if not np.isfinite(image).all():
            raise FidelityError("the student's network draws pixels that are not finite numbers")
        pictures.append(to_uint8(image))
    return np.concatenate(pictures)


def difference(expected, drawn):
    """The `Difference` of two uint8 arrays [n, height, width, 3]."""
    distance = np.abs(expected.astype(np.int16) - drawn.astype(np.int16))
    return Difference(int(distance.max()), float(distance.mean()), len(expected))


def check(kind, found):
    """Raises `FidelityError` when an artifact's `Difference` is over the bound of its kind."""
    if found.largest > LARGEST_ALLOWED.get(kind, 255):
        raise FidelityError(
            f"{kind} differs from the Keras model by {found.largest}/255 in some pixel, more than the "
            f"{LARGEST_ALLOWED[kind]}/255 allowed; nothing was published. {_HINT}"
        )
    if found.mean > MEAN_ALLOWED.get(kind, 255.0):
        raise FidelityError(
            f"{kind} differs from the Keras model by {found.mean:.1f}/255 on average, more than the "
            f"{MEAN_ALLOWED[kind]:g}/255 allowed; nothing was published. {_HINT}"
        )
