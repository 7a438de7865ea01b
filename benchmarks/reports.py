"""Reports of `t2i_kd.evaluation.evaluate`, whose lines are named after all that their value depends on: what is read of
them, kept, compared, and printed as a table.
"""

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


def by_heading(report, columns):
    """{student: {heading: value}} of the columns that a report has.

    Args:
        report: what `evaluate` returned.
        columns: {heading: (metric, how the name of its only line begins)}.
    """
    found = {}
    for heading, (metric, beginning) in columns.items():
        for label, result in report["metrics"].get(metric, {}).items():
            found.setdefault(label, {})[heading] = result["values"][line_of(result, beginning)]
    return found


def difference(values, reference):
    """Mean and half width of the 95 % interval of paired differences, by Student's t over the seeds."""
    found = np.subtract(values, reference)
    if len(found) < 2:
        return float(found.mean()), float("nan")
    return float(found.mean()), float(stats.t.ppf(0.975, len(found) - 1) * stats.sem(found))


def compared(values, reference):
    """`MEAN (DIFFERENCE ± HALF)` of paired values; without the half width of one pair, which has none."""
    mean, half = difference(values, reference)
    interval = "" if np.isnan(half) else f" ± {half:.2g}"
    return f"{np.mean(values):.3g} ({mean:+.2g}{interval})"


def with_interval(result, line):
    """A line's value and its interval, as `0.812 [0.770, 0.853]`."""
    low, high = result["intervals"][line]
    return f"{result['values'][line]:.3f} [{low:.3f}, {high:.3f}]"


def markdown(rows):
    """A table of {heading: cell} rows, each with the same headings."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
