"""Files from anywhere, read within bounds: never waited for, and no larger in memory than they may be."""

import errno
import json
import os
import stat

from t2i_kd.errors import UserError

# Of a text or a JSON document, in bytes.
LARGEST_TEXT = 2**22
# Of a picture, in bytes.
LARGEST_PICTURE = 2**28
PIECE_BYTES = 2**18
# Commas and brackets of a JSON document: each may be a value of its own, which takes some 100 bytes of memory.
MOST_VALUES = 4_000_000


def open_file(path):
    """A file opened to read its bytes; what is no regular file is not waited for.

    Raises:
        OSError, ValueError: when it is a pipe, a device or a folder, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError("not a file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path, most=LARGEST_TEXT):
    """The bytes of a file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        UserError: naming the file, when it is missing, no regular file, larger, or cannot be read.
    """
    content = bytearray()
    try:
        with open_file(path) as file:
            # What is read counts, not what a file system says of a file's size.
            while len(content) <= most and (piece := file.read(PIECE_BYTES)):
                content += piece
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {reason(error)}") from None
    if len(content) > most:
        raise UserError(f"{path}: larger than {most:,} bytes")
    return bytes(content)


def read_text(path, most=LARGEST_TEXT):
    """`read_bytes` as text in UTF-8, every line's end a line feed. Raises `UserError` that names the file."""
    try:
        text = read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path, most=LARGEST_TEXT):
    """The value of a JSON file. Raises `UserError` that names the file, as `read_bytes` and `parse_json` do."""
    return parse_json(read_text(path, most), path)


def parse_json(text, source):
    """The value of a JSON document.

    Args:
        text: str or bytes.
        source: what it came from, for messages.

    Raises:
        UserError: naming the source, when it is no JSON, holds more than `MOST_VALUES`, is nested too deep, or has a
            number of thousands of digits.
    """
    marks = (b",", b"[", b"{") if isinstance(text, bytes) else (",", "[", "{")
    if sum(map(text.count, marks)) > MOST_VALUES:
        raise UserError(f"{source}: holds more than {MOST_VALUES:,} values")
    try:
        return json.loads(text)
    except UnicodeDecodeError:
        raise UserError(f"{source}: not text in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON: {reason(error)}") from None


def reason(error):
    """What an error says, in one line of at most 200 characters."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(said).split())[:200]
