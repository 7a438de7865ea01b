"""The picture page, read back by a parser that knows nothing of how it was made."""

import base64
import dataclasses
import io
import itertools
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from t2i_kd.metrics import page
from t2i_kd.metrics.page import Section, choose, render_page

VOID = {"meta", "img"}
HOSTILE = "</figcaption><script>alert('x')</script> & \"><img src=http://evil.example/a.png onerror='b()'> $title"


class Page(HTMLParser):
    """Elements as (tag, attributes, text of all within), in the order in which they begin."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"{tag}: an attribute twice"
        self.elements.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self._open[-1][0] == tag, f"</{tag}> closes {self._open[-1][0]}"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.elements if name == tag]

    def texts(self, tag):
        return [" ".join(text.split()) for _, text in self.all(tag)]


def pictures(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), np.uint8)


def section_of(values, captions=None, lower_is_better=True, student="final student", line="error"):
    captions = captions or [f"picture {index}" for index in range(len(values))]
    return Section(
        student, line, lower_is_better, captions, np.asarray(values), pictures(len(values), 0), pictures(len(values), 1)
    )


def report(**changes):
    result = {"protocol": {"seed": 0, "split": "shapes/test"}, "values": {"error": 0.123456, "sum": 2e-7}}
    return {"model": ["runs/a"], "dataset": "shapes", "metrics": {"pixels": {"final student": result}}} | changes


def shown_pictures(parsed):
    decoded = []
    for attributes, _ in parsed.all("img"):
        kind, data = attributes["src"].split(",", 1)
        assert kind == "data:image/png;base64"
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
        assert (attributes["width"], attributes["height"]) == ("6", "6")
        decoded.append(image)
    return decoded


def test_notes_stand_at_the_top():
    plain = Page(render_page("t", report(), [section_of([0.5])]))
    noted = render_page("t", report(notes=["first <b>", "second"]), [section_of([0.5])])
    parsed = Page(noted)
    assert [text for text in parsed.texts("p") if text not in plain.texts("p")] == ["Note: first <b>", "Note: second"]
    assert noted.index("second") < noted.index("<nav")


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_the_best_are_best_and_the_worst_are_worst(lower_is_better):
    values = np.random.default_rng(3).normal(size=30)
    ascending = sorted(range(30), key=lambda index: values[index])
    best = ascending if lower_is_better else ascending[::-1]
    chosen = choose(values, lower_is_better, 8, 0)
    assert chosen["best"] == best[:8]
    assert chosen["worst"] == best[:-9:-1]
    assert {type(index) for indices in chosen.values() for index in indices} == {int}


def test_the_random_choice_knows_the_seed_and_not_the_values():
    values = np.arange(100.0)
    first = choose(values, True, 8, 0)["random"]
    assert len(set(first)) == 8 and set(first) <= set(range(100))
    assert choose(values[::-1], True, 8, 0)["random"] == choose(values % 7, False, 8, 0)["random"] == first
    assert choose(values, True, 8, 1)["random"] != first
    drawn = [index for seed in range(400) for index in choose(values, True, 8, seed)["random"]]
    # 3200 draws of 100 pictures, 32 each on average with a standard deviation of 5.4.
    counts = np.bincount(drawn, minlength=100)
    assert counts.min() > 32 - 5 * 5.4 and counts.max() < 32 + 5 * 5.4


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_of_equal_values_the_earlier_is_the_better(lower_is_better):
    chosen = choose(np.ones(200), lower_is_better, 8, 0)
    assert chosen["best"] == list(range(8))
    assert chosen["worst"] == list(range(199, 191, -1))
    half = choose(np.arange(200) % 2, lower_is_better, 8, 0)
    low, high = list(range(0, 16, 2)), list(range(1, 16, 2))
    last_low, last_high = list(range(198, 182, -2)), list(range(199, 183, -2))
    assert (half["best"], half["worst"]) == ((low, last_high) if lower_is_better else (high, last_low))
    tied = choose(np.array([1, 0, 1, 0, 1]), lower_is_better, 2, 0)
    assert (tied["best"], tied["worst"]) == (([1, 3], [4, 2]) if lower_is_better else ([0, 2], [3, 1]))


def test_the_best_and_the_worst_are_of_different_captions():
    """Three captions, drawn again and again: each stands once, with its best or its worst."""
    captions = ["a", "b", "c"] * 4
    chosen = choose(np.arange(12.0), True, 8, 0, captions)
    assert chosen["best"] == [0, 1, 2] and chosen["worst"] == [11, 10, 9]
    assert choose(np.arange(12.0), True, 2, 0, captions)["best"] == [0, 1]
    assert choose(np.arange(12.0), True, 8, 0, captions)["random"] == choose(np.arange(12.0), True, 8, 0)["random"]


def test_fewer_pictures_than_wanted_are_all_shown():
    chosen = choose([0.5, 0.1, 0.9], True, 8, 0)
    assert (chosen["best"], chosen["worst"]) == ([1, 0, 2], [2, 0, 1])
    assert sorted(chosen["random"]) == [0, 1, 2]
    assert choose([], True, 8, 0) == {"best": [], "worst": [], "random": []}


@pytest.mark.parametrize("values", [[0.1, math.nan], [math.inf], [[1.0]]])
def test_values_that_have_no_order_are_refused(values):
    with pytest.raises(ValueError, match="finite numbers in one dimension"):
        choose(values, True, 8, 0)


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_every_picture_stands_beside_the_real_one_with_its_caption_and_value(lower_is_better):
    section = section_of(np.random.default_rng(5).normal(size=20), lower_is_better=lower_is_better)
    parsed = Page(render_page("t", report(), [section]))
    by_value = sorted(range(20), key=lambda index: section.values[index], reverse=not lower_is_better)
    drawn = choose(section.values, lower_is_better, page.SHOWN, page.RANDOM_SEED)["random"]
    expected = [*by_value[:8], *by_value[:-9:-1], *drawn]
    shown = shown_pictures(parsed)
    assert len(shown) == 2 * len(expected) == 48
    for place, index in enumerate(expected):
        np.testing.assert_array_equal(shown[2 * place], section.generated[index])
        np.testing.assert_array_equal(shown[2 * place + 1], section.reference[index])
    captions = [f"picture {index} {section.values[index]:.4g} error".split() for index in expected]
    assert [text.split() for text in parsed.texts("figcaption")] == [
        [word, f"{number}{value}", line] for word, number, value, line in captions
    ]
    alts = [attributes["alt"] for attributes, _ in parsed.all("img")]
    assert alts[::2] == [f"generated: picture {index}" for index in expected]
    assert alts[1::2] == [f"reference: picture {index}" for index in expected]
    assert parsed.texts("h3")[:3] == ["Best 8 of 20", "Worst 8 of 20", "Random 8 of 20"]
    text = " ".join(parsed.texts("p"))
    assert ("lower is better" in text, "higher is better" in text) == (lower_is_better, not lower_is_better)
    assert f"seed {page.RANDOM_SEED}" in text


def test_a_tie_at_the_edge_is_said():
    text = Page(render_page("t", report(), [section_of([0.0] * 9 + [1.0] * 8)])).texts("p")
    assert "1 more, not shown, have the value of the last one here, 0." in text
    assert not any("last one here, 1" in each for each in text)


def test_hostile_text_stays_text():
    result = {"protocol": {HOSTILE: HOSTILE}, "values": {HOSTILE: 1.0}, "baselines": {HOSTILE: {HOSTILE: 2.0}}}
    compared = {HOSTILE: {"difference": 1.0, "interval": None, "larger_than_noise": None}}
    generated = report(
        model=[HOSTILE],
        dataset=HOSTILE,
        metrics={HOSTILE: {HOSTILE: result}},
        comparisons={HOSTILE: {HOSTILE: compared}},
    )
    section = section_of([0.5], [HOSTILE], student=HOSTILE, line=HOSTILE)
    text = render_page(HOSTILE, generated, [section])
    harmless = render_page("t", report(comparisons={"pixels": {"final student": {}}}), [section_of([0.5])])
    parsed = Page(text)
    assert {tag for tag, _, _ in parsed.elements} == {tag for tag, _, _ in Page(harmless).elements}
    assert parsed.texts("h1") == parsed.texts("title") == [HOSTILE]
    assert f"{HOSTILE}: {HOSTILE}" in parsed.texts("h2")
    assert [attributes["alt"] for attributes, _ in parsed.all("img")] == [
        f"generated: {HOSTILE}",
        f"reference: {HOSTILE}",
    ] * 3
    assert parsed.texts("figcaption") == [f"{HOSTILE}0.5 {HOSTILE}"] * 3
    assert parsed.texts("dt") == ["Model", "Data set", HOSTILE]
    assert parsed.texts("dd") == [HOSTILE] * 3
    assert parsed.texts("th")[:4] == ["line", HOSTILE, HOSTILE, HOSTILE]


def test_nothing_outside_the_page_is_asked_for():
    text = render_page("t", report(), [section_of([0.5, 0.1]), section_of([1.0])])
    parsed = Page(text)
    anchors = {attributes["id"] for _, attributes, _ in parsed.elements if "id" in attributes}
    assert "http" not in text and "url(" not in text and "@import" not in text
    for tag, attributes, _ in parsed.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not [name for name in attributes if name.startswith("on") or name in {"srcset", "srcdoc", "background"}]
        assert attributes.get("src", "data:image/png;").startswith("data:image/png;")
        if "href" in attributes:
            assert attributes["href"][0] == "#" and attributes["href"][1:] in anchors
    assert len(anchors) == len([1 for _, attributes, _ in parsed.elements if "id" in attributes]) == 3


@pytest.mark.parametrize("odd", ["bytes \udcff", "null \x00", "escape \x1b[31m", "delete \x7f\x85"])
def test_characters_that_no_page_may_hold_are_replaced(odd):
    text = render_page(odd, report(model=[odd]), [section_of([0.5], [odd])])
    text.encode("utf-8")
    assert not [char for char in text if (char < " " and char != "\n") or "\x7f" <= char < "\xa0"]
    parsed = Page(text)
    assert parsed.texts("h1")[0].startswith(odd.split()[0] + " \ufffd")
    # Other scripts, and what joins their letters, stay.
    kept = "\u0645\u06cc\u200c\u062e\u0648\u0645 红色 🟥 é"
    assert Page(render_page("t", report(), [section_of([0.5], [kept])])).texts("figcaption")[0].startswith(kept)


def test_it_is_made_for_phones_and_for_the_dark():
    parsed = Page(render_page("t", report(), [section_of([0.5])]))
    assert ("viewport", "width=device-width, initial-scale=1") in [
        (attributes.get("name"), attributes.get("content")) for attributes, _ in parsed.all("meta")
    ]
    (style,) = parsed.texts("style")
    assert "prefers-color-scheme: dark" in style and "image-rendering: pixelated" in style
    assert style.count("{") == style.count("}")
    assert parsed.all("html")[0][0]["lang"] == "en"
    # No level of heading is left out.
    levels = [int(tag[1]) for tag, _, _ in parsed.elements if tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def rows_of(parsed):
    """For each table its rows of cells, as text."""
    tables = []
    for tag, _, text in parsed.elements:
        if tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append([])
        elif tag in {"th", "td"}:
            tables[-1][-1].append(text)
    return tables


def test_the_tables_hold_every_number_with_its_line():
    students = {
        "stage1 alone": {
            "protocol": {"seed": 0, "resolution": 32},
            "values": {"error": 0.123456, "32 only": 1.0},
            "intervals": {"error": [0.1, 0.15]},
            "baselines": {"chance": {"error": 0.5}, "reference": {"error": 7.0}},
        },
        "final student": {
            "protocol": {"seed": 0, "resolution": 64},
            "values": {"error": 1234567.0, "64 only": 2e-7},
            "baselines": {"chance": {"error": 0.5}, "reference": {"error": 8.0}},
        },
    }
    parsed = Page(render_page("t", report(metrics={"pixels": students}), []))
    (table,) = rows_of(parsed)
    assert table == [
        ["line", "stage1 alone", "final student", "chance", "reference (stage1 alone)", "reference (final student)"],
        ["error", "0.1235[0.1, 0.15]", "1.235e+06", "0.5", "7", "8"],
        ["32 only", "1", "", "", "", ""],
        ["64 only", "", "2e-07", "", "", ""],
    ]
    facts = dict(zip(parsed.texts("dt"), parsed.texts("dd"), strict=True))
    assert facts == {
        "Model": "runs/a",
        "Data set": "shapes",
        "seed": "0",
        "resolution": "stage1 alone: 32; final student: 64",
    }
    assert parsed.texts("h3") == ["pixels"]


def test_comparisons_say_what_is_noise_and_what_the_intervals_leave_out():
    compared = {
        "error": {"difference": -0.5, "interval": [-0.75, -0.25], "larger_than_noise": True},
        "sum": {"difference": 0.125, "interval": (-1, 2), "larger_than_noise": False},
        "mean": {"difference": 0.0, "interval": None, "larger_than_noise": None},
    }
    generated = report(model=["runs/a", "runs/b"], comparisons={"pixels": {"final student": compared}})
    parsed = Page(render_page("t", generated, []))
    assert rows_of(parsed)[1] == [
        ["line", "B - A", "verdict"],
        ["error", "-0.5[-0.75, -0.25]", "larger than noise"],
        ["sum", "+0.125[-1, 2]", "within noise"],
        ["mean", "+0", "not resampled"],
    ]
    assert parsed.texts("h4") == ["B - A: final student"]
    assert parsed.texts("dt")[:2] == ["Model A", "Model B"] and parsed.texts("dd")[:2] == ["runs/a", "runs/b"]
    (note,) = (text for text in parsed.texts("p") if "intervals" in text)
    assert "95% intervals" in note and "the draw of captions and pictures, not the training seed" in note
    # Where nothing is in brackets, nothing is said of brackets.
    assert "intervals" not in render_page("t", report(), [])


def test_several_models_go_by_their_letters():
    result = {"protocol": {"seed": 0}, "values": {"error": 1.0}}
    paths = ["runs/a", "runs/b", "runs/c"]
    compared = {path: {"error": {"difference": 1.0, "interval": None, "larger_than_noise": None}} for path in paths[1:]}
    generated = report(model=paths, metrics={"pixels": dict.fromkeys(paths, result)}, comparisons={"pixels": compared})
    parsed = Page(render_page("t", generated, [section_of([0.5], student="runs/c")]))
    assert parsed.texts("h4") == ["B - A", "C - A"]
    assert [table[0] for table in rows_of(parsed)] == [
        ["line", "Model A", "Model B", "Model C"],
        ["line", "B - A", "verdict"],
        ["line", "C - A", "verdict"],
    ]
    assert parsed.texts("h2")[0] == "Model C: error"
    facts = dict(zip(parsed.texts("dt"), parsed.texts("dd"), strict=True))
    assert {name: facts[name] for name in ("Model A", "Model B", "Model C")} == dict(
        zip(["Model A", "Model B", "Model C"], paths, strict=True)
    )


def test_only_what_is_shown_is_read():
    class Reader:
        """A sequence that is no array, as a reader of many files is."""

        def __init__(self, images):
            self.images, self.read = images, set()

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            self.read.add(index)
            return self.images[index]

    section = section_of(np.arange(500.0))
    readers = dataclasses.replace(section, generated=Reader(section.generated), reference=Reader(section.reference))
    assert render_page("t", report(), [readers]) == render_page("t", report(), [section])
    assert len(readers.reference.read) <= 24 and len(readers.generated.read) <= 25


def test_the_same_evaluation_gives_the_same_page():
    section = section_of(np.arange(20.0))
    again = section_of(np.arange(20.0))
    assert render_page("t", report(), [section]) == render_page("t", report(), [again])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"captions": ["one"]}, "2 values, 1 captions, 2 generated and 2 reference"),
        ({"reference": pictures(3, 0)}, "2 generated and 3 reference"),
        ({"values": [], "captions": [], "generated": pictures(0, 0), "reference": pictures(0, 0)}, "0 values"),
        ({"generated": pictures(2, 0) / 255}, "generated picture of float64"),
        ({"reference": pictures(2, 0)[:, :4]}, r"reference picture of uint8 \(4, 6, 3\)"),
        ({"generated": pictures(2, 0)[..., :1]}, r"generated picture of uint8 \(6, 6, 1\)"),
        ({"values": [0.5, math.nan]}, "finite numbers"),
    ],
)
def test_sections_that_do_not_fit_together_are_refused(change, named):
    fields = {
        "captions": ["a", "b"],
        "values": [0.5, 0.1],
        "generated": pictures(2, 0),
        "reference": pictures(2, 1),
    } | change
    with pytest.raises(ValueError, match=named):
        render_page("t", report(), [Section("final student", "error", True, **fields)])
