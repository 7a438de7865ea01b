"""Checksums by which files are known again."""

import hashlib
import sys

from t2i_kd.files import PIECE_BYTES, open_file


def sha256_of(path, most=sys.maxsize):
    """The SHA-256 of a file's first `most` bytes in hexadecimal digits; a file may grow while it is read.

    Raises `OSError` where it cannot be read, or is a pipe or a device.
    """
    digest = hashlib.sha256()
    with open_file(path) as file:
        while most > 0 and (piece := file.read(min(PIECE_BYTES, most))):
            digest.update(piece)
            most -= len(piece)
    return digest.hexdigest()
