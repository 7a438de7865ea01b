"""An evaluation as one HTML file: the best, the worst and some random pictures of each student, and every number.

The file holds all it shows and runs no script, and the same evaluation gives the same bytes.
"""

import base64
import html
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t2i_kd.imaging import encode_png
from t2i_kd.metrics.resampling import CONFIDENCE

# Pictures in a row of `render_page`, and the seed that picks the random ones.
SHOWN = 8
RANDOM_SEED = 0
# Controls are no HTML, and lone surrogates (a path's undecodable bytes, say) no UTF-8.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Section:
    """The pictures of one student, ordered by one line of one metric.

    Attributes:
        student: what the report calls it.
        line: name of the value that each picture contributes to.
        lower_is_better: whether the best pictures are those of the lowest values.
        captions: n strings, what was asked for.
        values: float [n], finite.
        made: n pictures, uint8 RGB [side, side, 3], of the captions by the student: an array or any other sequence,
            of which only what is shown is read.
        real: n pictures alike, the held-out ones that the captions belong to.
    """

    student: str
    line: str
    lower_is_better: bool
    captions: list
    values: np.ndarray
    made: Sequence
    real: Sequence


def choose(values, lower_is_better, count, seed):
    """Which pictures stand for all: the best, the worst, and some that the values have no say in.

    Of equal values the one of the lower index counts as better, so that best and worst share no picture unless there
    are fewer than 2 `count`. The random choice depends on n, `count` and `seed` alone: students that were given the
    same captions show the same ones.

    Args:
        values: float [n]; n may be 0.
        lower_is_better: whether a low value is a good one.
        count: pictures of each kind; all n where there are fewer.
        seed: of the random choice.

    Returns:
        {"best": indices, the best first, "worst": indices, the worst first, "random": indices, none twice}, lists of
        min(n, count) ints.

    Raises:
        ValueError: for values of another shape, NaN or infinity.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"values of shape {values.shape}: finite numbers in one dimension are needed")
    order = np.argsort(values if lower_is_better else -values, kind="stable")
    shuffled = np.random.default_rng(seed).permutation(len(values))
    chosen = {"best": order, "worst": order[::-1], "random": shuffled}
    return {name: indices[:count].tolist() for name, indices in chosen.items()}


def render_page(title, report, sections):
    """A page for people: for each section its best, worst and random pictures, then the tables of all metrics.

    Args:
        title: the heading.
        report: {"model": [paths], "dataset": name, "metrics": {metric: {student: {"protocol", "values": {line: x},
            "intervals": {line: [low, high]}, "beside": {heading: {line: x}}}}}, "comparisons": {metric: {student:
            {line: {"difference", "interval", "larger_than_noise"}}}}, "notes": [sentences about all of it]};
            `intervals`, `beside`, `comparisons` and `notes` may be absent, and an interval of a comparison None. Of
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
    headings = [f"{_called(section.student, letters)}: {section.line}" for section in sections]
    parts = [_section(section, index, headings[index]) for index, section in enumerate(sections)]
    contents = [(f"pictures-{index}", heading) for index, heading in enumerate(headings)] + [("numbers", "Numbers")]
    return PAGE.substitute(
        title=_text(title),
        style=STYLE,
        subject=_definitions(_subject(report, letters)),
        notes="".join(f'<p role="note"><b>Note:</b> {_text(note)}</p>\n' for note in report.get("notes", [])),
        contents="\n".join(f'<li><a href="#{anchor}">{_text(name)}</a></li>' for anchor, name in contents),
        pictures="\n".join(parts),
        numbers=_numbers(report, letters),
    )


def _text(value):
    """A value as text for any place in the page, an attribute's included."""
    return html.escape(UNPRINTABLE.sub("\ufffd", str(value)))


def _definitions(pairs):
    return "\n".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in pairs)


def _letters(models):
    """{path: letter} of several models, none of a single one."""
    return dict(zip(models, string.ascii_uppercase, strict=False)) if len(models) > 1 else {}


def _called(student, letters):
    return f"Model {letters[student]}" if student in letters else student


def _subject(report, letters):
    models = [(_called(path, letters) if letters else "Model", path) for path in report["model"]]
    return [*models, ("Data set", report["dataset"])]


