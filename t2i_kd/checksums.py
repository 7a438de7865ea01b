"""Checksums by which files are known again."""

import hashlib

from t2i_kd.files import open_file


def sha256_of(path):
    """A file's SHA-256 in hexadecimal digits. Raises `OSError` where it cannot be read, or is a pipe or a device."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
