"""Reads the report of `t2i_kd.evaluation.evaluate`, whose lines are named after all that their value depends on."""


def line_of(result, beginning):
    """The name of a result's only line that begins so; of the first one for an empty beginning."""
    names = [name for name in result["values"] if name.startswith(beginning)]
    if beginning and len(names) != 1:
        raise ValueError(f"{len(names)} lines begin with {beginning!r}: {', '.join(result['values'])}")
    return names[0]


def with_interval(result, line):
    """A line's value and its interval, as `0.812 [0.770, 0.853]`."""
    low, high = result["intervals"][line]
    return f"{result['values'][line]:.3f} [{low:.3f}, {high:.3f}]"
