"""What a model is asked with, captions or images: the name of the input, what an item must be, and how large."""

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from t2i_kd.errors import UserError
from t2i_kd.text.tokenizer import check_caption

# What TensorFlow's decoder reads. A camera's JPEG that holds a preview too is an MPO to Pillow.
DECODED = ("JPEG", "MPO", "PNG", "GIF", "BMP")
# What is only recognised, so that it can be refused by its name.
RECOGNISED = ("WEBP", "TIFF", "JPEG2000", "ICO")
MOST_PIXELS = 50_000_000


@dataclass(frozen=True)
class Limits:
    """The bounds that suit one kind of item; a flag of the same name sets another."""

    max_item_bytes: int
    max_body_bytes: int
    max_items_per_request: int
    max_pending_items: int
    max_connections: int


@dataclass(frozen=True)
class RequestKind:
    """What the items of a request are.

    Attributes:
        name: "caption" or "image".
        request: the name of the signatures' input, string [batch].
        limits: `Limits`.
        check: from an item's bytes to the item, unchanged; raises `UserError`.
        quick: whether `check` takes microseconds, so that no other request waits for it.
    """

    name: str
    request: str
    limits: Limits
    check: Callable[[bytes], bytes]
    quick: bool


def check_image(data):
    """An encoded image, if the graph can decode it.

    Args:
        data: a file's bytes.

    Returns:
        `data`.

    Raises:
        UserError: when it is not a whole JPEG, PNG, GIF or BMP of at most `MOST_PIXELS` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "GIF", "BMP", *RECOGNISED)) as image:
            _check_header(image)
            image.load()
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError("image: not a JPEG, PNG, GIF or BMP") from None
    except Exception as error:  # Pillow's decoders share no base class of their errors.
        raise UserError(f"image: cannot be decoded: {str(error)[:200]}") from None
    return data


def _check_header(image):
    if image.format not in DECODED:
        raise UserError(f"image: {image.format} is not read; give a JPEG, PNG, GIF or BMP")
    pixels = image.width * image.height
    if pixels > MOST_PIXELS:
        raise UserError(f"image: {image.width} x {image.height} pixels, more than the {MOST_PIXELS} allowed")


def _check_caption(data):
    check_caption(data)
    return data


MEBIBYTE = 1 << 20
CAPTION = RequestKind("caption", "text", Limits(8000, MEBIBYTE, 64, 1024, 256), _check_caption, quick=True)
IMAGE = RequestKind("image", "image_bytes", Limits(16 * MEBIBYTE, 32 * MEBIBYTE, 16, 64, 64), check_image, quick=False)
KINDS = {kind.name: kind for kind in (CAPTION, IMAGE)}


def condition_of(folder, manifest):
    """What a version's manifest says of its requests: {"kind", "request", "inputs": {name: {"shape", "dtype"}}, ...}.

    Raises:
        UserError: naming the folder, when requests of that kind are not known here.
    """
    condition = manifest.get("condition")
    if condition is None:
        text = manifest["text"]
        inputs = {text["input"]: {"shape": text["shape"], "dtype": text["dtype"]}}
        condition = {"kind": CAPTION.name, "request": CAPTION.request, "inputs": inputs}
    kind = condition.get("kind") if isinstance(condition, dict) else condition
    if kind not in KINDS:
        raise UserError(f"{folder}: asked with {kind!r}; known are {', '.join(KINDS)}")
    return condition