def _section(section, index, heading):
    _check(section, heading)
    values, better = np.asarray(section.values), "lower" if section.lower_is_better else "higher"
    parts = [
        f'<section aria-labelledby="pictures-{index}">',
        f'<h2 id="pictures-{index}">{_text(heading)}</h2>',
        f"<p>The number beneath a picture is its own <b>{_text(section.line)}</b>; {better} is better. Left the "
        "picture made from the caption, right the real held-out picture that the caption belongs to.</p>",
    ]
    for kind, indices in choose(values, section.lower_is_better, SHOWN, RANDOM_SEED).items():
        parts.append(f"<h3>{kind.capitalize()} {len(indices)} of {len(values)}</h3>")
        note = _random_note() if kind == "random" else _tie_note(values, indices)
        parts += [f"<p>{note}</p>"] if note else []
        # Wide enough for both pictures at their own size, where the window is.
        parts.append(f'<div class="row" style="--pair: {2 * len(section.made[0]) + 4}px">')
        parts += [_figure(section, picture) for picture in indices]
        parts.append("</div>")
    return "\n".join([*parts, "</section>"])


def _check(section, heading):
    counts = [len(each) for each in (section.values, section.captions, section.made, section.real)]
    if counts[0] == 0 or len(set(counts)) > 1:
        raise ValueError("{}: {} values, {} captions, {} made and {} real pictures".format(heading, *counts))


def _random_note():
    return f"Chosen with seed {RANDOM_SEED}, whatever their values."


def _tie_note(values, indices):
    last = values[indices[-1]]
    left_out = np.count_nonzero(values == last) - np.count_nonzero(values[indices] == last)
    return f"{left_out} more, not shown, have the value of the last one here, {_number(last)}." if left_out else ""


def _figure(section, index):
    caption = section.captions[index]
    return (
        f'<figure><div class="pair">{_picture(section.made[index], "made", caption)}'
        f"{_picture(section.real[index], 'real', caption)}</div>"
        f'<figcaption><p dir="auto">{_text(caption)}</p>'
        f'<p class="value"><b>{_number(section.values[index])}</b> {_text(section.line)}</p></figcaption></figure>'
    )


def _picture(image, kind, caption):
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape != (len(image), len(image), 3):
        raise ValueError(f"a {kind} picture of {image.dtype} {image.shape}: uint8 [side, side, 3] is needed")
    data = base64.b64encode(encode_png(image)).decode("ascii")
    alt = _text(f"{kind}: {caption}")
    return (
        f'<div><img src="data:image/png;base64,{data}" width="{len(image)}" height="{len(image)}" alt="{alt}">'
        f'<span aria-hidden="true">{kind}</span></div>'
    )


def _number(value):
    return f"{value:.4g}"


def _interval(span):
    return f"[{_number(span[0])}, {_number(span[1])}]"


def _numbers(report, letters):
    comparisons = report.get("comparisons") or {}
    parts = [_noise_note()] if comparisons or _has_intervals(report["metrics"]) else []
    for metric, results in report["metrics"].items():
        called = {_called(student, letters): result for student, result in results.items()}
        parts += [f"<h3>{_text(metric)}</h3>", f"<dl>{_definitions(_protocol(called))}</dl>"]
        parts.append(_table(f"{metric}, measured", *_values(called)))
        for student, lines in comparisons.get(metric, {}).items():
            pair = f"{letters.get(student, 'B')} - A"
            heading = pair if student in letters else f"{pair}: {student}"
            parts += [f"<h4>{_text(heading)}</h4>", _table(f"{metric}, {heading}", *_differences(pair, lines))]
    return "\n".join(parts)


def _has_intervals(metrics):
    return any(result.get("intervals") for results in metrics.values() for result in results.values())


