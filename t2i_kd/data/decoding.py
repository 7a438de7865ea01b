"""A picture's file to the one shape that the project works with: a square of uint8 RGB."""

import functools
import io
import struct

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from t2i_kd.errors import UserError

# Only these decoders are tried: some of Pillow's others run external programs, or take almost any bytes for theirs.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"),
    *("MPO", "AVIF", "HEIF", "JPEG2000", "PPM", "ICO", "PCX", "SGI", "PSD", "QOI"),
)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ICO_SIGNATURE = b"\0\0\1\0"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
LAB = "LAB"
# Tags of a TIFF.
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
WHITE_IS_ZERO = 0
# A picture that claims more pixels than this is refused before it is decoded: a small file can unpack to gigabytes.
MAX_PIXELS = 50_000_000
# In arithmetic of 64 bits.
PIXELS_AT_ONCE = 2**20


@functools.cache
def readable_formats():
    """Those of `FORMATS` that Pillow has a decoder of here."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def picture_suffixes():
    """The endings, in small letters, of the files of `readable_formats`."""
    Image.init()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable_formats())


def decode_square(encoded, resolution):
    """The centred square of a picture at a resolution.

    The picture is turned as its EXIF orientation says, brought from its colour profile to sRGB, laid on white where it
    is transparent, cut to its largest centred square and resized with Pillow's antialiased Lanczos filter. Of several
    frames it gives the first. One channel of more than 8 bits goes from its range to 0-255: that of its bits, or for
    floats and 32 bits the smallest of 0-1 (floats), 0-255 and 0-65535 that holds all pixels.

    Args:
        encoded: bytes of a file in one of `FORMATS`.
        resolution: side of the result in pixels.

    Returns:
        uint8 RGB [resolution, resolution, 3] in 0-255.

    Raises:
        UserError: with the reason, where the bytes are not a whole picture or claim more than `MAX_PIXELS`.
    """
    return centred_square(decode(encoded), resolution)


def decode(encoded):
    """A picture's file as an upright `PIL.Image` in RGB, of its own size; as `decode_square` says, and its errors."""
    try:
        _check_icon(encoded)
        with Image.open(io.BytesIO(without_text(encoded)), formats=readable_formats()) as image:
            check_size(*image.size)
            return upright_rgb(image)
    except UserError:
        raise
    except UnidentifiedImageError:
        known = readable_formats()
        raise UserError(f"is not a {', '.join(known[:-1])} or {known[-1]} picture") from None
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file.
        raise UserError(f"cannot be decoded: {error}") from None


def check_size(width, height):
    """Raises `UserError` for more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise UserError(f"has {width} x {height} pixels, more than {MAX_PIXELS:,}")


def _check_icon(encoded):
    """Looks into an ICO, whose pictures may be larger than it says: Pillow decodes one when it opens the file."""
    if not encoded.startswith(ICO_SIGNATURE):
        return
    for number in range(int.from_bytes(encoded[4:6], "little")):
        at = int.from_bytes(encoded[18 + 16 * number : 22 + 16 * number], "little")
        if encoded[at : at + 8] == PNG_SIGNATURE:
            check_size(*struct.unpack(">LL", encoded[at + 16 : at + 24].ljust(8, b"\0")))
        else:
            check_size(*map(abs, struct.unpack("<ll", encoded[at + 4 : at + 12].ljust(8, b"\0"))))


def upright_rgb(image):
    """A `PIL.Image` turned as its Exif orientation says, in sRGB, what is transparent laid on white, in RGB.

    Raises:
        UserError: for pixels of a kind or a range that nobody can know the brightness of.
    """
    turned = ImageOps.exif_transpose(image)
    # What only the opened file has; the turned image may be a copy.
    tags, format_name = getattr(image, "tag_v2", {}), image.format
    colour, alpha = _eight_bits(turned, tags, format_name)
    rgb = _in_srgb(colour, image.info.get("icc_profile"))
    if alpha is None:
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def _eight_bits(image, tags, format_name):
    """An image's colours in 8 bits a channel, and its opacity, mode L; None where nothing is transparent."""
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        alpha = None
        if isinstance(image.info.get("transparency"), int):
            transparent = np.asarray(image) == image.info["transparency"]
            alpha = Image.fromarray(np.where(transparent, np.uint8(0), np.uint8(255)))
        return _grey(image, tags, format_name), alpha
    if mode in ("La", "RGBa"):  # colours that are multiplied by their opacity
        image = image.convert("LA" if mode == "La" else "RGBA")
    elif mode == "PA":
        image = image.convert("RGBA")
    elif image.has_transparency_data and mode not in ("LA", "RGBA"):
        transparent = image.info.get("transparency")
        if mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
            # Of 16 bits a channel Pillow keeps the upper 8, and the transparent colour as it was.
            image.info["transparency"] = tuple(value >> 8 for value in transparent)
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]) if image.mode == "LA" else image.convert("RGB"), image.getchannel("A")
    if image.mode in ("1", "P"):
        return image.convert("L" if image.mode == "1" else "RGB"), None
    return image, None


