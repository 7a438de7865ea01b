"""Small files that claim, or unpack to, very much; and how much memory reading them takes."""

import io
import struct
import subprocess
import sys
import zipfile
import zlib

import h5py
import numpy as np

from tests.commands import environment

MEBIBYTE = 2**20
# Prints what a statement says, and by how many MiB the process's largest memory grew meanwhile.
MEASURED = """
import resource
def measured(call):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        said = f"took {call()}"
    except UserError as error:
        said = str(error)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, said, flush=True)
"""


def zeros(mebibytes):
    """Deflated zeros, made without packing each of them: packed pieces, one after the other, are one whole."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece + (mebibytes - 1) * again + packer.flush(zlib.Z_FINISH)


def write_zip(path, entries):
    """A .zip of {name: (packed bytes, claimed bytes)}; its checksums are wrong."""
    with open(path, "wb") as file:
        listed = b""
        for name, (packed, size) in entries.items():
            known = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 33, 0, len(packed), size, len(name), 0)
            listed += b"PK\x01\x02" + struct.pack("<H", 20) + known + struct.pack("<HHHLL", 0, 0, 0, 0, file.tell())
            listed += name.encode()
            file.write(b"PK\x03\x04" + known + name.encode() + packed)
        at = file.tell()
        count = len(entries)
        file.write(listed + b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, count, count, len(listed), at, 0))


def write_npz(path, arrays):
    """A .npz of {name: (shape, MiB of zeros that follow)}, float32."""
    entries = {}
    for name, (shape, mebibytes) in arrays.items():
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
        stored = struct.pack("<BHH", 0, head.tell(), head.tell() ^ 0xFFFF) + head.getvalue()
        entries[f"{name}.npy"] = (stored + zeros(mebibytes), head.tell() + mebibytes * MEBIBYTE)
    write_zip(path, entries)


def write_hdf5(file, shape, **options):
    """An HDF5 file with one array, most of which is nowhere."""
    with h5py.File(file, "w") as stored:
        stored.create_dataset("layers/dense/vars/0", shape, "float32", **options)


def replace_in_zip(path, **entries):
    """Writes other bytes for some entries of an archive; dots of names are underscores."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, entries.get(name.replace(".", "_"), content))


def check(code, folder, expected, most):
    """Asserts what a program's calls of `measured` say, in order, and that each took less than `most` MiB."""
    for (mebibytes, said), part in zip(_run(code, folder), expected, strict=True):
        assert part in said and mebibytes < most, (mebibytes, said)


def damaged(contents, rng):
    """The bytes of one of several files, from one to three of them others. Args: contents: uint8 arrays; rng."""
    content = contents[rng.integers(len(contents))].copy()
    places = rng.integers(len(content), size=rng.integers(1, 4))
    content[places] = rng.integers(256, size=len(places))
    return content.tobytes()


def _run(code, *arguments):
    """[(MiB that it took, what was said), ...] of a program with calls of `measured`."""
    command = [sys.executable, "-c", MEASURED + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return [(int(mebibytes), said) for mebibytes, _, said in lines]
