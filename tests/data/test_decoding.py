"""Pictures of every shape and mode become one square of uint8 RGB."""

import io

import numpy as np
import pytest
from PIL import Image

from t2i_kd.data import decoding
from t2i_kd.data.decoding import decode_square
from t2i_kd.errors import UserError


def encode(pixels, format_name="PNG", **options):
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, format_name, **options)
    return stream.getvalue()


def test_same_size_is_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    decoded = decode_square(encode(pixels), 8)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_centre_is_cut(shape):
    pixels = np.zeros((*shape, 3), np.uint8)
    middle = (slice(None), slice(6, 14)) if shape[1] > shape[0] else (slice(6, 14), slice(None))
    pixels[middle] = (10, 200, 30)
    np.testing.assert_array_equal(decode_square(encode(pixels), 4), np.broadcast_to((10, 200, 30), (4, 4, 3)))


def test_reduction_averages():
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    decoded = decode_square(encode(np.repeat(checks[:, :, None], 3, 2).astype(np.uint8)), 8)
    assert np.abs(decoded.astype(int) - 127).max() <= 3


def test_transparent_is_white():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (100, 0, 0, 255)
    pixels[2:] = (0, 0, 0, 128)
    decoded = decode_square(encode(pixels), 4)
    np.testing.assert_array_equal(decoded[0, 0], (100, 0, 0))
    np.testing.assert_array_equal(decoded[3, 3], (127, 127, 127))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK"])
def test_modes(mode):
    format_name = "TIFF" if mode == "CMYK" else "PNG"
    assert decode_square(encode(Image.new("RGB", (6, 6), "white").convert(mode), format_name), 4).min() >= 250


def test_sixteen_bit_grey():
    decoded = decode_square(encode(np.full((4, 4), 128 * 257, np.uint16)), 4)
    np.testing.assert_array_equal(decoded, np.full((4, 4, 3), 128))


def test_exif_turns():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = decode_square(encode(pixels, exif=exif), 8)
    assert turned[:4].max() == 0
    assert turned[4:].min() == 255


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"text", lambda data: data[: len(data) // 2]])
@pytest.mark.parametrize("format_name", ["PNG", "JPEG"])
def test_broken(damage, format_name):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with pytest.raises(UserError, match=r"cannot be decoded|is not a"):
        decode_square(damage(encode(pixels, format_name)), 8)


def test_program_formats_are_not_tried():
    with pytest.raises(UserError, match="is not a JPEG"):
        decode_square(encode(Image.new("RGB", (8, 8)), "EPS"), 8)


def test_decompression_bomb(monkeypatch):
    with pytest.raises(UserError, match=r"cannot be decoded|pixels"):
        decode_square(encode(Image.new("1", (20000, 20000))), 8)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 63)
    with pytest.raises(UserError, match="8 x 8 pixels"):
        decode_square(encode(Image.new("L", (8, 8))), 8)
