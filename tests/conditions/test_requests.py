import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from t2i_kd.conditions import image as image_module
from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.conditions.image import IN_GRAPH, ImageCondition
from t2i_kd.data.decoding import decode
from t2i_kd.errors import UserError


def encoded(kind, size=(40, 24), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def two_pictures():
    """A JPEG as some cameras write it, with a second one behind the first."""
    return encoded("MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])


FILES = {kind: two_pictures() if kind == "MPO" else encoded(kind) for kind in IN_GRAPH}


@pytest.mark.parametrize("kind", IN_GRAPH)
def test_what_tensorflow_decodes_is_an_image(kind):
    import tensorflow as tf

    from t2i_kd.conditions import decoding_in_graph

    assert ImageCondition.check_request(FILES[kind]) == FILES[kind]
    decoded = decoding_in_graph.decode(tf.constant(FILES[kind]))
    assert decoded.shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "image: not a JPEG or PNG"),
        (b"a small red circle", "image: not a JPEG or PNG"),
        (encoded("WEBP"), "image: WEBP is not read; give a JPEG or PNG"),
        (encoded("TIFF"), "image: TIFF is not read"),
        (encoded("PNG")[:-500], "image: cannot be decoded: "),
        (encoded("JPEG")[:-500], "image: cannot be decoded: "),
        (encoded("GIF"), "image: GIF is not read"),
        (encoded("BMP"), "image: BMP is not read"),
        (encoded("PNG", (400, 300)), "image: 400 x 300 pixels, more than the 100000 allowed"),
    ],
)
def test_anything_else_is_refused(monkeypatch, data, message):
    monkeypatch.setattr(image_module, "MAX_PIXELS", 100_000)
    with pytest.raises(UserError) as caught:
        ImageCondition.check_request(data)
    assert str(caught.value).startswith(message)


def of_mode(mode, kind="PNG", **options):
    file = io.BytesIO()
    Image.open(io.BytesIO(FILES["PNG"])).convert(mode).save(file, kind, **options)
    return file.getvalue()


UPRIGHT_LATER = Image.Exif()
UPRIGHT_LATER[0x0112] = 6


@pytest.mark.parametrize(
    "data",
    [of_mode("1"), of_mode("P", bits=4), of_mode("CMYK", "JPEG"), of_mode("RGB", exif=UPRIGHT_LATER)],
    ids=["1 bit", "palette of 4 bits", "CMYK", "turned PNG"],
)
def test_what_the_graph_would_read_otherwise_is_encoded_anew(data):
    import tensorflow as tf

    from t2i_kd.conditions import decoding_in_graph

    sent = ImageCondition.check_request(data)
    assert sent != data
    np.testing.assert_array_equal(decoding_in_graph.decode(tf.constant(sent)), np.asarray(decode(data)))


def test_a_bomb_is_refused_by_its_header():
    bomb = bytearray(encoded("BMP"))
    bomb[18:26] = (100_000).to_bytes(4, "little") * 2
    with pytest.raises(UserError, match=r"100000|decompression bomb"):
        ImageCondition.check_request(bytes(bomb))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_bytes_are_an_image_or_refused(kind, data):
    changed = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(ImageCondition.check_request(bytes(changed)), bytes)
    except UserError as error:
        assert "\n" not in str(error)


def test_captions_are_checked_and_not_changed():
    assert CaptionCondition.check_request("größe".encode()) == "größe".encode()
    for wrong in (b" ", b"\xff", b"x" * 2001):
        with pytest.raises(UserError, match="caption: "):
            CaptionCondition.check_request(wrong)


def test_an_images_limits_are_larger():
    for name in ("max_item_bytes", "max_body_bytes"):
        assert getattr(ImageCondition.limits, name) > getattr(CaptionCondition.limits, name)
    # In base64, with JSON around it.
    assert 4 / 3 * ImageCondition.limits.max_item_bytes < ImageCondition.limits.max_body_bytes
