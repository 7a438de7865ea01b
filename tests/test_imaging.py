import io

import numpy as np
import pytest
from PIL import Image

from t2i_kd import imaging


def test_to_uint8_clips_and_rounds_halves_to_even():
    values = np.array([-3.0, 0.5, 1.5, 2.5, 254.5, 255.4, 300.0, np.nan, np.inf], np.float32)
    assert imaging.to_uint8(values).tolist() == [0, 0, 2, 2, 254, 255, 255, 0, 255]
    assert imaging.to_uint8(values).dtype == np.uint8


def test_png_is_lossless():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    decoded = Image.open(io.BytesIO(imaging.encode_png(image)))
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), image)


def test_grid_shows_every_picture_enlarged_and_text_beneath():
    colours = np.arange(5, dtype=np.uint8) * 40 + 10
    images = np.broadcast_to(colours[:, None, None, None], (5, 32, 32, 3))
    sheet = np.asarray(imaging.captioned_grid(images, ["a red circle"] * 5, columns=3))
    for index, colour in enumerate(colours):
        rows, columns = np.nonzero((sheet == colour).all(-1))
        assert np.ptp(rows) + 1 >= 128 and np.ptp(columns) + 1 >= 128, index
    first_text = sheet[8 + 128 : 8 + 128 + 24, 8:136]
    assert (first_text < 100).any()
    assert first_text.max() == 255


@pytest.mark.parametrize("caption", ["", "ein Fünfeck 红色 🟥", "x" * 5000, "a\nb\tc\x00\udcff", "سلام", "word " * 500])
def test_grid_takes_any_caption(caption):
    sheet = imaging.captioned_grid(np.zeros((1, 32, 32, 3), np.uint8), [caption])
    assert sheet.size[0] == 128 + 16
    assert sheet.size[1] < 300


def test_lines_fit_and_keep_the_words():
    font = imaging.ImageFont.load_default(imaging.FONT_SIZE)
    caption = "a large yellow square at the bottom left on black"
    lines = imaging._wrap(caption, font, 128)
    assert " ".join(lines) == caption
    assert max(font.getlength(line) for line in lines) <= 128
    assert imaging._wrap("word " * 500, font, 128)[-1].endswith("…")


def test_grid_needs_a_caption_for_each_picture():
    with pytest.raises(ValueError, match="2 captions"):
        imaging.captioned_grid(np.zeros((1, 32, 32, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="0 captions"):
        imaging.captioned_grid(np.zeros((0, 32, 32, 3)), [])


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    imaging.write_file_atomically(path, b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(imaging.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        imaging.write_file_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]
