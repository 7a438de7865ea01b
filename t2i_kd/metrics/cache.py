"""What an evaluation computes once for all: features of reference pictures and trained evaluators, kept on disk."""

import contextlib
import hashlib
import math
import os
import tempfile
from pathlib import Path

import numpy as np
from absl import logging

import t2i_kd
from t2i_kd.errors import UserError

DIGEST_BYTES = hashlib.sha256().digest_size
# What the `.npy` format pads its headers to, so that mapped numbers lie at multiples of their size.
ALIGNMENT = 64


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
    """The digest of all that an evaluator's weights depend on: the package's version, the network's shapes, `parts`."""
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

    A file is the SHA-256 of what follows, then one `.npy` after the other, each beginning at a multiple of 64 bytes. A
    file that does not match, or cannot be read, is made anew and replaced, with a warning.

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
            A list of arrays; what was kept is mapped from the disk, not read into memory, and cannot be written to.

        Raises:
            UserError: naming `--cache_dir`, when the folder cannot be written.
        """
        if self.folder is None:
            return make()
        path = self.folder / f"{kind}-{key[:32]}.npys.sha256"
        found = _read(path)
        if found is None:
            found = make()
            _write(path, found)
        return found


def _read(path):
    try:
        with path.open("rb") as file:
            wanted = file.read(DIGEST_BYTES)
            if hashlib.file_digest(file, "sha256").digest() == wanted:
                file.seek(DIGEST_BYTES)
                return _mapped(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"--cache_dir: {path}: {error.strerror or error}") from None
    except ValueError:
        # Whole, but no arrays.
        pass
    logging.warning("%s: damaged, made anew", path)
    return None


def _mapped(file):
    """The arrays from the file's place to its end, each read from the disk when it is used."""
    size, arrays = os.fstat(file.fileno()).st_size, []
    while _align(file) < size:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        order, count, start = "F" if fortran else "C", math.prod(shape), file.tell()
        # Nothing cannot be mapped.
        arrays.append(np.memmap(file, dtype, "r", start, shape, order) if count else np.empty(shape, dtype, order))
        file.seek(start + count * dtype.itemsize)
    return arrays


def _align(file):
    """Goes on to the next place at which an array may begin, and says which."""
    return file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)


def _write(path, arrays):
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened for writing alone, NumPy copies no array on its way to the disk.
        with temporary.open("wb") as file:
            file.write(bytes(DIGEST_BYTES))
            for array in arrays:
                file.write(bytes(-file.tell() % ALIGNMENT))
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
        with temporary.open("rb") as file:
            file.seek(DIGEST_BYTES)
            total = hashlib.file_digest(file, "sha256").digest()
        with temporary.open("r+b") as file:
            file.write(total)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"--cache_dir: cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
