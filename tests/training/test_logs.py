"""What a run writes while it trains, read by others."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

from t2i_kd.imaging import encode_png
from t2i_kd.training.logs import EventLog, cut_metrics


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


def test_the_bar_shows_speed_and_time_left(train_line, capfd):
    train_line(steps=4)
    bar = capfd.readouterr().err
    assert "line: 100%" in bar and "16/16" in bar and "img/s" in bar and "<00:00" in bar
    assert bar.endswith("\n")
