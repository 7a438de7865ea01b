"""The held-out Stage II distance: how far a teacher sees made pictures from the real pictures of their captions.

Source: the objective of Stage II, Yuan & Peng (ACM MM 2018), with the authors' unit weights, on the test split.
"""

import keras
import numpy as np
from keras import ops

BATCH = 8
# A tap that is zero on every real picture says nothing; the floor keeps 0 / 0 at 0.
SMALLEST_MAGNITUDE = 1e-6


class TapDistances:
    """Means over all elements of all batches seen, for each tap, summed in float64.

    d_l = mean |phi_l(x) - phi_l(G(t))|  and  m_l = mean |phi_l(x)|
    """

    def __init__(self):
        self._differences, self._magnitudes, self._counts = {}, {}, {}

    def update(self, real_taps, made_taps):
        """Adds a batch.

        Args:
            real_taps: {tap: array [batch, ...]}, what the teacher sees in real pictures.
            made_taps: the same taps, of the same shapes, of made pictures.

        Raises:
            ValueError: where taps or shapes differ.
        """
        if set(real_taps) != set(made_taps):
            raise ValueError(f"taps differ: {sorted(set(real_taps) ^ set(made_taps))}")
        for tap in real_taps:
            real, made = np.asarray(real_taps[tap], "float32"), np.asarray(made_taps[tap], "float32")
            if real.shape != made.shape:
                raise ValueError(f"{tap}: shapes {real.shape} and {made.shape} differ")
            difference, magnitude = np.abs(real - made), np.abs(real)
            self._differences[tap] = self._differences.get(tap, 0.0) + float(difference.sum(dtype="float64"))
            self._magnitudes[tap] = self._magnitudes.get(tap, 0.0) + float(magnitude.sum(dtype="float64"))
            self._counts[tap] = self._counts.get(tap, 0) + real.size

    def distances(self):
        """{tap: d_l}."""
        return {tap: total / self._counts[tap] for tap, total in self._differences.items()}

    def magnitudes(self):
        """{tap: m_l}."""
        return {tap: total / self._counts[tap] for tap, total in self._magnitudes.items()}

    def normalised(self):
        """{tap: d_l / m_l}."""
        magnitudes = self.magnitudes()
        return {tap: value / max(magnitudes[tap], SMALLEST_MAGNITUDE) for tap, value in self.distances().items()}


def tap_distances(real_taps, made_taps):
    """Each tap's mean absolute difference, streamed.

    Args:
        real_taps: batches, each {tap: array [batch, ...]}, of real pictures.
        made_taps: as many batches of the same taps and shapes, of made pictures.

    Returns:
        {tap: mean |real - made| over all elements of all batches}.
    """
    total = TapDistances()
    for real, made in zip(real_taps, made_taps, strict=True):
        total.update(real, made)
    return total.distances()


def measure(context):
    """The Stage II distance of a student over held-out (image, caption) pairs.

    sum_l d_l, and the same with each tap divided by its magnitude on the real pictures: sum_l d_l / m_l. Made pictures
    are those that a user gets, clipped and rounded to uint8, so that every kind of artifact can be judged.

    Args:
        context: an `EvaluationContext`; the pairs take the pictures of the test split in turn.

    Returns:
        The dict that `EvaluationContext` describes; `values` are d_l for each tap, `sum` and `normalised sum`.
    """
    teacher, test = context.loaded_teacher, context.split("test")
    pairs, made = context.pairs, context.made
    total = TapDistances()
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        real = np.stack([test.images[picture] for picture, _ in batch])
        total.update(_taps(teacher, real), _taps(teacher, made[start : start + BATCH]))
    distances, normalised = total.distances(), total.normalised()
    return {
        "protocol": _protocol(context, test, pairs),
        "values": {**distances, "sum": sum(distances.values()), "normalised sum": sum(normalised.values())},
        "beside": {"mean |real|": total.magnitudes()},
    }


def _protocol(context, test, pairs):
    return {
        "teacher": context.teacher.teacher,
        "teacher_weights": context.teacher.teacher_weights,
        "teacher_pooling": context.teacher.teacher_pooling,
        "teacher_preprocessing": context.teacher.teacher_preprocessing,
        "tap_weights": "1 each",
        "resolution": context.student.resolution,
        "split": test.name,
        "pairs": len(pairs),
        "pictures": len({picture for picture, _ in pairs}),
        "seed": context.seed,
    }


def _taps(teacher: keras.Model, images):
    taps = teacher(np.asarray(images, "float32"), training=False)
    return {name: ops.convert_to_numpy(value) for name, value in taps.items()}
