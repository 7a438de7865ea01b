"""The metrics by name: what `--metrics` may say."""

import importlib

from t2i_kd.errors import UserError

# Name of the metric -> module of this package, function (EvaluationContext) -> Measurement.
METRICS = {
    "attribute_accuracy": ("attribute_accuracy", "measure"),
    "classification": ("classification", "measure"),
    "classification_reverse": ("classification", "measure_reverse"),
    "diversity": ("diversity", "measure"),
    "frechet": ("frechet", "measure"),
    "fsim": ("feature_similarity", "measure"),
    "inception_score": ("inception_score", "measure"),
    "kernel": ("kernel_distance", "measure"),
    "manifold": ("manifold", "measure"),
    "perceptual_distance": ("perceptual_distance", "measure"),
    "r_precision": ("retrieval", "measure"),
    "ssim": ("structural_similarity", "measure"),
    "tap_distance": ("tap_distance", "measure"),
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


def only_the_teacher_judges(names, extractor):
    """Whether all of these metrics see a student as its teacher taught it to be seen."""
    return all(name in TEACHER_METRICS or (name in EXTRACTOR_METRICS and extractor == "teacher") for name in names)


def resolve_metrics(names):
    """The metrics that `--metrics=a,b` asks for.

    Args:
        names: names of `METRICS` with commas between them.

    Returns:
        {name: function from an `EvaluationContext` to a `Measurement`}, in the order asked for.

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
        module, function = METRICS[name]
        found[name] = getattr(importlib.import_module(f"t2i_kd.metrics.{module}"), function)
    return found