def _grey(image, tags, format_name):
    """An image of one channel of more than 8 bits in 8 bits."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UserError("has pixels that are not finite numbers")
    if image.mode.startswith("I;16") or format_name in ("PNG", "PPM"):
        bits = _first(tags.get(BITS_PER_SAMPLE), 16)
        most = 2.0 ** (bits if bits in (12, 14, 16) else 16) - 1
    elif image.mode == "F":
        most = next((each for each in (1.0, 255.0, 65535.0) if high <= each), 0.0)
    else:
        most = next((each for each in (255.0, 65535.0, 2.0**31 - 1) if high <= each), 0.0)
    if low < 0 or not most:
        raise UserError(f"has pixels from {low:g} to {high:g}, neither in 0-1 nor in 0-255 nor in 0-65535")
    # Pillow turns 8 bits around where white is 0, and nothing else.
    turned = _first(tags.get(PHOTOMETRIC), 1) == WHITE_IS_ZERO
    grey, pixels = np.empty(values.shape, np.uint8), values.reshape(-1)
    for start in range(0, len(pixels), PIXELS_AT_ONCE):
        some = pixels[start : start + PIXELS_AT_ONCE].astype(np.float64)
        scaled = (most - some if turned else some) * (255 / most)
        grey.reshape(-1)[start : start + PIXELS_AT_ONCE] = np.clip(np.rint(scaled), 0, 255)
    return Image.fromarray(grey)


def _first(value, default):
    value = value[0] if isinstance(value, tuple) and value else value
    return default if value is None or value == () else value


def _in_srgb(image, profile):
    """An image in its profile's colours, as RGB in sRGB; without one, RGB is sRGB."""
    if image.mode == "LAB" and not profile:
        profile = LAB
    if profile:
        transform = _to_srgb(profile, image.mode)
        if transform is not None:
            return ImageCms.applyTransform(image, transform)
    if image.mode not in ("L", "RGB", "CMYK", "YCbCr", "HSV", "RGBX"):
        raise UserError(f"has pixels of kind {image.mode}, whose colours are not known")
    return image.convert("RGB")


@functools.lru_cache(maxsize=64)
def _to_srgb(profile, mode):
    """Pillow's transform from a profile to sRGB; None where it changes nothing, or is none for such pixels.

    A profile that cannot be read, or is of another kind of pixels, is passed over, as browsers do.
    """
    try:
        source = ImageCms.createProfile(LAB) if profile == LAB else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode != "RGB":
            return transform
        # Rounding would move a picture that is in sRGB already.
        probe = _colours()
        moved = np.abs(np.asarray(ImageCms.applyTransform(probe, transform)).astype(int) - np.asarray(probe))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform if moved.max() > 1 else None


@functools.cache
def _colours():
    """An image of colours all over the cube."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))


def without_text(encoded):
    """A PNG without its text, of which Pillow reads only so much before it refuses the picture; else the bytes."""
    if not encoded.startswith(PNG_SIGNATURE):
        return encoded
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at + 12 <= len(encoded):
        size = int.from_bytes(encoded[at : at + 4], "big")
        kind, end = encoded[at + 4 : at + 8], at + 12 + size
        if kind not in TEXT_CHUNKS:
            kept.append(encoded[at:end])
        at = end
    return b"".join([*kept, encoded[at:]])


def centred_square(image, resolution):
    """The largest centred square of a picture, resized with Pillow's antialiased Lanczos filter.

    Args:
        image: a `PIL.Image` in RGB.
        resolution: side of the result in pixels.

    Returns:
        uint8 RGB [resolution, resolution, 3] in 0-255.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((resolution, resolution), Image.Resampling.LANCZOS))
