import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from t2i_kd import generate
from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.errors import UserError
from t2i_kd.imaging import encode_png
from t2i_kd.runners import IdentityRunner, Runner
from t2i_kd.text.front_end import TokenFrontEnd
from t2i_kd.text.tokenizer import Tokenizer

CAPTION = CaptionCondition(TokenFrontEnd("gru", Tokenizer("words", ("red",), 8)))


class Grey(Runner):
    """An artifact whose picture is as bright as its seed."""

    def __init__(self, condition=CAPTION):
        super().__init__(condition, 32)

    def _generate(self, items, seeds):
        return np.stack([np.full((32, 32, 3), seed % 256, np.uint8) for seed in seeds])


@pytest.fixture
def grey(monkeypatch):
    monkeypatch.setattr(generate.api, "load", lambda path: Grey())


@pytest.fixture
def grey_translation(monkeypatch):
    monkeypatch.setattr(generate.api, "load", lambda path: Grey(ImageCondition(16)))


@pytest.fixture
def photos(tmp_path):
    """Two files of images and one of text."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encode_png(np.zeros((20, 30, 3), np.uint8)))
    (tmp_path / "text.png").write_text("no image")
    return tmp_path


def run(*arguments):
    command = [sys.executable, "-m", "t2i_kd.generate", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def test_one_caption_gives_the_picture_itself(grey, tmp_path):
    generate.write_images("model", ["a red circle"], [], 77, tmp_path / "one.png")
    picture = np.asarray(Image.open(tmp_path / "one.png"))
    np.testing.assert_array_equal(picture, np.full((32, 32, 3), 77))


def test_words_that_the_model_does_not_read_are_named(grey, tmp_path, capsys):
    captions = ["red", "Red xyzzy red plugh", "red " * 8 + "end"]
    generate.write_images("model", captions, [], 0, tmp_path / "one.png")
    assert capsys.readouterr().err.splitlines() == [
        "warning: --caption 'Red xyzzy red plugh': the student does not know 'xyzzy', 'plugh'",
        "warning: --caption 'red red red red red red red red end': the student reads 8 words, not 'end'",
    ]


def test_several_captions_give_a_grid(grey, tmp_path):
    generate.write_images("model", ["a red circle", "a blue square", "a star"], [], 77, tmp_path / "three.PNG")
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
    values = {"model": "model", "captions": ["a red circle"], "images": [], "seed": 0, "out": "picture.png"} | changes
    with pytest.raises(UserError, match=message):
        generate.write_images(**values)
    assert list(tmp_path.iterdir()) == []


def test_images_give_one_image_or_a_grid_with_their_names(grey_translation, photos):
    paths = [str(photos / name) for name in ("a.png", "b.png")]
    generate.write_images("model", [], paths[:1], 7, photos / "one.png")
    np.testing.assert_array_equal(np.asarray(Image.open(photos / "one.png")), np.full((32, 32, 3), 7))
    generate.write_images("model", [], paths, 7, photos / "two.png")
    assert (np.asarray(Image.open(photos / "two.png")) == 7).all(-1).sum() >= 2 * 128 * 128


def test_large_images_keep_their_sizes_in_tiles(photos, monkeypatch):
    monkeypatch.setattr(generate.api, "load", lambda path: IdentityRunner(ImageCondition(16), 16))
    rng = np.random.default_rng(0)
    pictures = {"small.png": rng.integers(0, 200, (11, 30, 3), np.uint8)}
    pictures["large.png"] = rng.integers(0, 200, (150, 201, 3), np.uint8)
    paths = []
    for name, picture in pictures.items():
        paths.append(str(photos / name))
        (photos / name).write_bytes(encode_png(picture))
        generate.write_images("model", [], paths[-1:], 0, photos / "out.png", "tile")
        np.testing.assert_array_equal(np.asarray(Image.open(photos / "out.png")), picture)
    generate.write_images("model", [], paths, 0, photos / "out.png", "tile")
    sheet = np.asarray(Image.open(photos / "out.png"))
    # Before and after beside each other, the small one enlarged five times.
    small, large = np.repeat(np.repeat(pictures["small.png"], 5, 0), 5, 1), pictures["large.png"]
    for left in (8, 8 + 201 + 8):
        np.testing.assert_array_equal(sheet[8 : 8 + 55, left : left + 150], small)
        top = sheet.shape[0] - 150 - 16
        found = [row for row in range(top - 40, top + 1) if (sheet[row : row + 150, left : left + 201] == large).all()]
        assert len(found) == 1
    monkeypatch.setattr(generate, "LARGEST_GRID", 4 * 150 * 201 - 1)
    with pytest.raises(UserError, match="--image: a grid of 4 images of up to 201 x 150 pixels is too large"):
        generate.write_images("model", [], paths, 0, photos / "new.png", "tile")
    assert not (photos / "new.png").exists()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Grey(), {}, "--large_images: model reads captions"),
        (Grey(ImageCondition(16)), {}, "--large_images: tiles need a model .* not at 32 pixels of 16"),
        (IdentityRunner(ImageCondition(16), 16), {"tile_overlap": 0.8}, "--tile_overlap: 0.8 is not in 0 to 0.75"),
        (IdentityRunner(ImageCondition(16), 16), {"tile_overlap": float("nan")}, "--tile_overlap: nan is not"),
    ],
    ids=["captions", "sides", "overlap", "nan"],
)
def test_what_cannot_be_tiled_is_told(model, options, message, photos, monkeypatch):
    monkeypatch.setattr(generate.api, "load", lambda path: model)
    asked = (["red"], []) if model.condition.kind == "caption" else ([], [str(photos / "a.png")])
    with pytest.raises(UserError, match=message):
        generate.write_images("model", *asked, 0, photos / "out.png", "tile", **options)
    assert not (photos / "out.png").exists()


@pytest.mark.parametrize(
    ("captions", "names", "message"),
    [
        (["a"], [], "--caption: model reads images; give --image"),
        (["a"], ["a.png"], "--image: give captions or images, not both"),
        ([], [], "--image: missing"),
        ([], ["a.png", "nowhere.png"], "--image: .*nowhere.png: No such file"),
        ([], ["."], "--image: .*: Is a directory"),
        ([], ["a.png", "text.png"], "--image: .*text.png: image: is not a JPEG, PNG"),
    ],
)
def test_wrong_images_are_named(captions, names, message, grey_translation, photos):
    before = sorted(photos.iterdir())
    with pytest.raises(UserError, match=message):
        generate.write_images("model", captions, [str(photos / name) for name in names], 0, photos / "out.png")
    assert sorted(photos.iterdir()) == before


def test_an_image_for_a_model_of_captions_is_refused(grey, photos):
    with pytest.raises(UserError, match="--image: model reads captions; give --caption"):
        generate.write_images("model", [], [str(photos / "a.png")], 0, photos / "out.png")


def test_a_failed_write_keeps_the_old_picture(grey, tmp_path, monkeypatch):
    out = tmp_path / "picture.png"
    out.write_bytes(b"old")

    def full_disk(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generate, "write_file_atomically", full_disk)
    with pytest.raises(UserError, match=r"--out: .*No space left on device"):
        generate.write_images("model", ["a"], [], 0, out)
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


def test_a_pipe_is_not_waited_for(grey_translation, photos):
    os.mkfifo(photos / "pipe.png")
    for name in ("pipe.png", "/dev/zero"):
        with pytest.raises(UserError, match=f"--image: .*{name}: not a file"):
            generate.write_images("model", [], [str(photos / name)], 0, photos / "out.png")
