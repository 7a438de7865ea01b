"""Reads the report of `t2i_kd.evaluation.evaluate`, whose lines are named after all that their value depends on."""

import json

import numpy as np
from scipy import stats

from t2i_kd.imaging import write_file_atomically


def kept(path, asked, measure):
    """What `measure` returns, kept in a file: measured again only where something else is asked than what is kept.

    Args:
        path: a `pathlib.Path`, which need not be there.
        asked: what the values depend on, as JSON has it.
        measure: function without arguments, of values as JSON has them.
    """
    asked = json.loads(json.dumps(asked))
    if path.is_file():
        stored = json.loads(path.read_text("utf-8"))
        if stored.get("asked") == asked:
            return stored["values"]
    values = measure()
    write_file_atomically(path, json.dumps({"asked": asked, "values": values}, indent=2).encode("utf-8"))
    return values


def line_of(result, beginning):
    """The name of a result's only line that begins so; of the first one for an empty beginning."""
    names = [name for name in result["values"] if name.startswith(beginning)]
    if beginning and len(names) != 1:
        raise ValueError(f"{len(names)} lines begin with {beginning!r}: {', '.join(result['values'])}")
    return names[0]


def difference(values, reference):
    """Mean and half width of the 95 % interval of paired differences, by Student's t over the seeds."""
    found = np.subtract(values, reference)
    if len(found) < 2:
        return float(found.mean()), float("nan")
    return float(found.mean()), float(stats.t.ppf(0.975, len(found) - 1) * stats.sem(found))


def compared(values, reference):
    """`MEAN (DIFFERENCE ± HALF)` of paired values; without the half width of one pair, which has none."""
    mean, half = difference(values, reference)
    return (
        f"{np.mean(values):.3g} ({mean:+.2g})"
        if np.isnan(half)
        else f"{np.mean(values):.3g} ({mean:+.2g} ± {half:.2g})"
    )


def with_interval(result, line):
    """A line's value and its interval, as `0.812 [0.770, 0.853]`."""
    low, high = result["intervals"][line]
    return f"{result['values'][line]:.3f} [{low:.3f}, {high:.3f}]"
