import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from t2i_kd import generate
from t2i_kd.errors import UserError
from t2i_kd.runners import Runner


class Grey(Runner):
    """An artifact whose picture is as bright as its seed."""

    resolution = 32

    def _draw(self, captions, seeds):
        return np.stack([np.full((32, 32, 3), seed % 256, np.uint8) for seed in seeds])


@pytest.fixture
def grey(monkeypatch):
    monkeypatch.setattr(generate, "load_artifact", lambda path: Grey())


def run(*arguments):
    command = [sys.executable, "-m", "t2i_kd.generate", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def test_one_caption_gives_the_picture_itself(grey, tmp_path):
    generate.draw("model", ["a red circle"], 77, tmp_path / "one.png")
    picture = np.asarray(Image.open(tmp_path / "one.png"))
    np.testing.assert_array_equal(picture, np.full((32, 32, 3), 77))


def test_several_captions_give_a_grid(grey, tmp_path):
    generate.draw("model", ["a red circle", "a blue square", "a star"], 77, tmp_path / "three.PNG")
    sheet = np.asarray(Image.open(tmp_path / "three.PNG"))
    assert (sheet == 77).all(-1).sum() >= 3 * 128 * 128


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captions": []}, "--caption: missing"),
        ({"captions": ["a", " "]}, "--caption: empty"),
        ({"captions": ["x" * 10_000]}, "--caption: 10000 characters"),
        ({"captions": [os.fsdecode(b"\xff\xfe")]}, "--caption: not UTF-8"),
        ({"model": ""}, "--model: missing"),
        ({"seed": 2**63}, "--seed: 9223372036854775808"),
        ({"seed": -(2**63) - 1}, "--seed: -9223372036854775809"),
        ({"out": ""}, "--out: missing"),
        ({"out": "picture.jpg"}, "--out: .*picture.jpg does not end in .png"),
        ({"out": "nowhere/picture.png"}, "--out: the folder .*nowhere does not exist"),
    ],
)
def test_bad_input_is_named(changes, message, grey, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"model": "model", "captions": ["a red circle"], "seed": 0, "out": "picture.png"} | changes
    with pytest.raises(UserError, match=message):
        generate.draw(**values)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_picture(grey, tmp_path, monkeypatch):
    out = tmp_path / "picture.png"
    out.write_bytes(b"old")

    def full_disk(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generate, "write_file_atomically", full_disk)
    with pytest.raises(UserError, match=r"--out: .*No space left on device"):
        generate.draw("model", ["a"], 0, out)
    assert out.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([b"--caption=\xff\xfe"], "--caption"),
        (["--caption="], "--caption"),
        (["--caption=" + "x" * 10_000], "--caption"),
        (["--caption=a red circle", "--model=/nowhere/at/all"], "/nowhere/at/all"),
        (["--caption=a red circle", "--temperature=1"], "temperature"),
        (["--caption=a red circle", "--seed=many"], "seed"),
    ],
)
def test_the_command_ends_with_2_and_one_line(arguments, named, tmp_path):
    finished = run(f"--out={tmp_path / 'picture.png'}", *arguments)
    assert finished.returncode == 2
    lines = finished.stderr.decode().splitlines()
    assert len(lines) == 1 and named in lines[0]
    assert list(tmp_path.iterdir()) == []
