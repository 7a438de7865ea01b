"""Checksums by which files are known again."""

import hashlib
from pathlib import Path


def sha256_of(path):
    """A file's SHA-256 in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
