"""An evaluation as one HTML file: the best, the worst and some random pictures of each student, and every number.

The file holds all it shows and runs no script, and the same evaluation gives the same bytes. Its HTML is the template
`page.html.j2`, which escapes whatever is put into it.
"""

import base64
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from t2i_kd.imaging import encode_png
from t2i_kd.metrics.resampling import CONFIDENCE

TEMPLATE = Path(__file__).with_name("page.html.j2")
# Pictures in a row of `render_page`, and the seed that picks the random ones.
SHOWN = 8
RANDOM_SEED = 0
# Controls are no HTML, and lone surrogates (a path's undecodable bytes, say) no UTF-8.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
VERDICTS = {True: "larger than noise", False: "within noise", None: "not resampled"}


@dataclass(frozen=True)
class Section:
    """The pictures of one student, ordered by one line of one metric.

    Attributes:
        student: what the report calls it.
        line: name of the value that each picture contributes to.
        lower_is_better: whether the best pictures are those of the lowest values.
        captions: n strings, what was asked for.
        values: float [n], finite.
        generated: n pictures, uint8 RGB [side, side, 3], of the captions by the student: an array or any other
            sequence, of which only what is shown is read.
        reference: n pictures alike, the held-out ones that the captions belong to.
    """

    student: str
    line: str
    lower_is_better: bool
    captions: list
    values: np.ndarray
    generated: Sequence
    reference: Sequence


def choose(values, lower_is_better, count, seed, captions=None):
    """Which pictures stand for all: the best, the worst, and some that the values have no say in.

    Of equal values the one of the lower index counts as better, so that best and worst share no picture unless there
    are fewer than 2 `count`. The random choice depends on n, `count` and `seed` alone: students that were given the
    same captions show the same ones.

    Args:
        values: float [n]; n may be 0.
        lower_is_better: whether a low value is a good one.
        count: pictures of each kind; all n where there are fewer.
        seed: of the random choice.
        captions: n strings; the best are then of different captions, and so are the worst. None: of any.

    Returns:
        {"best": indices, the best first, "worst": indices, the worst first, "random": indices, none twice}, lists of
        min(n, count) ints, the first two shorter where there are fewer captions.

    Raises:
        ValueError: for values of another shape, NaN or infinity.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"values of shape {values.shape}: finite numbers in one dimension are needed")
    order = np.argsort(values if lower_is_better else -values, kind="stable")
    shuffled = np.random.default_rng(seed).permutation(len(values))
    chosen = {
        "best": _of_different(order, captions),
        "worst": _of_different(order[::-1], captions),
        "random": shuffled,
    }
    return {name: indices[:count].tolist() for name, indices in chosen.items()}


def _of_different(order, captions):
    """The indices without those whose caption came before: one caption, drawn again with another seed, is no other."""
    if captions is None:
        return order
    first = {}
    for index in order:
        first.setdefault(captions[index], index)
    return np.array(list(first.values()), int)


def render_page(title, report, sections):
    """A page for people: for each section its best, worst and random pictures, then the tables of all metrics.

    Args:
        title: the heading.
        report: {"model": [paths], "dataset": name, "metrics": {metric: {student: {"protocol", "values": {line: x},
            "intervals": {line: [low, high]}, "baselines": {heading: {line: x}}}}}, "comparisons": {metric: {student:
            {line: {"difference", "interval", "larger_than_noise"}}}}, "notes": [sentences about all of it]};
            `intervals`, `baselines`, `comparisons` and `notes` may be absent, and an interval of a comparison None. Of
            several models the first is A, the next B; a student whose name is a model's path goes by that letter, and a
            difference is its value less A's.
        sections: `Section`s, in the order in which they are shown; may be empty.

    Returns:
        An HTML document that can be written as UTF-8, whatever characters names and captions hold.

    Raises:
        ValueError: for a section without pictures, with lists of different lengths, or pictures of another shape
            or type; and see `choose`.
    """
    letters = _letters(report["model"])
    comparisons = report.get("comparisons") or {}
    return _template().render(
        title=title,
        subject=_subject(report, letters),
        notes=report.get("notes", []),
        sections=[_section(section, letters) for section in sections],
        has_intervals=bool(comparisons) or _has_intervals(report["metrics"]),
        confidence=f"{CONFIDENCE:.0%}",
        metrics=[
            _metric(name, results, comparisons.get(name, {}), letters) for name, results in report["metrics"].items()
        ],
    )


def _template():
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined, finalize=_printable
    )
    return environment.from_string(TEMPLATE.read_text("utf-8"))


def _printable(value):
    # What a macro has rendered is HTML already and stays as it is.
    return UNPRINTABLE.sub("\ufffd", value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _letters(models):
    """{path: letter} of several models, none of a single one."""
    return dict(zip(models, string.ascii_uppercase, strict=False)) if len(models) > 1 else {}


def _called(student, letters):
    return f"Model {letters[student]}" if student in letters else student


def _subject(report, letters):
    models = [(_called(path, letters) if letters else "Model", path) for path in report["model"]]
    return [*models, ("Data set", report["dataset"])]


def _section(section, letters):
    heading = f"{_called(section.student, letters)}: {section.line}"
    counts = [len(each) for each in (section.values, section.captions, section.generated, section.reference)]
    if counts[0] == 0 or len(set(counts)) > 1:
        raise ValueError("{}: {} values, {} captions, {} generated and {} reference pictures".format(heading, *counts))
    chosen = choose(section.values, section.lower_is_better, SHOWN, RANDOM_SEED, section.captions)
    return {
        "heading": heading,
        "line": section.line,
        "better": "lower" if section.lower_is_better else "higher",
        "count": counts[0],
        "side": len(section.generated[0]),
        "rows": [_row(section, kind, indices) for kind, indices in chosen.items()],
    }


def _row(section, kind, indices):
    note = f"Chosen with seed {RANDOM_SEED}, whatever their values."
    if kind != "random":
        note = _tie_note(np.asarray(section.values), indices)
    return {"kind": kind.capitalize(), "note": note, "figures": [_figure(section, index) for index in indices]}


def _tie_note(values, indices):
    last = values[indices[-1]]
    left_out = np.count_nonzero(values == last) - np.count_nonzero(values[indices] == last)
    return f"{left_out} more, not shown, have the value of the last one here, {_number(last)}." if left_out else ""


def _figure(section, index):
    kinds = {"generated": section.generated, "reference": section.reference}
    return {
        "caption": section.captions[index],
        "value": _number(section.values[index]),
        "pictures": [(kind, _png(images[index], kind)) for kind, images in kinds.items()],
    }


def _png(image, kind):
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape != (len(image), len(image), 3):
        raise ValueError(f"a {kind} picture of {image.dtype} {image.shape}: uint8 [side, side, 3] is needed")
    return base64.b64encode(encode_png(image)).decode("ascii")


def _number(value):
    return f"{value:.4g}"


def _cell(text, interval=None, strong=False):
    """A table's cell: a text and, where there is one, its interval."""
    span = "" if interval is None else f"[{_number(interval[0])}, {_number(interval[1])}]"
    return {"text": text, "interval": span, "strong": strong}


