"""Files of strangers: what is no file, what no file is called, and archives that lie."""

import os
import struct
import subprocess
import sys
import zipfile

import pytest

from t2i_kd.data.sources import open_source
from t2i_kd.errors import UserError

# Reads the entry of an archive, and prints what came of it and how much memory that took, in MiB.
READ = """
import resource, sys
from t2i_kd.data.sources import open_source
source = open_source(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(len(source.read("a.png")))
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_an_entry_is_unpacked_no_further_than_it_claims(tmp_path):
    """256 MiB of zeros that say that they are a thousand bytes."""
    path = tmp_path / "lie.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as file:
        for _ in range(256):
            file.write(bytes(1 << 20))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 1 << 28), struct.pack("<I", 1000)))
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True)
    said, mebibytes = done.stdout.splitlines()
    assert said.startswith("cannot be read: Bad CRC-32 for file 'a.png'")
    assert int(mebibytes) < 20


def test_an_honest_entry_is_read_whole(tmp_path):
    content = os.urandom(200_000)
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", kind) as archive:
            archive.writestr("a.png", content)
            archive.writestr("empty", b"")
        assert open_source(tmp_path / "a.zip").read("a.png") == content
        assert open_source(tmp_path / "a.zip").read("empty") == b""


@pytest.fixture
def folder(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "one.png").symlink_to("two.png")
    (tmp_path / "two.png").symlink_to("one.png")
    (tmp_path / "sub").mkdir()
    (tmp_path / "out.png").symlink_to("/dev/zero")
    return open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pipe.png", "is not a file"),
        ("sub", "is not a file"),
        ("one.png", "cannot be read: .*([Ll]oop|symbolic links)"),
        ("absent.png", "does not exist"),
        ("out.png", "is a link that leaves the data set's folder"),
        ("\ud800.png", "has a name that no file can have"),
        ("../a.png", "is not a plain path"),
        (200 * "long" + ".png", "cannot be read: File name too long"),
    ],
)
def test_what_is_no_file_is_told_at_once(folder, name, said):
    with pytest.raises(UserError, match=said):
        folder.read(name)
    assert folder.same_content([name, name]) == []
