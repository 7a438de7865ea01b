"""Checksums by which files are known again."""

import hashlib
import sys
from pathlib import Path

PIECE = 1 << 20


def sha256_of(path, most=sys.maxsize):
    """The SHA-256 of a file's first `most` bytes in hexadecimal digits; a file may grow while it is read."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while most > 0 and (piece := file.read(min(PIECE, most))):
            digest.update(piece)
            most -= len(piece)
    return digest.hexdigest()
