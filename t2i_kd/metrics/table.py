"""What metrics measured, as text: a column for each student, a line for each value."""


def format_table(metric, results):
    """One metric's results for several students, with the protocol above them, less its checksums.

    Args:
        metric: its name.
        results: {student: {"protocol", "values", "intervals", "baselines"}}. Students of different resolutions have
            lines of different names, their baselines too, and all their values stand in the protocol.

    Returns:
        Several lines of text.
    """
    columns = {student: _cells(result) for student, result in results.items()}
    for result in results.values():
        for heading, values in result.get("baselines", {}).items():
            columns[heading] = columns.get(heading, {}) | _numbers(values)
    names = list(dict.fromkeys(line for result in results.values() for line in result["values"]))
    rows = [["", *columns]]
    rows += [[line, *(column.get(line, "") for column in columns.values())] for line in names]
    shown = {}
    for result in results.values():
        for name, value in result["protocol"].items():
            if not name.endswith("_sha256"):
                shown.setdefault(name, {})[str(value)] = None
    protocol = ", ".join(f"{name}: {' / '.join(values)}" for name, values in shown.items())
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
