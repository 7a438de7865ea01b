"""The held-out Stage II distance: how far a teacher sees made pictures from the real pictures of their captions.

Source: the objective of Stage II, Yuan & Peng (ACM MM 2018), with the authors' unit weights, on the test split.
"""

import keras
import numpy as np
from keras import ops

from t2i_kd.metrics.finite import require_finite
from t2i_kd.metrics.resampling import Measurement

BATCH = 8
# A tap that is zero on every real picture says nothing; the floor keeps 0 / 0 at 0.
SMALLEST_MAGNITUDE = 1e-6


def tap_differences(real_taps, made_taps):
    """How far each made picture's taps are from its real picture's, and how large the real ones are.

    d_l,i = mean |phi_l(x_i) - phi_l(G(t_i))|  and  m_l,i = mean |phi_l(x_i)|, over the elements of the tap.

    Args:
        real_taps: {tap: array [batch, ...]}, what the teacher sees in real pictures.
        made_taps: the same taps, of the same shapes, of made pictures.

    Returns:
        ({tap: d_l float64 [batch]}, {tap: m_l float64 [batch]}).

    Raises:
        ValueError: where taps or shapes differ, or a value is NaN or infinite.
    """
    if set(real_taps) != set(made_taps):
        raise ValueError(f"taps differ: {sorted(set(real_taps) ^ set(made_taps))}")
    differences, magnitudes = {}, {}
    for tap in real_taps:
        real, made = np.asarray(real_taps[tap], np.float64), np.asarray(made_taps[tap], np.float64)
        if real.shape != made.shape:
            raise ValueError(f"{tap}: shapes {real.shape} and {made.shape} differ")
        if not (np.isfinite(real).all() and np.isfinite(made).all()):
            raise ValueError(f"{tap}: a value is NaN or infinite")
        axes = tuple(range(1, real.ndim))
        differences[tap], magnitudes[tap] = np.abs(real - made).mean(axes), np.abs(real).mean(axes)
    return differences, magnitudes


def sums_of(differences, magnitudes, weights):
    """The taps' means over pictures, their sum, and their sum in units of the real taps' magnitude.

    d_l = sum_i w_i d_l,i / sum_i w_i, m_l likewise;  sum = sum_l d_l,  normalised sum = sum_l d_l / m_l.

    Args:
        differences, magnitudes: {tap: float [n]}, see `tap_differences`.
        weights: float [r, n].

    Returns:
        {tap: float64 [r], ..., "sum": [r], "normalised sum": [r]}.
    """
    total = weights.sum(1)
    means = {tap: weights @ values / total for tap, values in differences.items()}
    sizes = {tap: np.maximum(weights @ values / total, SMALLEST_MAGNITUDE) for tap, values in magnitudes.items()}
    normalised = sum(means[tap] / sizes[tap] for tap in means)
    return {**means, "sum": sum(means.values()), "normalised sum": normalised}


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: a teacher that cannot be had."""
    context.loaded_teacher  # noqa: B018 (loads it, or says why not)


def measure(context):
    """The Stage II distance of a student over held-out (image, caption) pairs.

    Made pictures are what a user gets, clipped and rounded to uint8, so that every kind of artifact can be judged.

    Args:
        context: an `EvaluationContext`; the pairs take the pictures of the test split in turn.

    Returns:
        A `Measurement`; its lines are those of `sums_of`, as tap_{line}_{teacher}_{pooling}_{side}_n{pairs}.
    """
    teacher, real, made = context.loaded_teacher, context.real_of_pairs(), context.made
    found = []
    for start in range(0, len(real), BATCH):
        rows = range(start, min(start + BATCH, len(real)))
        found.append(tap_differences(_taps(teacher, [real[i] for i in rows]), _taps(teacher, [made[i] for i in rows])))
    differences, magnitudes = (
        {tap: np.concatenate([batch[part][tap] for batch in found]) for tap in found[0][part]} for part in (0, 1)
    )
    sizes = {tap: float(values.mean()) for tap, values in magnitudes.items()}
    suffix = f"{context.teacher_name}_{context.student.resolution}_n{len(made)}"

    def named(values):
        return {f"tap_{what.replace(' ', '_')}_{suffix}": each for what, each in values.items()}

    each_sum = sum(differences[tap] / max(sizes[tap], SMALLEST_MAGNITUDE) for tap in differences)
    pictures = len({picture for picture, _ in context.pairs})
    return Measurement(
        protocol=context.teacher_protocol() | {"tap_weights": "1 each", "pictures": pictures},
        statistic=lambda made_weights, real_weights: named(sums_of(differences, magnitudes, made_weights)),
        made=len(made),
        lower_is_better=True,
        samples=named({"normalised sum": each_sum}),
        pairs=context.pairs,
        pictures=made,
        beside={"mean |real|": named(sizes)},
    )


def _taps(teacher: keras.Model, images):
    taps = teacher(np.asarray(images, "float32"), training=False)
    return {name: require_finite("--teacher", name, ops.convert_to_numpy(value)) for name, value in taps.items()}
