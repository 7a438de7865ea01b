import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from t2i_kd.serving.requests import CAPTION, DECODED, IMAGE, check_image, condition_of

from t2i_kd.errors import UserError
from t2i_kd.serving import requests


def encoded(kind, size=(40, 24), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def two_pictures():
    """A JPEG as some cameras write it, with a second one behind the first."""
    return encoded("MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])


FILES = {kind: two_pictures() if kind == "MPO" else encoded(kind) for kind in DECODED}


@pytest.mark.parametrize("kind", DECODED)
def test_what_tensorflow_decodes_is_an_image(kind):
    import tensorflow as tf

    assert check_image(FILES[kind]) == FILES[kind]
    decoded = tf.io.decode_image(FILES[kind], channels=3, expand_animations=False)
    assert decoded.shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "image: not a JPEG, PNG, GIF or BMP"),
        (b"a small red circle", "image: not a JPEG, PNG, GIF or BMP"),
        (encoded("WEBP"), "image: WEBP is not read; give a JPEG, PNG, GIF or BMP"),
        (encoded("TIFF"), "image: TIFF is not read"),
        (encoded("PNG")[:-500], "image: cannot be decoded: "),
        (encoded("JPEG")[:-500], "image: cannot be decoded: "),
        (encoded("GIF")[:-500], "image: cannot be decoded: "),
        (encoded("PNG", (400, 300)), "image: 400 x 300 pixels, more than the 100000 allowed"),
    ],
)
def test_anything_else_is_refused(monkeypatch, data, message):
    monkeypatch.setattr(requests, "MOST_PIXELS", 100_000)
    with pytest.raises(UserError) as caught:
        check_image(data)
    assert str(caught.value).startswith(message)


def test_a_bomb_is_refused_by_its_header():
    bomb = bytearray(encoded("BMP"))
    bomb[18:26] = (100_000).to_bytes(4, "little") * 2
    with pytest.raises(UserError, match=r"100000|decompression bomb"):
        check_image(bytes(bomb))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_bytes_are_an_image_or_refused(kind, data):
    changed = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert check_image(bytes(changed)) == changed
    except UserError as error:
        assert "\n" not in str(error)


def test_captions_are_checked_and_not_changed():
    assert CAPTION.check("größe".encode()) == "größe".encode()
    for wrong in (b" ", b"\xff", b"x" * 2001):
        with pytest.raises(UserError, match="caption: "):
            CAPTION.check(wrong)


def test_an_images_limits_are_larger():
    for name in ("max_item_bytes", "max_body_bytes"):
        assert getattr(IMAGE.limits, name) > getattr(CAPTION.limits, name)
    # In base64, with JSON around it.
    assert 4 / 3 * IMAGE.limits.max_item_bytes < IMAGE.limits.max_body_bytes


def test_the_manifest_says_what_a_model_is_asked_with():
    old = {"text": {"encoder": "gru", "input": "tokens", "shape": [20], "dtype": "int32"}}
    inputs = {"tokens": {"shape": [20], "dtype": "int32"}}
    assert condition_of("1", old) == {"kind": "caption", "request": "text", "inputs": inputs}
    assert condition_of("1", {"condition": {"kind": "image"}}) == {"kind": "image"}
    for unknown in ({"kind": "sound"}, {}, "image!", 7):
        with pytest.raises(UserError, match=r"1: asked with .*; known are caption, image"):
            condition_of("1", {"condition": unknown})
