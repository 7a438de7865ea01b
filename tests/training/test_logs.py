"""What a run writes while it trains, read by others."""

import fcntl
import io
import json
import math
import os
import re
import struct
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

from t2i_kd.imaging import encode_png
from t2i_kd.training import logs
from t2i_kd.training.logs import EventLog, ProgressLine, cut_metrics


def entry(step):
    return json.dumps({"stage": "I", "step": step, "loss": 0.5}) + "\n"


def events(folder):
    """Reads a folder of events as TensorBoard does, keeping every one."""
    accumulator = EventAccumulator(str(folder), size_guidance={SCALARS: 0, IMAGES: 0})
    return accumulator.Reload()


def test_metrics_beyond_a_step_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    cut_metrics(path, 5)
    assert not path.exists()
    path.write_text("".join(map(entry, range(1, 9))))
    cut_metrics(path, 5)
    assert path.read_text() == "".join(map(entry, range(1, 6)))
    cut_metrics(path, 0)
    assert path.read_text() == ""
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("cut", range(1, len(entry(4)) - 1, 5))
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    path.write_text(entry(2) + entry(3) + entry(4)[:-cut])
    cut_metrics(path, 100)
    # Without only its newline the line is whole, and gets it back.
    assert path.read_text() == entry(2) + entry(3) + (entry(4) if cut == 1 else "")


def test_tensorboard_reads_scalars_and_pictures(tmp_path):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    log = EventLog(tmp_path, 0)
    log.scalars(20, {"I/conv1_1": 0.25, "I/loss": 3.0})
    log.scalars(40, {"I/conv1_1": 0.125, "I/loss": 2.0})
    log.picture(40, "samples", 6, 4, encode_png(picture))
    log.close()
    read = events(tmp_path)
    assert read.Tags()["scalars"] == ["I/conv1_1", "I/loss"]
    assert [(each.step, each.value) for each in read.Scalars("I/conv1_1")] == [(20, 0.25), (40, 0.125)]
    (image,) = read.Images("samples")
    assert (image.step, image.width, image.height) == (40, 6, 4)
    shown = Image.open(io.BytesIO(image.encoded_image_string))
    assert np.array_equal(np.asarray(shown), picture)


def test_what_an_interrupted_run_wrote_beyond_its_checkpoint_is_not_shown(tmp_path):
    for first, steps in ((0, (10, 20, 30)), (20, (30, 40))):
        log = EventLog(tmp_path, first)
        for step in steps:
            log.scalars(step, {"loss": 100.0 * first + step})
        log.close()
    # Both files are read in order of their time; steps at and beyond the second's start come from it.
    shown = [(each.step, each.value) for each in events(tmp_path).Scalars("loss")]
    assert shown == [(10, 10.0), (20, 20.0), (30, 2030.0), (40, 2040.0)]


