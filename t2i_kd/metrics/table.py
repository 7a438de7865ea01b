"""What metrics measured, as text: a column for each student, a line for each value."""


def format_table(metric, results):
    """One metric's results for several students, with the protocol above them, less its checksums.

    Args:
        metric: its name.
        results: {student: {"protocol", "values", "intervals", "beside"}}. The protocol and the columns `beside` are the
            same for all and taken from the first.

    Returns:
        Several lines of text.
    """
    first = next(iter(results.values()))
    columns = {student: _cells(result) for student, result in results.items()}
    columns.update({heading: _numbers(values) for heading, values in first.get("beside", {}).items()})
    # Students of different resolutions have lines of different names.
    names = list(dict.fromkeys(line for result in results.values() for line in result["values"]))
    rows = [["", *columns]]
    rows += [[line, *(column.get(line, "") for column in columns.values())] for line in names]
    shown = {name: value for name, value in first["protocol"].items() if not name.endswith("_sha256")}
    protocol = ", ".join(f"{name}: {value}" for name, value in shown.items())
    return "\n".join([f"{metric} ({protocol})", *_aligned(rows)])


def format_comparisons(first, comparisons):
    """How students differ from the first, and whether by more than the noise of captions and pictures.

    Args:
        first: name of the first student.
        comparisons: {student: what `resampling.compare` gave}.

    Returns:
        Several lines of text.
    """
    text = []
    for student, lines in comparisons.items():
        rows = []
        for line, found in lines.items():
            span, verdict = "", ""
            if found["interval"] is not None:
                low, high = found["interval"]
                span = f"[{low:+.4g}, {high:+.4g}]"
                verdict = "larger than noise" if found["larger_than_noise"] else "within noise"
            rows.append([line, f"{found['difference']:+.4g}", span, verdict])
        text += [f"{student} minus {first} (noise of captions and pictures, not of training)", *_aligned(rows)]
    return "\n".join(text)


def _aligned(rows):
    if not rows:
        return ["no line that both have"]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _numbers(values):
    return {line: f"{value:.4g}" for line, value in values.items()}


def _cells(result):
    intervals = result.get("intervals", {})
    cells = _numbers(result["values"])
    for line, (low, high) in intervals.items():
        cells[line] += f" [{low:.4g}, {high:.4g}]"
    return cells
