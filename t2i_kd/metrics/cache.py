"""What an evaluation computes once for all: activations of real pictures and trained judges, kept on disk."""

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from absl import logging

import t2i_kd
from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically

DIGEST_BYTES = hashlib.sha256().digest_size


def digest(*parts):
    """The SHA-256 of strings and arrays, as 64 hexadecimal digits. An array counts with its dtype and shape."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            content = f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        else:
            content = str(part).encode("utf-8")
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        total.update(len(content).to_bytes(8, "little") + content)
    return total.hexdigest()


def digest_of_training(network, *parts):
    """The digest of what a judge's training depends on: this package's version, the network's shapes, and `parts`."""
    return digest(t2i_kd.__version__, network.name, [weight.shape for weight in network.get_weights()], *parts)


def digest_of_images(images):
    """The SHA-256 of a reader's pictures, one in memory at a time."""
    total = hashlib.sha256()
    for index in range(len(images)):
        total.update(digest(np.asarray(images[index])).encode())
    return total.hexdigest()


def scratch_array(shape, dtype):
    """An array of zeros on disk, which goes when nobody holds it any more."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


class ArrayCache:
    """Arrays on disk by what they were made from.

    A file is the SHA-256 of what follows, then a `.npz`. One that does not match, or cannot be read, is made anew and
    replaced, with a warning.

    Args:
        folder: where the files are kept, made when it is first needed; None keeps nothing.
    """

    def __init__(self, folder):
        self.folder = None if folder is None else Path(folder).expanduser()

    def arrays(self, kind, key, make):
        """The arrays that `make()` gives, or gave before for the same key.

        Args:
            kind: what they are, the beginning of the file's name.
            key: a `digest` of everything that they depend on.
            make: function to a list of arrays.

        Returns:
            A list of arrays.

        Raises:
            UserError: naming `--cache_dir`, when the folder cannot be written.
        """
        if self.folder is None:
            return make()
        path = self.folder / f"{kind}-{key[:32]}.npz.sha256"
        found = _read(path)
        if found is None:
            found = make()
            _write(path, found)
        return found


def _read(path):
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"--cache_dir: {path}: {error.strerror or error}") from None
    body = content[DIGEST_BYTES:]
    if hashlib.sha256(body).digest() == content[:DIGEST_BYTES]:
        try:
            with np.load(io.BytesIO(body)) as stored:
                return [stored[f"arr_{index}"] for index in range(len(stored.files))]
        except (ValueError, KeyError, zipfile.BadZipFile):
            pass
    logging.warning("%s: damaged, made anew", path)
    return None


def _write(path, arrays):
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    body = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file_atomically(path, hashlib.sha256(body).digest() + body)
    except OSError as error:
        raise UserError(f"--cache_dir: cannot write {path}: {error.strerror or error}") from None
