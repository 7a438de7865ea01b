"""Files from anywhere are read within bounds, or refused in one line that names them."""

import json
import os
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_kd.errors import UserError
from t2i_kd.files import parse_json, read_bytes, read_json, read_text
from tests import bombs

READ = """
import sys
from pathlib import Path
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.errors import UserError
from t2i_kd.files import read_json
from t2i_kd.text.tokenizer import Tokenizer
folder = Path(sys.argv[1])
measured(lambda: Tokenizer.load(folder / "vocabulary.txt", "words", 8))
measured(lambda: read_json(folder / "many.json", 2**26))
for name in ("wide.png", "wide.bmp", "large.png", "hidden.ico", "bitmap.ico", "grey.png"):
    measured(lambda: ImageCondition(8).check((folder / name).read_bytes())[:0])
"""


def png(width, height, rows=b"", bits=8):
    """A PNG that claims a size."""

    def chunk(kind, content):
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(width, height):
    """A BMP that claims a size."""
    head = struct.pack("<LllHHLLllLL", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<LHHL", 14 + len(head), 0, 0, 14 + len(head)) + head


def ico(picture):
    """An ICO that says that its picture is 16 pixels wide."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHLL", 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


def test_what_takes_much_memory_is_refused_before_it_does(tmp_path):
    (tmp_path / "vocabulary.txt").write_bytes(b"[PAD]\n[UNK]\n" + 15_000_000 * b"a\n")
    (tmp_path / "many.json").write_bytes(b"[" + b"[],".join([b""] * 15_000_000) + b"[]]")
    (tmp_path / "wide.png").write_bytes(png(50_000, 50_000))
    (tmp_path / "wide.bmp").write_bytes(bmp(50_000, 50_000))
    (tmp_path / "large.png").write_bytes(png(9000, 9000))
    (tmp_path / "hidden.ico").write_bytes(ico(png(9000, 9000)))
    (tmp_path / "bitmap.ico").write_bytes(ico(bmp(9000, 9000)[14:]))
    (tmp_path / "grey.png").write_bytes(png(7000, 2000, 2000 * bytes(1 + 2 * 7000), bits=16))
    expected = (
        "vocabulary.txt: more than 1,000,000 tokens",
        "many.json: holds more than 4,000,000 values",
        "image: cannot be decoded: Image size (2500000000 pixels) exceeds limit",
        "image: cannot be decoded: Image size (2500000000 pixels) exceeds limit",
        "image: has 9000 x 9000 pixels, more than 50,000,000",
        "image: has 9000 x 9000 pixels, more than 50,000,000",
        "image: has 9000 x 9000 pixels, more than 50,000,000",
        "took b",
    )
    bombs.check(READ, tmp_path, expected, 150)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        (b"9" * 5000, "not JSON: Exceeds the limit"),
        (b"\xff", "not text in UTF-8"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b" " * 5_000_000, "larger than 4,194,304 bytes"),
    ],
)
def test_what_is_no_document_is_named(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=f"a.json: {said}") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    for path, said in {
        tmp_path / "pipe": "not a file",
        "/dev/zero": "not a file",
        tmp_path: "Is a directory",
        tmp_path / "circle": "symbolic links",
        tmp_path / "nowhere": "No such file",
        "a\0b": "null",
        "\ud800": "surrogates not allowed",
        tmp_path / (300 * "a"): "File name too long",
    }.items():
        for read in (read_bytes, read_text, read_json):
            with pytest.raises(UserError, match=said) as caught:
                read(path)
            assert str(caught.value).startswith(f"{path}: ")


def test_a_text_is_read_as_python_reads_it(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\rthree\n\u2028\ufefföß".encode())
    assert read_text(tmp_path / "a.txt") == (tmp_path / "a.txt").read_text("utf-8")
    assert len(read_bytes(tmp_path / "a.txt", 25)) == 25
    with pytest.raises(UserError, match=r"a\.txt: larger than 24 bytes"):
        read_bytes(tmp_path / "a.txt", 24)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary() | st.text('[]{}":,0123456789.eE-+nulfatrsINy \\ud8', max_size=40))
def test_whatever_comes_is_a_value_or_named(text):
    try:
        found = parse_json(text, "a.json")
    except UserError as error:
        assert str(error).startswith("a.json: ") and "\n" not in str(error)
    else:
        json.dumps(found)