def _has_intervals(metrics):
    return any(result.get("intervals") for results in metrics.values() for result in results.values())


def _metric(name, results, comparisons, letters):
    called = {_called(student, letters): result for student, result in results.items()}
    columns, rows = _values(called)
    return {
        "name": name,
        "protocol": _protocol(called),
        "columns": columns,
        "rows": rows,
        "comparisons": [_comparison(student, lines, letters) for student, lines in comparisons.items()],
    }


def _protocol(results):
    """What was done, in (name, value) pairs; where students differ in a value, each student's."""
    names = dict.fromkeys(name for result in results.values() for name in result["protocol"])
    pairs = []
    for name in names:
        values = {student: result["protocol"].get(name, "none") for student, result in results.items()}
        same = len({str(value) for value in values.values()}) == 1
        each = "; ".join(f"{student}: {value}" for student, value in values.items())
        pairs.append((name, next(iter(values.values())) if same else each))
    return pairs


def _values(results):
    """The columns and rows of a metric's table, a column for each student and for each of their baselines."""
    columns = [(student, _cells(result)) for student, result in results.items()] + _baselines(results)
    lines = dict.fromkeys(line for result in results.values() for line in result["values"])
    empty = _cell("")
    return [name for name, _ in columns], [(line, [cells.get(line, empty) for _, cells in columns]) for line in lines]


def _baselines(results):
    """(heading, {line: cell}) of each baseline; one column where all students have the same."""
    found, columns = {}, []
    for student, result in results.items():
        for heading, values in result.get("baselines", {}).items():
            cells = {line: _cell(_number(value)) for line, value in values.items()}
            found.setdefault(heading, {})[student] = cells
    for heading, of_students in found.items():
        first = next(iter(of_students.values()))
        if all(cells == first for cells in of_students.values()):
            columns.append((heading, first))
        else:
            columns += [(f"{heading} ({student})", cells) for student, cells in of_students.items()]
    return columns


def _cells(result):
    intervals = result.get("intervals", {})
    return {line: _cell(_number(value), intervals.get(line)) for line, value in result["values"].items()}


def _comparison(student, lines, letters):
    pair = f"{letters.get(student, 'B')} - A"
    rows = []
    for line, found in lines.items():
        verdict = found["larger_than_noise"]
        difference = _cell(f"{found['difference']:+.4g}", found["interval"])
        rows.append((line, [difference, _cell(VERDICTS[verdict], strong=bool(verdict))]))
    heading = pair if student in letters else f"{pair}: {student}"
    return {"heading": heading, "columns": [pair, "verdict"], "rows": rows}
