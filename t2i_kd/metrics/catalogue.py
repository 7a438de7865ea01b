"""The metrics by name: what `--metrics` may say."""

import importlib

from t2i_kd.errors import UserError

# Name of the metric -> module with measure(context) -> dict; see `EvaluationContext`.
METRICS = {
    "attribute_accuracy": "t2i_kd.metrics.attribute_accuracy",
    "frechet": "t2i_kd.metrics.frechet",
    "kernel": "t2i_kd.metrics.kernel_distance",
    "tap_distance": "t2i_kd.metrics.tap_distance",
}


def resolve_metrics(names):
    """The metrics that `--metrics=a,b` asks for.

    Args:
        names: names of `METRICS` with commas between them.

    Returns:
        {name: function from an `EvaluationContext` to a dict}, in the order asked for.

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
    return {name: importlib.import_module(METRICS[name]).measure for name in wanted}
