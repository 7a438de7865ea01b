"""A picture's file to the one shape that the project works with: a square of uint8 RGB."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from t2i_kd.errors import UserError

# Only these decoders are tried: some of Pillow's others run external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# A picture that claims more pixels than this is refused before it is decoded: a small file can unpack to gigabytes.
MAX_PIXELS = 50_000_000


def decode_square(encoded, resolution):
    """The centred square of a picture at a resolution.

    The picture is turned as its EXIF orientation says, laid on white where it is transparent, cut to its largest
    centred square and resized with Pillow's antialiased Lanczos filter. A GIF or TIFF gives its first frame; 16-bit
    grey is scaled to 8 bits.

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
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            return upright_rgb(image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from None
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file.
        raise UserError(f"cannot be decoded: {error}") from None


def upright_rgb(image):
    """A `PIL.Image` turned as its Exif orientation says, what is transparent laid on white, in RGB."""
    return _rgb_on_white(ImageOps.exif_transpose(image))


def _rgb_on_white(image):
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


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
