"""The metrics by name: what `--metrics` may say."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

from t2i_kd import plugins
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
    "teacher_distance": ("teacher_distance", "check", "measure"),
}

# Those that rate pictures one by one, so that a page can show the best and the worst.
PICTURE_METRICS = (
    "attribute_accuracy",
    "classification",
    "fsim",
    "perceptual_distance",
    "r_precision",
    "ssim",
    "tap_distance",
)
# What --extractor may say, the default first; see `EvaluationContext`.
EXTRACTORS = ("own", "inception", "teacher", "hub")
# Those that compare the teacher's features, and those that compare --extractor's.
TEACHER_METRICS = ("perceptual_distance", "tap_distance")
EXTRACTOR_METRICS = ("diversity", "frechet", "inception_score", "kernel", "manifold", "r_precision")


class Metric(NamedTuple):
    """One thing that can be measured.

    Attributes:
        check: (EvaluationContext) -> None; raises `UserError` where it can be known, before any picture is drawn and
            without training anything, that the metric does not suit the data, the captions or the evaluators.
        measure: (EvaluationContext) -> Measurement.
    """

    check: Callable
    measure: Callable


def only_the_teacher_evaluates(names, extractor):
    """Whether all of these metrics compare the features that the student's teacher taught it to match."""
    return all(name in TEACHER_METRICS or (name in EXTRACTOR_METRICS and extractor == "teacher") for name in names)


def resolve_metrics(names):
    """The metrics that `--metrics=a,b` asks for.

    Args:
        names: a list, or one string with commas between them, of names of `METRICS` and of modules on the path with
            dots in their names, such as `my_package.my_metric`, which have `measure(context)` and may have
            `check(context)`, as in `Metric`.

    Returns:
        {name: `Metric`}, in the order asked for.

    Raises:
        UserError: for no name, or an unknown one; the known ones are listed.
    """
    names = names.split(",") if isinstance(names, str) else names
    wanted = [name.strip() for name in names if name.strip()]
    if not wanted:
        raise UserError(f"--metrics: missing; known: {', '.join(METRICS)}")
    return {name: _module_metric(name) if plugins.is_dotted(name) else _known_metric(name) for name in wanted}


def may_rate_pictures(name):
    """Whether a metric may give each picture a value of its own; of a module's it is known when it has measured."""
    return name in PICTURE_METRICS or plugins.is_dotted(name)


def _known_metric(name):
    if name not in METRICS:
        raise UserError(
            f"--metrics: {name!r} is unknown; known: {', '.join(METRICS)}, or a module, my_package.my_metric"
        )
    module, *functions = METRICS[name]
    loaded = importlib.import_module(f"t2i_kd.metrics.{module}")
    return Metric(*(getattr(loaded, function) for function in functions))


def _module_metric(name):
    loaded = plugins.import_module(name, "metrics")
    (measure,) = plugins.members(loaded, "metrics", "measure")
    return Metric(getattr(loaded, "check", lambda context: None), measure)
