"""Files of weights from anywhere: what they claim to hold is known, and bounded, before a value is read.

`.npz` files, HDF5, and Keras's `.keras`, an archive of a configuration and an HDF5 file.
"""

import io
import math
import struct
import zipfile
import zlib

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.files import LARGEST_TEXT, PIECE_BYTES, open_file, parse_json, reason

# Weights hardly compress: what claims to hold more than so many times the bytes that are stored is no file of weights.
MOST_UNPACKED = 4
SMALL_BYTES = 2**20
# What stands before an array's values in a `.npz`.
HEADER_BYTES = 2**16
# Of the entries of an archive, by the bytes of its list of them.
LARGEST_LIST = 2**24
LARGEST_END = 2**16 + 22 + 20 + 56
# What an archive ends with, and where in it stands how many bytes that list has: as it is, and for large archives.
ENDS = ((b"PK\x05\x06", 12, 16), (b"PK\x06\x06", 40, 48))
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
# All that zipfile, zlib and NumPy raise on damaged files beside OSError and ValueError.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, struct.error, MemoryError, SyntaxError)


class Arrays:
    """The arrays of a `.npz`, for a `with` statement; no pickle is ever read.

    Args:
        path: of the file.
        most: bytes that the arrays that are read may have together.

    Raises:
        OSError, ValueError: when it is no `.npz` that can be read; so do its methods.
    """

    def __init__(self, path, most):
        self._left = most
        self._file = open_file(path)
        try:
            self._archive = _opened(self._file)
        except Exception:
            self._file.close()
            raise
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._archive.close()
        self._file.close()

    def __contains__(self, name):
        return name in self.names

    def shape(self, name):
        """An array's shape."""
        return self._read(name, lambda file: _header(file)[0])

    def read(self, name, shape=None):
        """An array. Args: name; shape: that it must have, of numbers then; None: any that is not empty."""
        return self._read(name, lambda file: self._values(file, name, shape))

    def _read(self, name, read):
        try:
            entry = self._archive.getinfo(f"{name}.npy")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is packed in an unknown way")
            with self._archive.open(entry) as file:
                return read(file)
        except DAMAGED as error:
            raise ValueError(f"{name} cannot be read: {reason(error)}") from None

    def _values(self, file, name, wanted):
        shape, in_columns, dtype, start = _header(file)
        if wanted is not None and (shape != tuple(wanted) or dtype.kind not in "biuf"):
            raise ValueError(f"{name} has shape {shape} of {dtype}, not {tuple(wanted)}")
        if wanted is None and 0 in shape:
            raise ValueError(f"{name} is empty: its shape is {shape}")
        self._left -= math.prod(shape) * dtype.itemsize
        if self._left < 0:
            raise ValueError(f"{name} and those before it are larger than they may be together")
        array = np.empty(math.prod(shape), dtype)
        # In pieces: at once, zipfile unpacks all that there is before it looks at what the entry claims.
        file.seek(start)
        bytes_of = memoryview(array.view(np.uint8)) if array.nbytes else memoryview(b"")
        at = 0
        while at < len(bytes_of):
            count = file.readinto(bytes_of[at : at + PIECE_BYTES])
            if not count:
                raise ValueError(f"{name} ends too early")
            at += count
        if file.read(1):
            raise ValueError(f"{name} holds more than it says")
        return array.reshape(shape, order="F" if in_columns else "C")


def _header(file):
    """(shape, whether the values lie column by column, dtype, where they begin) of a `.npy`."""
    head = io.BytesIO(file.read(HEADER_BYTES))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read(head)
    if dtype.hasobject or not dtype.itemsize or any(side < 0 for side in shape):
        raise ValueError("an array of objects, or of no size")
    return shape, in_columns, dtype, head.tell()


def _opened(file):
    """A `zipfile.ZipFile` of an open file, whose list of entries is of a bounded size."""
    try:
        file.seek(0, io.SEEK_END)
        file.seek(max(0, file.tell() - LARGEST_END))
        tail = file.read()
        for mark, begin, end in ENDS:
            at = tail.rfind(mark)
            if at >= 0 and int.from_bytes(tail[at + begin : at + end], "little") > LARGEST_LIST:
                raise ValueError("an archive of too many files")
        return zipfile.ZipFile(file)
    except DAMAGED as error:
        raise ValueError(f"not an archive: {reason(error)}") from None


def check_hdf5(path):
    """Raises `UserError`, naming the file, where a file is no HDF5 or claims to hold much more than it does."""
    try:
        with open_file(path) as file:
            _count_numbers(file, file.seek(0, io.SEEK_END))
    except (OSError, ValueError, *DAMAGED) as error:
        raise UserError(f"{path}: {reason(error)}") from None


def check_keras(path):
    """Looks into a `.keras` file before Keras does.

    Returns:
        How many numbers its weights are.

    Raises:
        UserError: naming the file, where it is none, or would be much larger in memory than it is.
    """
    try:
        with open_file(path) as file:
            archive, size = _opened(file), file.seek(0, io.SEEK_END)
            if sum(entry.file_size for entry in archive.infolist()) > MOST_UNPACKED * size + SMALL_BYTES:
                raise ValueError("claims to hold much more than it does")
            config = archive.getinfo(CONFIG)
            if config.file_size > LARGEST_TEXT:
                raise ValueError(f"{CONFIG} is larger than {LARGEST_TEXT:,} bytes")
            parse_json(_unpacked(archive, config), CONFIG)
            weights = _unpacked(archive, archive.getinfo(WEIGHTS))
            return _count_numbers(io.BytesIO(weights), len(weights))
    except KeyError:
        raise UserError(f"{path}: not a network: holds no {CONFIG} or no {WEIGHTS}") from None
    except (OSError, ValueError, *DAMAGED) as error:
        raise UserError(f"{path}: not a network that can be read: {reason(error)}") from None


def _unpacked(archive, entry):
    """The bytes of an archive's entry, no more than it claims."""
    with archive.open(entry) as file:
        return b"".join(iter(lambda: file.read(PIECE_BYTES), b""))


def _count_numbers(file, size):
    """How many numbers an HDF5 file holds, which has `size` bytes itself."""
    import h5py

    counts, claimed = [], [0]

    def look(name, item):
        if isinstance(item, h5py.Dataset):
            counts.append(math.prod(item.shape or ()))
            claimed[0] += counts[-1] * item.dtype.itemsize
            if claimed[0] > MOST_UNPACKED * size + SMALL_BYTES:
                raise ValueError(f"its array {name} and those before it claim much more than the file holds")

    with h5py.File(file, "r") as stored:
        stored.visititems(look)
    return sum(counts)