def _noise_note():
    return (
        f"<p>In brackets: {CONFIDENCE:.0%} intervals. They cover the draw of captions and pictures, not the training "
        "seed: training once more with another seed may change a number by more than its interval.</p>"
    )


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
    """The columns and rows of a metric's table, a column for each student and for each heading beside them."""
    columns = [(student, _cells(result)) for student, result in results.items()]
    beside = {}
    for student, result in results.items():
        for heading, values in result.get("beside", {}).items():
            cells = {line: _number(value) for line, value in values.items()}
            beside.setdefault(heading, {})[student] = cells
    for heading, found in beside.items():
        if all(cells == next(iter(found.values())) for cells in found.values()):
            columns.append((heading, next(iter(found.values()))))
        else:
            columns += [(f"{heading} ({student})", cells) for student, cells in found.items()]
    lines = dict.fromkeys(line for result in results.values() for line in result["values"])
    rows = [(line, [cells.get(line, "") for _, cells in columns]) for line in lines]
    return [name for name, _ in columns], rows


def _cells(result):
    intervals = result.get("intervals", {})
    return {
        line: _number(value) + (f"<span>{_interval(intervals[line])}</span>" if line in intervals else "")
        for line, value in result["values"].items()
    }


def _differences(pair, lines):
    """The columns and rows of a comparison's table."""
    verdicts = {True: "<b>larger than noise</b>", False: "within noise", None: "not resampled"}
    rows = []
    for line, found in lines.items():
        span = found["interval"]
        difference = f"{found['difference']:+.4g}" + ("" if span is None else f"<span>{_interval(span)}</span>")
        rows.append((line, [difference, verdicts[found["larger_than_noise"]]]))
    return [pair, "verdict"], rows


def _table(name, columns, rows):
    """A table that scrolls sideways where it is too wide.

    Args:
        name: what it is, for those who hear it.
        columns: headings, of any characters.
        rows: (line, of any characters, cells, in HTML).
    """
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    body = "\n".join(
        f'<tr><th scope="row">{_text(line)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for line, cells in rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{_text(name)}"><table>\n'
        f'<thead><tr><th scope="col">line</th>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


PAGE = string.Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<dl>
$subject
</dl>
$notes</header>
<nav aria-label="Contents"><ul>
$contents
</ul></nav>
<main>
$pictures
<section aria-labelledby="numbers">
<h2 id="numbers">Numbers</h2>
$numbers
</section>
</main>
</body>
</html>
""")

STYLE = """\
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --faint: #5c5c5c; --rule: #d5d5d5; --link: #0b57a4 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181a; --ink: #e8e8e8; --faint: #a6a6a6; --rule: #3c4043; --link: #8ab8f0 }
}
* { box-sizing: border-box }
body {
  max-width: 76rem; margin: 0 auto; padding: 0.75rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; -webkit-text-size-adjust: 100%;
}
h1, h2, h3, h4 { line-height: 1.2; margin: 1.5em 0 0.5em }
h1 { font-size: 1.6rem; margin-top: 0.25em }
h2 { font-size: 1.3rem; padding-top: 0.75em; border-top: 1px solid var(--rule) }
h3 { font-size: 1.1rem }
h4 { font-size: 1rem }
p { margin: 0 0 0.75em; max-width: 45rem }
a { color: var(--link) }
nav ul { padding-left: 1.25rem }
dl { margin: 0 0 0.75em }
dl div { display: flex; gap: 0.5em }
dt { flex: none; color: var(--faint) }
dt::after { content: ":" }
dd { margin: 0; min-width: 0 }
.row {
  display: grid; gap: 1.25rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, max(10.25rem, 22%, var(--pair))), 1fr));
}
figure { margin: 0; min-width: 0 }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.25rem }
.pair span { display: block; color: var(--faint); font-size: 0.8rem }
img { display: block; width: 100%; height: auto; image-rendering: pixelated; background: var(--rule) }
figcaption { font-size: 0.9rem }
figcaption p { margin: 0 }
.value { color: var(--faint); font-size: 0.8rem; font-variant-numeric: tabular-nums }
.value b { color: var(--ink) }
.wide { overflow-x: auto; margin: 0 0 1.5em }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.35rem 1rem 0.35rem 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top }
td { overflow-wrap: normal }
th { min-width: 5.5rem; font-weight: 600; overflow-wrap: anywhere }
th[scope=row] { font-weight: 400 }
th:first-child { min-width: 7.5rem; position: sticky; left: 0; background: var(--paper) }
td span { display: block; color: var(--faint) }
"""
