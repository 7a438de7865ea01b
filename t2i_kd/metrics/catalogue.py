"""The metrics by name: what `--metrics` may say."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

from t2i_kd.errors import UserError

# Name of the metric -> module of this package, names of its functions `Metric.check` and `Metric.measure`.
METRICS = {
    "attribute_accuracy": ("attribute_accuracy", "check", "measure"),
    "classification": ("classification", "check", "measure"),
    "classification_reverse": ("classification", "check", "measure_reverse"),
    "diversity": ("diversity", "check", "measure"),
    "frechet": ("frechet", "check", "measure"),
    "fsim": ("feature_similarity", "check", "measure"),
    "inception_score": ("inception_score", "check", "measure"),
    "kernel": ("kernel_distance", "check", "measure"),
    "manifold": ("manifold", "check", "measure"),
    "perceptual_distance": ("perceptual_distance", "check", "measure"),
    "r_precision": ("retrieval", "check", "measure"),
    "ssim": ("structural_similarity", "check", "measure"),
    "tap_distance": ("tap_distance", "check", "measure"),
}

# Those that judge pictures one by one, so that a page can show the best and the worst.
PICTURE_METRICS = (
    "attribute_accuracy",
    "classification",
    "fsim",
    "perceptual_distance",
    "r_precision",
    "ssim",
    "tap_distance",
)
# Those that look through the teacher, and those that look through --extractor.
TEACHER_METRICS = ("perceptual_distance", "tap_distance")
EXTRACTOR_METRICS = ("diversity", "frechet", "inception_score", "kernel", "manifold", "r_precision")


class Metric(NamedTuple):
    """One thing that can be measured.

    Attributes:
        check: (EvaluationContext) -> None; raises `UserError` where it can be known, before any picture is drawn and
            without training anything, that the metric does not suit the data, the captions or the judge.
        measure: (EvaluationContext) -> Measurement.
    """

    check: Callable
    measure: Callable


def only_the_teacher_judges(names, extractor):
    """Whether all of these metrics see a student as its teacher taught it to be seen."""
    return all(name in TEACHER_METRICS or (name in EXTRACTOR_METRICS and extractor == "teacher") for name in names)


def resolve_metrics(names):
    """The metrics that `--metrics=a,b` asks for.

    Args:
        names: names of `METRICS` with commas between them.

    Returns:
        {name: `Metric`}, in the order asked for.

    Raises:
        UserError: for no name, or an unknown one; the known ones are listed.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = ", ".join(METRICS)
    if not wanted:
        raise UserError(f"--metrics: missing; known: {known}")
    for name in wanted:
        if name not in METRICS:
            raise UserError(f"--metrics: {name!r} is unknown; known: {known}")
    found = {}
    for name in wanted:
        module, *functions = METRICS[name]
        loaded = importlib.import_module(f"t2i_kd.metrics.{module}")
        found[name] = Metric(*(getattr(loaded, function) for function in functions))
    return found
