"""Pictures of every shape and mode become one square of uint8 RGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

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


RAMP = np.linspace(0, 1, 8)
GREYS = np.rint(255 * RAMP).astype(int)


def row(encoded):
    """The grey values of the first row of an 8 x 8 picture."""
    decoded = decode_square(encoded, 8)[0].astype(int)
    assert (decoded == decoded[:, :1]).all()
    return decoded[:, 0]


def tiff(values, inverted=False):
    """A TIFF of one channel in which every row is `values`; `inverted`: its tag says that 0 is white."""
    encoded = bytearray(encode(Image.fromarray(np.tile(values, (8, 1))), "TIFF"))
    directory = struct.unpack_from("<I", encoded, 4)[0]
    for index in range(struct.unpack_from("<H", encoded, directory)[0]):
        entry = directory + 2 + 12 * index
        if inverted and struct.unpack_from("<H", encoded, entry)[0] == 262:
            struct.pack_into("<H", encoded, entry + 8, 0)
    return bytes(encoded)


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.float32),
        (255 * RAMP).astype(np.float32),
        (65535 * RAMP).astype(np.float32),
        np.rint(65535 * RAMP).astype(np.uint16),
        np.rint(65535 * RAMP).astype(np.int32),
        np.rint(255 * RAMP).astype(np.int32),
        np.rint(255 * RAMP).astype(np.uint8),
    ],
    ids=lambda values: f"{values.dtype}-{values.max():g}",
)
@pytest.mark.parametrize("inverted", [False, True])
def test_ranges_and_polarity_of_one_channel(values, inverted):
    if inverted and values.dtype == np.int32:
        with pytest.raises(UserError, match="is not a"):
            row(tiff(values, inverted=True))
        return
    expected = 255 - GREYS if inverted else GREYS
    assert np.abs(row(tiff(values, inverted=inverted)) - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.array([0, np.nan], np.float32), "not finite"),
        (np.array([-1, 1], np.float32), "pixels from -1 to 1, neither in 0-1"),
        (np.array([0, 1e9], np.float32), "pixels from 0 to 1e.09"),
        (np.array([-5, 5], np.int32), "pixels from -5 to 5"),
    ],
)
def test_ranges_that_nobody_knows_are_refused(values, named):
    with pytest.raises(UserError, match=named):
        decode_square(encode(np.tile(values, (8, 4)), "TIFF"), 8)


def test_a_portable_grey_map_of_ten_bits():
    header = b"P5 8 8 1023\n"
    pixels = np.tile(np.rint(1023 * RAMP), (8, 1)).astype(">u2").tobytes()
    assert np.abs(row(header + pixels) - GREYS).max() <= 1


def with_primaries(**primaries):
    """An sRGB profile with other primaries (XYZ under D50)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for name, xyz in primaries.items():
        place = profile.index(name.encode(), 128)
        offset = struct.unpack(">I", profile[place + 4 : place + 8])[0]
        profile[offset + 8 : offset + 20] = b"".join(struct.pack(">i", round(value * 65536)) for value in xyz)
    return bytes(profile)


DISPLAY_P3 = with_primaries(
    rXYZ=(0.51512, 0.24120, -0.00105), gXYZ=(0.29198, 0.69225, 0.04189), bXYZ=(0.15710, 0.06657, 0.78407)
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def to_srgb_by_hand(colour):
    """Display P3 to sRGB by their matrices (CSS Color 4), in float64."""
    value = np.array(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = [[1.2249402, -0.2249402, 0.0], [-0.0420570, 1.0420570, 0.0], [-0.0196376, -0.0786361, 1.0982736]]
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("colour", [(60, 180, 60), (200, 90, 40), (128, 128, 128), (30, 60, 160)])
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_wide_gamut_colours_come_to_srgb(colour, format_name):
    options = {"quality": 100} if format_name in ("JPEG", "WEBP") else {}
    encoded = encode(Image.new("RGB", (8, 8), colour), format_name, icc_profile=DISPLAY_P3, **options)
    assert np.abs(decode_square(encoded, 8)[4, 4] - to_srgb_by_hand(colour)).max() <= 4


def test_colours_of_the_transparent_come_to_srgb_too():
    encoded = encode(Image.new("RGBA", (8, 8), (60, 180, 60, 128)), icc_profile=DISPLAY_P3)
    expected = 255 + (to_srgb_by_hand((60, 180, 60)) - 255) * 128 / 255
    assert np.abs(decode_square(encoded, 8)[4, 4] - expected).max() <= 3


def test_an_srgb_profile_changes_no_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_square(encode(pixels, icc_profile=SRGB), 8), pixels)


def test_a_profile_that_cannot_be_read_is_passed_over():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_square(encode(pixels, icc_profile=b"nonsense"), 8), pixels)


def test_lab_and_cmyk_are_colours():
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), (200, 60, 40)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert np.abs(decode_square(encode(lab, "TIFF"), 8)[0, 0].astype(int) - (200, 60, 40)).max() <= 4
    cyan = encode(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100)
    assert np.abs(decode_square(cyan, 8)[0, 0].astype(int) - (0, 255, 255)).max() <= 4


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(depth, colour_type, rows, *chunks):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, depth, colour_type, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + png_chunk(b"IEND", b"")


# The left half has the colour that is said to be transparent, and would be dark; the right half is grey.
HALVES = {
    "grey 8": png_file(8, 0, [b"\x10" * 4 + b"\x80" * 4] * 8, png_chunk(b"tRNS", b"\0\x10")),
    "grey 16": png_file(16, 0, [b"\x10\x07" * 4 + b"\x80\x80" * 4] * 8, png_chunk(b"tRNS", b"\x10\x07")),
    "rgb 8": png_file(8, 2, [b"\x10\x20\x30" * 4 + b"\x80" * 12] * 8, png_chunk(b"tRNS", b"\0\x10\0\x20\0\x30")),
    "rgb 16": png_file(
        16, 2, [b"\x10\1\x20\2\x30\3" * 4 + b"\x80" * 24] * 8, png_chunk(b"tRNS", b"\x10\1\x20\2\x30\3")
    ),
    "grey 1": png_file(1, 0, [b"\x0f"] * 8, png_chunk(b"tRNS", b"\0\0")),
}


@pytest.mark.parametrize("kind", HALVES)
def test_a_transparent_colour_is_white(kind):
    decoded = decode_square(HALVES[kind], 8)
    assert (decoded[:, :4] == 255).all()
    assert (decoded[:, 4:] == (255 if kind == "grey 1" else 128)).all()


@pytest.mark.parametrize("mode", ["LA", "PA", "P", "RGBA"])
def test_transparency_of_every_mode_is_on_white(mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((128, 128, 128, 255), (4, 0, 8, 8))
    if mode == "P":
        image = Image.fromarray((np.tile(np.arange(8) >= 4, (8, 1))).astype(np.uint8), "L").convert("P")
        image.putpalette([0, 0, 0, 128, 128, 128])
        encoded = encode(image, "GIF", transparency=0)
    else:
        image = image.convert(mode) if mode != "PA" else image
        encoded = encode(image, "PNG")
    decoded = decode_square(encoded, 8)
    assert (decoded[:, :4] == 255).all() and np.abs(decoded[:, 4:].astype(int) - 128).max() <= 1


@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_picture_is_not_refused_for_its_text(compressed):
    """Of 70 MB of text, as some generators keep their work in."""
    info = PngImagePlugin.PngInfo()
    for index in range(2):
        info.add_text(f"workflow{index}", "x" * (2**20 * 35), zip=compressed)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_square(encode(pixels, pnginfo=info), 8), pixels)
