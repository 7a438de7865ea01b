"""The held-out Stage II distance: a teacher's features of generated pictures against those of the reference pictures.

Source: the objective of Stage II, Yuan & Peng (ACM MM 2018), with the authors' unit weights, on the test split; and the
run's own objective, where it has one.
"""

import numpy as np
from keras import ops

from t2i_kd.metrics.finite import require_finite
from t2i_kd.metrics.resampling import Measurement
from t2i_kd.metrics.tap_errors import tap_errors, tap_scales
from t2i_kd.teachers.tap_weights import resolve_tap_weights

BATCH = 8
# A tap that is zero on every reference picture says nothing; the floor keeps 0 / 0 at 0.
SMALLEST_MAGNITUDE = 1e-6


def tap_differences(reference_taps, generated_taps, error="l1", scales=None):
    """How far each generated picture's taps are from its reference picture's.

    d_l,i is `tap_errors` of picture i alone; by default d_l,i = mean |phi_l(x_i) - phi_l(G(t_i))|.

    Args:
        reference_taps: {tap: array [batch, ...]}, the teacher's activations of reference pictures.
        generated_taps: the same taps, of the same shapes, of generated pictures.
        error: see `tap_errors`; `annealed` as it is at the end of a stage.
        scales: {tap: s_l} of the taps that are compared; None: all of them, raw.

    Returns:
        {tap: d_l float64 [batch]}.

    Raises:
        ValueError: where taps or shapes differ, or a value is NaN or infinite.
    """
    if set(reference_taps) != set(generated_taps):
        raise ValueError(f"taps differ: {sorted(set(reference_taps) ^ set(generated_taps))}")
    for tap, reference in reference_taps.items():
        generated = generated_taps[tap]
        if reference.shape != generated.shape:
            raise ValueError(f"{tap}: shapes {reference.shape} and {generated.shape} differ")
        if not (np.isfinite(reference).all() and np.isfinite(generated).all()):
            raise ValueError(f"{tap}: a value is NaN or infinite")
    scales = scales or dict.fromkeys(reference_taps, 1.0)
    found = tap_errors(reference_taps, generated_taps, error, scales, progress=1.0, per_image=True)
    return {tap: ops.convert_to_numpy(values).astype(np.float64) for tap, values in found.items()}


def magnitudes_of(taps):
    """{tap: m_l float64 [batch]}, m_l,i = mean |phi_l(x_i)| over the elements of the tap."""
    return {tap: np.abs(values).mean(tuple(range(1, values.ndim)), np.float64) for tap, values in taps.items()}


def sums_of(differences, magnitudes, weights):
    """The taps' means over pictures, their sum, and their sum in units of the reference taps' magnitude.

    d_l = sum_i w_i d_l,i / sum_i w_i, m_l likewise;  sum = sum_l d_l,  normalised sum = sum_l d_l / m_l.

    Args:
        differences, magnitudes: {tap: float [n]}, see `tap_differences` and `magnitudes_of`.
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
    """Raises `UserError`, see `catalogue.Metric`: a teacher that cannot be had, or that lacks the objective's taps."""
    _weights(context)


def measure(context):
    """The Stage II distance of a student over held-out (image, caption) pairs.

    Generated pictures are what a user gets, clipped and rounded to uint8, so that every kind of artifact can be
    evaluated.

    Args:
        context: an `EvaluationContext`; the pairs take the pictures of the test split in turn.

    Returns:
        A `Measurement`; its lines are those of `sums_of`, as tap_{line}_{teacher}_{pooling}_{side}_n{pairs}, and with
        `context.tap_objective` also tap_objective_{error}_{scaling}_..., which is sum_l w_l d_l as training has it.
    """
    objective, weights, scales = context.tap_objective, _weights(context), _scales(context)
    found = _over_batches(context, scales)
    differences, magnitudes = found["differences"], found["magnitudes"]
    sizes = {tap: float(values.mean()) for tap, values in magnitudes.items()}
    suffix = f"{context.teacher_name}_{context.student.resolution}_n{len(context.pairs)}"

    def named(values):
        return {f"tap_{what.replace(' ', '_')}_{suffix}": each for what, each in values.items()}

    def statistic(picture_weights, _):
        lines = sums_of(differences, magnitudes, picture_weights)
        if objective:
            own = sum(weights[tap] * values for tap, values in found["objective"].items())
            lines[f"objective {objective.error} {objective.scaling}"] = picture_weights @ own / picture_weights.sum(1)
        return named(lines)

    each_sum = sum(differences[tap] / max(sizes[tap], SMALLEST_MAGNITUDE) for tap in differences)
    return Measurement(
        protocol=context.teacher_protocol() | _protocol(context, weights),
        statistic=statistic,
        generated=len(context.pairs),
        lower_is_better=True,
        samples=named({"normalised sum": each_sum}),
        pairs=context.pairs,
        pictures=context.generated,
        baselines={"mean |real|": named(sizes)},
    )


def _weights(context):
    """{tap: w_l} of the run's own objective; empty where it has none."""
    taps = tuple(context.loaded_teacher.output)
    return resolve_tap_weights(context.tap_objective.tap_weights, taps) if context.tap_objective else {}


def _scales(context):
    """{tap: s_l} of the run's own objective, measured on training pictures as in training."""
    objective, weights = context.tap_objective, _weights(context)
    if objective is None or objective.scaling == "raw":
        return dict.fromkeys(weights, 1.0)
    key = ("tap_scales", context.teacher, context.sides)
    measured = context.shared(key, lambda: tap_scales(context.loaded_teacher, context.split("train").images))
    return {tap: measured[tap] for tap in weights}


def _over_batches(context, scales):
    """{"differences", "magnitudes", with scales "objective": {tap: float64 [pairs]}}, a batch in memory at a time."""
    teacher, references, generated = context.loaded_teacher, context.reference_of_pairs(), context.generated
    found = []
    for start in range(0, len(references), BATCH):
        rows = range(start, min(start + BATCH, len(references)))
        pair = [_taps(teacher, [images[i] for i in rows]) for images in (references, generated)]
        batch = {"differences": tap_differences(*pair), "magnitudes": magnitudes_of(pair[0])}
        if scales:
            batch["objective"] = tap_differences(*pair, context.tap_objective.error, scales)
        found.append(batch)
    return {
        part: {tap: np.concatenate([batch[part][tap] for batch in found]) for tap in values}
        for part, values in found[0].items()
    }


def _taps(teacher, images):
    taps = teacher(np.asarray(images, "float32"), training=False)
    return {name: require_finite("--teacher", name, ops.convert_to_numpy(value)) for name, value in taps.items()}


def _protocol(context, weights):
    pictures = len({picture for picture, _ in context.pairs})
    common = {"tap_weights": "1 each", "pictures": pictures}
    if not weights:
        return common
    alike = len(weights) == len(context.loaded_teacher.output) and set(weights.values()) == {1}
    own = "1 each" if alike else " ".join(f"{tap}:{weight:g}" for tap, weight in weights.items())
    objective = context.tap_objective
    return common | {
        "objective_error": objective.error,
        "objective_scaling": objective.scaling,
        "objective_tap_weights": own,
    }
