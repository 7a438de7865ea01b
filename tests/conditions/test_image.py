"""Images as the condition: the same pixels in NumPy and in a graph, whatever file they come from."""

import functools
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from t2i_kd.conditions.catalogue import load_condition
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.conditions.resizing import resize_square
from t2i_kd.errors import UserError

tf = pytest.importorskip("tensorflow")
RNG = np.random.default_rng(0)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(height, width):
    """A smooth picture with some detail, as photographs are."""
    coarse = RNG.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@functools.cache
def graph(side):
    return tf.function(ImageCondition(side).in_graph, input_signature=[tf.TensorSpec([None], tf.string)])


def in_graph(condition, requests):
    return graph(condition.side)(tf.constant(requests))["source"].numpy()


@pytest.mark.parametrize(
    ("height", "width", "side"), [(32, 32, 32), (45, 61, 32), (200, 133, 32), (20, 17, 48), (1, 9, 8)]
)
def test_resizing_is_pillows_lanczos_of_the_centred_square(height, width, side):
    # Far from black and white: Pillow clips between its two passes.
    image = np.asarray(photo(height, width)) // 2 + 64
    length = min(height, width)
    box = ((width - length) // 2, (height - length) // 2)
    square = Image.fromarray(image).crop((*box, box[0] + length, box[1] + length))
    expected = np.asarray(square.resize((side, side), Image.Resampling.LANCZOS), np.float32)
    found = resize_square(image, side)
    assert found.shape == (side, side, 3) and found.dtype == np.float32
    # And rounds there.
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_graph_reads_the_pixels_that_numpy_reads(kind):
    condition = ImageCondition(32)
    files = [encoded(photo(*size), kind) for size in ((32, 32), (75, 50), (48, 200), (300, 300), (7, 9))]
    outside, inside = condition.arrays(files)["source"], in_graph(condition, condition.encode(files))
    assert condition.encode(files) == files
    assert np.abs(outside - inside).max() <= 1 and (outside != inside).mean() < 1e-3
    assert np.array_equal(outside[0], inside[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("big_endian", [False, True])
def test_a_graph_turns_photographs_as_their_exif_says(orientation, big_endian):
    image, exif = photo(40, 56), Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", orientation
    content = encoded(image, "JPEG", exif=_exif_bytes(exif, big_endian), quality=90)
    condition = ImageCondition(40)
    with Image.open(io.BytesIO(content)) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    assert upright.shape == ((56, 40, 3) if orientation > 4 else (40, 56, 3))
    expected = resize_square(upright, 40)
    assert np.array_equal(condition.arrays([content])["source"][0], expected)
    assert np.abs(in_graph(condition, [content])[0] - expected).max() <= 1


def _exif_bytes(exif, big_endian):
    if not big_endian:
        return exif.tobytes()
    exif.endian, exif._info = ">", None
    content = exif.tobytes()
    return content if content[6:8] == b"MM" else _swapped(exif)


def _swapped(exif):
    """Big-endian Exif data with the orientation alone."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00" + bytes([exif[0x0112]]) + b"\x00\x00"
    return b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"


def test_what_is_transparent_lies_on_white_everywhere():
    colour, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    content = encoded(Image.fromarray(np.stack([colour, colour[::-1], colour.T, alpha], -1)), "PNG")
    condition = ImageCondition(256)
    assert np.array_equal(in_graph(condition, [content])[0], condition.arrays([content])["source"][0])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
def test_pngs_of_every_mode(mode):
    image = photo(32, 32).convert("L" if mode in ("1", "LA") else "RGB").convert(mode)
    content = encoded(image, "PNG")
    condition = ImageCondition(32)
    assert np.array_equal(in_graph(condition, condition.encode([content])), condition.arrays([content])["source"])


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "GIF", "TIFF", "CMYK"])
def test_what_a_graph_cannot_decode_is_sent_as_png(kind):
    image = photo(32, 32)
    content = encoded(image.convert("CMYK"), "JPEG") if kind == "CMYK" else encoded(image, kind)
    condition = ImageCondition(32)
    (sent,) = condition.encode([content])
    assert sent.startswith(b"\x89PNG")
    assert np.array_equal(in_graph(condition, [sent]), condition.arrays([content])["source"])


def test_arrays_and_pillow_images_are_items_too():
    image = photo(32, 40)
    condition = ImageCondition(32)
    items = [np.asarray(image), image, encoded(image, "PNG")]
    sources = condition.arrays(items)["source"]
    assert np.array_equal(sources[0], sources[1]) and np.array_equal(sources[0], sources[2])
    assert np.array_equal(in_graph(condition, condition.encode(items))[0], sources[0])


def test_a_pillow_image_is_read_as_its_file_is():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(photo(40, 56), "JPEG", exif=exif.tobytes())
    clear = encoded(photo(32, 32).convert("RGBA").rotate(45), "PNG")
    condition = ImageCondition(32)
    for content in (turned, clear):
        image = Image.open(io.BytesIO(content))
        sources = condition.arrays([content])["source"]
        assert np.array_equal(condition.arrays([image])["source"], sources)
        assert np.abs(in_graph(condition, condition.encode([image])) - sources).max() <= 1


@pytest.mark.parametrize(
    "item", [b"", b"no image", b"\x89PNG\r\n", np.zeros((3, 3)), np.zeros((0, 3, 3), np.uint8), "image.png", None]
)
def test_what_is_no_image_is_refused(item):
    with pytest.raises(UserError, match="image"):
        ImageCondition(32).check(item)


def test_it_survives_its_folder(tmp_path):
    condition = ImageCondition(48)
    condition.save(tmp_path)
    assert load_condition(tmp_path) == condition
    items = [np.asarray(photo(60, 70)), np.asarray(photo(48, 48))]
    condition.save_items(items, tmp_path)
    kept = condition.load_items(tmp_path)
    assert np.array_equal(condition.arrays(kept)["source"], condition.arrays(items)["source"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "format 1"),
        ('{"format_version": 7}', "format 1"),
        ('{"format_version": 1, "kind": "sound"}', "'sound' is none of caption, image"),
        ('{"format_version": 1, "kind": "image"}', "incomplete"),
        ('{"format_version": 1, "kind": "image", "inputs": {"source": {"shape": [3, 4, 3]}}}', "not a square"),
        ('{"format_version": 1, "kind": "caption"}', "incomplete"),
        ('{"format_version": 1, "kind": "caption", "encoder": "bert"}', "'bert' is none of"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, named):
    (tmp_path / "condition.json").write_text(text)
    with pytest.raises(UserError) as error:
        load_condition(tmp_path)
    assert named in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"condition\.json: missing"):
        load_condition(tmp_path)
