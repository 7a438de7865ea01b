"""What an evaluation computes once for all: features of reference pictures and trained evaluators, kept on disk."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from absl import logging

import t2i_kd
from t2i_kd.checksums import sha256_of
from t2i_kd.errors import UserError
from t2i_kd.files import read_text

CHECKSUMS = "sha256.txt"


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

    A folder KIND-KEY holds `0.npy`, `1.npy`, ... and their checksums in `sha256.txt`, as `sha256sum -c` reads them. It
    appears whole or not at all. One that does not match, or cannot be read, is made anew and replaced, with a warning.

    Args:
        folder: where the folders are kept, made when it is first needed; None keeps nothing.
    """

    def __init__(self, folder):
        self.folder = None if folder is None else Path(folder).expanduser()

    def arrays(self, kind, key, make):
        """The arrays that `make()` gives, or gave before for the same key.

        Args:
            kind: what they are, the beginning of the folder's name.
            key: a `digest` of everything that they depend on.
            make: function to a list of arrays, one at least.

        Returns:
            A list of arrays; what was kept is mapped from the disk, not read into memory, and cannot be written to.

        Raises:
            UserError: naming `--cache_dir`, when the folder cannot be written.
        """
        if self.folder is None:
            return make()
        folder = self.folder / f"{kind}-{key[:32]}"
        found = _read(folder)
        if found is None:
            found = make()
            _write(folder, found)
        return found


def _read(folder):
    """The folder's arrays; None where there is none, or it is damaged."""
    try:
        if not folder.exists():
            return None
        lines = [line.split() for line in read_text(folder / CHECKSUMS).splitlines()]
        wanted = {name: checksum for checksum, name in lines}
        found = {path.name: sha256_of(path) for path in folder.glob("*.npy")}
        if wanted and wanted == found:
            return [np.load(folder / name, mmap_mode="r") for name in wanted]
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"--cache_dir: {folder}: {error.strerror or error}") from None
    except ValueError:
        # No text, or whole, but no arrays.
        pass
    logging.warning("%s: damaged, made anew", folder)
    return None


def _write(folder, arrays):
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        names = [f"{index}.npy" for index in range(len(arrays))]
        for name, array in zip(names, arrays, strict=True):
            with (temporary / name).open("wb") as file:
                np.save(file, np.asarray(array), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        lines = [f"{sha256_of(temporary / name)}  {name}\n" for name in names]
        (temporary / CHECKSUMS).write_text("".join(lines), "utf-8")
        _publish(temporary, folder)
    except OSError as error:
        raise UserError(f"--cache_dir: cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary, folder):
    shutil.rmtree(folder, ignore_errors=True)
    try:
        temporary.rename(folder)
    except OSError:
        # Another process has just made the same.
        if not (folder / CHECKSUMS).is_file():
            raise
