"""How far a student's pictures are from those of the generator that taught it, of the same held-out items and seeds."""

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.metrics import sampling
from t2i_kd.metrics.perceptual_distance import compared_taps, distance_by
from t2i_kd.metrics.resampling import Measurement, mean_of
from t2i_kd.metrics.structural_similarity import BATCH, WINDOW, ssim


def mean_absolute_error(one, other):
    """The mean |x - y| of each picture: uint8 [n, height, width, 3] twice, to float64 [n] in 0-255."""
    return np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean((1, 2, 3))


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: no generator taught the model, or one of pictures of another side."""
    teacher = context.teaching_student
    if teacher is None:
        raise UserError("--metrics: teacher_distance needs a model whose recipe names a generator as its teacher")
    if teacher.resolution != context.sides[0]:
        raise UserError(
            f"--metrics: teacher_distance compares with the teacher's pictures of {teacher.resolution} px, and the "
            f"model's have {context.sides[0]} px"
        )


def measure(context):
    """The mean distances of a student's pictures to its teacher's, pictures of the same items and seeds.

    Args:
        context: an `EvaluationContext`.

    Returns:
        A `Measurement` of `mae_RESOLUTION_nITEMS` (mean absolute error, 0-255), `ssim_...` from 11 px up, and, where
        `--teacher` names a network with maps, `lpips_like_NETWORK_...`; that network compares, and should not have
        taught. Its baseline is what two different pictures of the teacher get.
    """
    check(context)
    side, factor = context.student.resolution, context.sides[0] // context.student.resolution
    taught = sampling.generate(context.teaching_student, context.items, context.seed)
    taught = np.stack(sampling.Reduced(taught, factor)) if factor > 1 else taught
    measures, protocol = {"mae": mean_absolute_error}, context.protocol()
    if side >= WINDOW:
        measures["ssim"] = ssim
    if context.teacher.teacher != "none" and compared_taps(context.loaded_teacher):
        measures[f"lpips_like_{context.teacher_name}"] = distance_by(context.loaded_teacher)
        protocol = context.teacher_protocol()
    count = len(taught)
    distinct, others = sampling.unrelated(context.pairs)
    values, unrelated = {}, {}
    for name, distance in measures.items():
        line = f"{name}_{side}_n{count}"
        values[line] = _compared(distance, context.generated, taught)
        if len(distinct) > 1:
            unrelated[line] = float(_compared(distance, taught[distinct], taught[others]).mean())
    return Measurement(
        protocol=protocol,
        statistic=mean_of(values),
        generated=count,
        pairs=context.pairs,
        baselines={"another picture of the teacher": unrelated} if unrelated else {},
    )


def _compared(distance, one, other):
    starts = range(0, len(one), BATCH)
    return np.concatenate([distance(one[start : start + BATCH], other[start : start + BATCH]) for start in starts])
