"""Pictures on their way out: floats to bytes, bytes to PNG, several pictures to one captioned sheet."""

import io
import math
import os
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Half of the 0-255 range: what one unit of a centred picture stands for.
HALF_RANGE = 127.5
# A picture on a sheet is enlarged by a whole factor until its longer side has at least this many pixels.
SMALLEST_CELL = 128
FONT_SIZE = 13
MARGIN = 8
MOST_LINES = 4
PAPER = (255, 255, 255)
INK = (20, 20, 20)


def to_uint8(image):
    """What is shown of a float image: min(max(x, 0), 255), rounded to the nearest integer, halves to the even one.

    Args:
        image: float or integer array of any shape, nominally in 0-255. A value that is not a number becomes 0.

    Returns:
        uint8 array of the same shape.
    """
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    return np.rint(np.clip(np.nan_to_num(image, nan=0.0), 0, 255)).astype(np.uint8)


def encode_png(image):
    """A picture as the bytes of a lossless RGB PNG.

    Args:
        image: uint8 RGB array [height, width, 3], or a `PIL.Image`.
    """
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image, np.uint8))
    picture.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def write_file_atomically(path, content):
    """Writes bytes so that `path` holds either what it held before or all of `content`, whenever the process dies.

    Raises:
        OSError: when the folder cannot be written or the disk is full; what was at `path` is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def captioned_grid(images, captions, columns=0):
    """A sheet of pictures, row by row, each with its caption wrapped beneath it.

    Pictures under 128 pixels are enlarged by a whole factor, each pixel a square, so that nothing is smoothed away.
    Every column is as wide as the widest picture, a row as high as its highest.
    A caption is cut with an ellipsis after 4 lines. Pillow's own font knows ASCII: accents are dropped, and a
    character of another script becomes a box.

    Args:
        images: n pictures, RGB [height, width, 3] in 0-255 each, uint8 or float (see `to_uint8`), n at least 1.
        captions: n strings.
        columns: pictures in a row; 0: about as many as there are rows.

    Returns:
        A `PIL.Image` in RGB.

    Raises:
        ValueError: when there is no picture, or not one caption for each.
    """
    images = [to_uint8(image) for image in images]
    if not images or len(images) != len(captions) or any(image.ndim != 3 for image in images):
        raise ValueError(
            f"{len(captions)} captions for {len(images)} images of shapes {[each.shape for each in images]}"
        )
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    pictures = [_enlarged(Image.fromarray(image)) for image in images]
    width = max(SMALLEST_CELL, *(picture.width for picture in pictures))
    font = ImageFont.load_default(FONT_SIZE)
    line_height = math.ceil(FONT_SIZE * 1.35)
    texts = [_wrap(caption, font, width) for caption in captions]
    rows = [slice(start, start + columns) for start in range(0, len(texts), columns)]
    heights = [max(picture.height for picture in pictures[row]) for row in rows]
    row_heights = [
        height + line_height * max(map(len, texts[row])) + 2 * MARGIN for height, row in zip(heights, rows, strict=True)
    ]
    sheet = Image.new("RGB", (MARGIN + columns * (width + MARGIN), MARGIN + sum(row_heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * (width + MARGIN), MARGIN + sum(row_heights[:row])
        sheet.paste(picture, (left, top))
        for number, line in enumerate(lines):
            draw.text((left, top + heights[row] + MARGIN // 2 + number * line_height), line, INK, font)
    return sheet


def _enlarged(picture):
    factor = max(1, math.ceil(SMALLEST_CELL / max(picture.size)))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


def _wrap(caption, font, width):
    """The caption's lines, none wider than `width` pixels; words that are too long are cut."""
    plain = (char for char in unicodedata.normalize("NFKD", caption) if not unicodedata.combining(char))
    printable = "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in plain)
    lines = [""]
    for word in printable[: MOST_LINES * width].split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for char in word:
            if lines[-1] and font.getlength(lines[-1] + char) > width:
                lines.append("")
            lines[-1] += char
    if len(lines) > MOST_LINES:
        last = lines[MOST_LINES - 1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        lines = [*lines[: MOST_LINES - 1], last + "…"]
    return lines