def test_every_term_is_written_every_so_many_steps(train_line):
    run = train_line(steps=7, log_every=3, batch_size=4)
    lines = [json.loads(line) for line in (run.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 7]
    for line in lines:
        assert set(line) == {"stage", "step", "loss", "halved", "gradient_norm", "images_per_second"}
        assert line["stage"] == "line" and line["halved"] == pytest.approx(line["loss"] / 2)
        assert line["images_per_second"] > 0
    read = events(run.run_dir / "tensorboard")
    assert set(read.Tags()["scalars"]) == {
        f"line/{name}" for name in ("loss", "halved", "gradient_norm", "images_per_second", "learning_rate")
    }
    shown = [(each.step, each.value) for each in read.Scalars("line/loss")]
    assert shown == [(line["step"], pytest.approx(line["loss"])) for line in lines]


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(logs, "time", clock)
    return clock


def train_by(clock, line, seconds, losses):
    """Steps of a stage that each take so many seconds."""
    for loss in losses:
        clock.now += seconds
        line.advance(loss)


def test_elsewhere_than_on_a_terminal_lines_are_whole_and_seldom(clock, capsys):
    """Of 4 images a step, 4 steps a second once the first has compiled."""
    line = ProgressLine("stage1", 2000, 0, 4, math.inf)
    clock.now += 60
    line.advance(9.0)
    assert capsys.readouterr().err == ""
    train_by(clock, line, 0.25, [0.5] * 20)
    assert capsys.readouterr().err == "stage1: step 9 of 2,000, 16 images/s, 0:08:18 left, loss 0.5\n"
    line.sheet = Path("runs/mine/samples/stage1-00000001.png")
    train_by(clock, line, 0.25, [0.25] * 1979)
    line.close()
    told = capsys.readouterr().err
    assert "\r" not in told and told.endswith("\n")
    lines = told.splitlines()
    # In 498 seconds, and at the end.
    assert len(lines) == 17
    assert lines[0] == (
        "stage1: step 129 of 2,000, 16 images/s, 0:07:48 left, loss 0.25, "
        "newest sheet runs/mine/samples/stage1-00000001.png"
    )
    assert lines[-1].startswith("stage1: step 2,000 of 2,000, 16 images/s, 0:00:00 left, loss 0.25, newest sheet ")


def test_the_time_left_is_that_to_the_deadline_and_follows_the_speed(clock, capsys):
    line = ProgressLine("gan", 1_000_000, 500, 16, clock.now + 3600)
    train_by(clock, line, 10, [1.0, 1.0])
    assert capsys.readouterr().err == "gan: step 502 of 1,000,000, 1.6 images/s, 0:59:40 left, loss 1\n"
    # After some lines the first, slow ones count no more.
    train_by(clock, line, 0.5, [1.0] * 3000)
    line.close()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "gan: step 3,502 of 1,000,000, 32 images/s, 0:34:40 left, loss 1"
    clock.now += 3600
    line.close()
    assert " 0:00:00 left, " in capsys.readouterr().err


def test_a_stage_of_one_step_or_of_none_has_no_speed(clock, capsys):
    ProgressLine("one", 1, 0, 4, math.inf).close()
    assert capsys.readouterr().err == ""
    line = ProgressLine("one", 1, 0, 4, math.inf)
    line.advance(2.0)
    line.close()
    assert capsys.readouterr().err == "one: step 1 of 1, loss 2\n"


def read(terminal, count):
    """So many characters of a terminal, which gives them bit by bit."""
    found = b""
    while len(found) < count:
        found += terminal.read(count - len(found))
    return found.decode()


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, "stage1: step 3 of 2,000, 4 images/s, 0:33:17 left, loss 0.25, newest sheet runs/mine/samples/a-01.png"),
        (95, "stage1: step 3 of 2,000, 4 images/s, 0:33:17 left, newest sheet runs/mine/samples/a-01.png"),
        (80, "stage1: step 3 of 2,000, 4 images/s, 0:33:17 left, a-01.png"),
        (30, "stage1: step 3 of 2,000, 4 im"),
        (0, "stage1: step 3 of 2,000, 4 images/s, 0:33:17 left, a-01.png"),
    ],
)
def test_on_a_terminal_one_line_is_rewritten(clock, monkeypatch, columns, shown):
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(reader, "rb", buffering=0) as terminal, open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        line = ProgressLine("stage1", 2000, 0, 4, math.inf)
        line.sheet = Path("runs/mine/samples/a-01.png")
        # One line soon after the first step, the next a second later.
        train_by(clock, line, 2, [0.5, 0.5])
        train_by(clock, line, 0.5, [0.5])
        width = (columns or 80) - 1
        assert read(terminal, 1 + width).count("\r") == 1
        line = ProgressLine("stage1", 2000, 0, 4, math.inf)
        line.sheet = Path("runs/mine/samples/a-01.png")
        train_by(clock, line, 1, [0.5, 0.25, 0.25])
        line.close()
        # What a terminal makes of a line's end is "\r\n".
        _, *rewritten, end = read(terminal, 2 * (1 + width) + 2).split("\r")
    assert len(rewritten) == 2 and end == "\n"
    assert {len(each) for each in rewritten} == {width}
    assert rewritten[-1].rstrip() == shown


def test_a_stage_ends_with_its_newest_sheet(train_line, capsys):
    """Which is drawn in the last step, after its loss is known."""
    train_line(steps=4, sample_every=2, draw=lambda step: Path(f"samples/line-{step}.png"))
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"line: step 4 of 4, [\d.,]+ images/s, 0:00:00 left, loss [\d.e+]+, newest sheet samples/line-4\.png", line
    )


def test_a_stage_that_ends_early_says_where(train_line, capsys):
    train_line(steps=4, deadline=0.0)
    assert capsys.readouterr().err.startswith("line: step 1 of 4, loss ")
