"""The growth table and plot show every measurement once, each sweep from the common start."""

import json

import pytest
from PIL import Image

from benchmarks import train_cost


def line(objective, seconds, **changes):
    return train_cost.START | {"objective": objective, "seconds": seconds, "operations": 1e9, "peak": 4e9} | changes


LINES = [
    line("mirrored", 9.0),
    line("mirrored", 0.5),
    line("perceptual", 1.0),
    line("mirrored", 1.0, batch_size=16),
    line("mirrored", 0.25, width=0.5),
    line("mirrored", 2.0, resolution=128),
]


@pytest.fixture
def costs(tmp_path):
    """The lines as they are read from a file."""
    (tmp_path / "costs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in LINES))
    return train_cost.read(tmp_path / "costs.jsonl")


def test_the_later_measurement_counts(costs):
    assert len(costs) == len(LINES) - 1
    assert [each["seconds"] for each in train_cost.of_sweep(costs, "batch_size", "mirrored")] == [0.5, 1.0]
    assert [each["seconds"] for each in train_cost.of_sweep(costs, "width", "mirrored")] == [0.25, 0.5]
    assert [each["seconds"] for each in train_cost.of_sweep(costs, "resolution", "perceptual")] == [1.0]


def test_the_table_has_a_row_a_setting(costs):
    rows = list(train_cost.markdown(costs))[2:]
    assert rows[1] == "| 64 | 8 | 1 | 16.0 | 500 | 50% | 8.0 | 1000 | 25% |"
    assert rows[2] == "| 64 | 16 | 1 | 16.0 | 1000 | 25% |  |  |  |"
    assert len(rows) == 4


def test_a_gan_has_columns_of_its_own_where_it_was_measured(costs):
    head, _, *rows = train_cost.markdown([*costs, line("adversarial", 2.0)])
    assert head.endswith("| Adversarial stage: images/s | ms a step | of peak |")
    assert rows[1] == "| 64 | 8 | 1 | 16.0 | 500 | 50% | 8.0 | 1000 | 25% | 4.0 | 2000 | 12% |"
    assert "Adversarial" not in next(train_cost.markdown(costs))


def test_the_plot_is_a_picture(costs, tmp_path):
    pytest.importorskip("matplotlib")
    train_cost.plot(costs, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (900, 300)
