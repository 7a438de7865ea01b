"""What metrics measured, as text: a column for each student, a line for each value."""


def format_table(metric, results):
    """One metric's results for several students, with the protocol above them.

    Args:
        metric: its name.
        results: {student: what the metric returned}, see `EvaluationContext`. The protocol and the columns `beside`
            are the same for all and taken from the first.

    Returns:
        Several lines of text.
    """
    first = next(iter(results.values()))
    columns = {student: _cells(result) for student, result in results.items()}
    columns.update({heading: _numbers(values) for heading, values in first.get("beside", {}).items()})
    rows = [["", *columns]]
    rows += [[line, *(column.get(line, "") for column in columns.values())] for line in first["values"]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    protocol = ", ".join(f"{name}: {value}" for name, value in first["protocol"].items())
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"{metric} ({protocol})", *lines])


def _numbers(values):
    return {line: f"{value:.4g}" for line, value in values.items()}


def _cells(result):
    intervals = result.get("intervals", {})
    cells = _numbers(result["values"])
    for line, (low, high) in intervals.items():
        cells[line] += f" [{low:.3f}, {high:.3f}]"
    return cells
