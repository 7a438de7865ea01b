"""The proof that an exported student generates what the Keras model generates."""

from dataclasses import dataclass

import numpy as np

# Largest difference of any pixel, in units of 1/255, over all checked items.
LARGEST_ALLOWED = {"saved_model": 1, "litert": 1, "onnx": 1}
# Rounded weights move pixels, and where a generator that a GAN has sharpened draws an edge, a few of them far: what is
# bounded is the mean; of 8-bit weights, the more loosely. 8-bit arithmetic moves every pixel: only nonsense is refused.
MEAN_ALLOWED = {"litert_float16": 0.5, "onnx_int8": 4.0, "litert_int8": 32.0}
# A calibrated 8-bit file that differs by more on average is made anew, with 8-bit weights alone (ours).
MOST_OF_CALIBRATED = 5.0
_HINT = "python -m t2i_kd.export --artifacts=... publishes the others without it"


class FidelityError(RuntimeError):
    """An artifact generates something else than the Keras model; nothing is published.

    Attributes:
        kind: of the artifact, where it is one of `t2i_kd.exporting.manifest.FILES`.
    """

    def __init__(self, message, kind=""):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Difference:
    """How far an artifact's images are from the Keras model's, both rounded to uint8, in units of 1/255.

    Attributes:
        largest: max |a - b| over all pixels of all items.
        mean: mean |a - b|.
        items: how many items were compared.
    """

    largest: int
    mean: float
    items: int


def difference(expected, found):
    """The `Difference` of two uint8 arrays [n, height, width, 3]."""
    distance = np.abs(expected.astype(np.int16) - found.astype(np.int16))
    return Difference(int(distance.max()), float(distance.mean()), len(expected))


def check(kind, found):
    """Raises `FidelityError` when an artifact's `Difference` is over the bound of its kind."""
    if found.largest > LARGEST_ALLOWED.get(kind, 255):
        raise FidelityError(
            f"{kind} differs from the Keras model by {found.largest}/255 in some pixel, more than the "
            f"{LARGEST_ALLOWED[kind]}/255 allowed; nothing was published. {_HINT}",
            kind,
        )
    if found.mean > MEAN_ALLOWED.get(kind, 255.0):
        raise FidelityError(
            f"{kind} differs from the Keras model by {found.mean:.1f}/255 on average, more than the "
            f"{MEAN_ALLOWED[kind]:g}/255 allowed; nothing was published. {_HINT}",
            kind,
        )
