"""The user's own pictures, from folders and zips, good and bad."""

import gc
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from t2i_kd.data import checked_files, examples, image_folder, sources
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.holdout import position
from t2i_kd.errors import UserError
from tests.data_files import write, write_zip


def png(value=0, size=(8, 8)):
    stream = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


def metadata(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def load(path, split="train", resolution=8, bad=0):
    return load_dataset("image_folder", split, resolution, str(path), bad)


def same(first, second):
    assert (first.captions, first.label_names) == (second.captions, second.label_names)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(np.stack(list(first.images)), np.stack(list(second.images)))


GOOD = {
    "metadata.jsonl": metadata(
        {"file_name": "b.png", "captions": ["a bee", "an insect"], "label": 2, "class_name": "bee", "split": "train"},
        "",
        {"file_name": "sub/a.png", "caption": "ein Käfer", "label": 0, "class_name": "beetle", "split": "train"},
        {"file_name": "c.png", "caption": "a fly", "label": 2, "class_name": "bee", "split": "validation"},
    ),
    "b.png": png(20),
    "sub/a.png": png(10, (9, 30)),
    "c.png": png(30),
}


def test_metadata(tmp_path):
    dataset = load(write(tmp_path, GOOD))
    assert dataset.name == "image_folder/train"
    assert dataset.captions == (("a bee", "an insect"), ("ein Käfer",))
    assert dataset.labels.tolist() == [2, 0]
    assert dataset.labels.dtype == np.int32
    assert dataset.label_names == ("beetle", "1", "bee")
    assert [image[0, 0, 0] for image in dataset.images] == [20, 10]
    assert dataset.images[-1].shape == (8, 8, 3)
    with pytest.raises(ValueError, match="read-only"):
        dataset.images[0][0] = 1


def test_zip_equals_folder(tmp_path):
    folder = load(write(tmp_path / "folder", GOOD))
    same(folder, load(write_zip(tmp_path / "flat.zip", GOOD)))
    nested = {f"top/{name}": content for name, content in GOOD.items()} | {"__MACOSX/top/._b.png": b"x"}
    zipped = load(write_zip(tmp_path / "nested.zip", nested))
    same(folder, zipped)
    same(folder, pickle.loads(pickle.dumps(zipped)))


def test_test_falls_back_to_validation(tmp_path):
    dataset = load(write(tmp_path, GOOD), "test")
    assert dataset.name == "image_folder/validation"
    assert dataset.captions == (("a fly",),)


def test_without_splits_a_tenth_is_held_out(tmp_path):
    rows = [{"file_name": f"{number}.png", "caption": "x"} for number in range(60)]
    pictures = {row["file_name"]: png(number) for number, row in enumerate(rows)}
    write(tmp_path, {"metadata.jsonl": metadata(*rows)} | pictures)
    expected = sum(position(row["file_name"]) < 0.1 for row in rows)
    assert len(load(tmp_path, "test")) == expected
    assert len(load(tmp_path, "train")) == 60 - expected
    assert load(tmp_path).origin == "no split is given, so that 10% are held out by their names"
    with pytest.raises(UserError, match="no validation pictures"):
        load(tmp_path, "validation")


@pytest.mark.parametrize("zipped", [False, True])
def test_what_one_split_read_serves_the_next_unless_it_changed(tmp_path, monkeypatch, zipped):
    """A run reads two splits: the metadata once, unless a file has changed meanwhile, and nothing of it stays."""
    monkeypatch.setattr(checked_files, "SETTLED_SECONDS", -1)
    reads, original = [], image_folder._read
    monkeypatch.setattr(image_folder, "_read", lambda source: reads.append(source) or original(source))

    def written(caption):
        rows = [
            {"file_name": "a.png", "caption": "an ant", "split": "train"},
            {"file_name": "b.png", "caption": caption, "split": "test"},
        ]
        files = {"metadata.jsonl": metadata(*rows), "a.png": png(1), "b.png": png(2)}
        return write_zip(tmp_path / "set.zip", files) if zipped else write(tmp_path / "set", files)

    place = written("a bee")
    load(place)
    assert load(place, "test").captions == (("a bee",),)
    assert len(reads) == 1 and not image_folder._WAITING
    load(place)
    written("a bumblebee")
    assert load(place, "test").captions == (("a bumblebee",),)
    assert len(reads) == 3


@pytest.mark.parametrize("on", [False, True])
def test_the_garbage_collector_is_as_before(tmp_path, on):
    write(tmp_path, GOOD)
    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        load(tmp_path)
        with pytest.raises(UserError, match="is empty"):
            load(write(tmp_path / "empty", {"README.md": b""}))
        assert gc.isenabled() is on
    finally:
        (gc.enable if was_on else gc.disable)()


TEXT_FILES = {
    "a.png": png(1),
    "a.txt": b"\xef\xbb\xbfone\r\n\r\n two \n",
    "b.JPG": png(2),
    "b.txt": b"three",
    "c.png": png(3),
    "c.txt": b"four",
    "README.txt": b"not a caption",
    ".hidden.png": b"x",
}


def test_text_files(tmp_path):
    folder = write(tmp_path / "folder", TEXT_FILES)
    captions = [load(folder, split).captions for split in ("train", "test")]
    assert sorted(captions[0] + captions[1]) == [("four",), ("one", "two"), ("three",)]
    assert load(folder).label_names == ("picture",)
    same(load(folder), load(write_zip(tmp_path / "a.zip", TEXT_FILES)))


def test_text_files_in_split_and_class_folders(tmp_path):
    files = {f"{split}/{kind}/1.png": png() for split in ("train", "test") for kind in ("bee", "ant")}
    write(tmp_path, files | {name.replace(".png", ".txt"): b"insect" for name in files})
    dataset = load(tmp_path, "test")
    assert (len(dataset), dataset.label_names, dataset.labels.tolist()) == (2, ("ant", "bee"), [0, 1])


def test_class_names_without_labels(tmp_path):
    rows = [
        {"file_name": f"{name}.png", "caption": "x", "class_name": name, "split": "train"} for name in ("b", "a", "c")
    ]
    write(tmp_path, {"metadata.jsonl": metadata(*rows)} | {row["file_name"]: png() for row in rows})
    assert load(tmp_path).label_names == ("a", "b", "c")
    assert load(tmp_path).labels.tolist() == [0, 1, 2]


def test_pictures_beyond_the_cache_are_decoded_at_use(tmp_path, monkeypatch):
    cached = load(write(tmp_path, GOOD))
    monkeypatch.setattr(examples, "CACHE_BYTES", 8 * 8 * 3)
    partly = load(tmp_path)
    same(cached, partly)
    assert len(partly.images._held) == 1
    for name in ("b.png", "sub/a.png"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"a.png does not exist"):
        list(partly.images)


def test_pictures_are_decoded_only_when_they_are_asked_for(tmp_path, monkeypatch):
    eager = load(write(tmp_path, GOOD))
    decoded = []
    decode = examples.decode_square
    monkeypatch.setattr(examples, "decode_square", lambda *given: decoded.append(1) or decode(*given))
    lazy = load_dataset("image_folder", "train", 8, str(tmp_path), decode=False)
    assert lazy.captions == eager.captions and not decoded
    same(eager, lazy)
    assert len(decoded) == 2
    (tmp_path / "b.png").write_bytes(b"x")
    later = load_dataset("image_folder", "train", 8, str(tmp_path), decode=False)
    with pytest.raises(UserError, match=r"^b.png is not a JPEG"):
        later.images[0]


def test_captions_are_checked_without_decoding(tmp_path):
    rows = [{"file_name": f"{i}.png", "caption": text, "split": "train"} for i, text in enumerate(("good", " "))]
    write(tmp_path, {"metadata.jsonl": metadata(*rows)})
    with pytest.raises(UserError, match=r"1 bad .* the first: 1.png: caption: empty"):
        load_dataset("image_folder", "train", 8, str(tmp_path), decode=False)
    assert load_dataset("image_folder", "train", 8, str(tmp_path), 1, decode=False).captions == (("good",),)


BAD_EXAMPLES = {
    "broken picture": ({"file_name": "bad.png", "caption": "x"}, b"\x89PNG\r\n\x1a\nnothing", "bad.png"),
    "missing picture": ({"file_name": "gone.png", "caption": "x"}, None, "gone.png does not exist"),
    "empty caption": ({"file_name": "bad.png", "caption": " "}, png(), "bad.png: caption: empty"),
    "null caption": ({"file_name": "bad.png", "caption": None}, png(), "bad.png: caption: empty"),
    "no caption": ({"file_name": "bad.png"}, png(), "bad.png has no caption"),
    "long caption": ({"file_name": "bad.png", "caption": "x" * 10_000}, png(), "bad.png: caption: 10000 characters"),
    "half a surrogate": ({"file_name": "bad.png", "caption": "\ud800"}, png(), "bad.png: caption: not UTF-8"),
}


@pytest.mark.parametrize("kind", BAD_EXAMPLES)
def test_bad_examples(tmp_path, kind, caplog):
    row, content, message = BAD_EXAMPLES[kind]
    rows = [row | {"split": "train"}, {"file_name": "good.png", "caption": "fine", "split": "train"}]
    write(tmp_path, {"metadata.jsonl": metadata(*rows), "good.png": png(7)})
    if content is not None:
        write(tmp_path, {row["file_name"]: content})
    with pytest.raises(UserError, match=f"--max_bad_examples: 1 bad .*0 allowed; the first: {message}"):
        load(tmp_path)
    with caplog.at_level("WARNING", logger="absl"):
        assert load(tmp_path, bad=1).captions == (("fine",),)
    assert message in caplog.text


def test_one_bad_caption_of_several_is_left_out(tmp_path):
    row = {"file_name": "a.png", "captions": ["", "good"], "split": "train"}
    write(tmp_path, {"metadata.jsonl": metadata(row), "a.png": png()})
    assert load(tmp_path, bad=1).captions == (("good",),)


def test_text_file_that_is_missing_or_not_utf8(tmp_path):
    write(
        tmp_path,
        {
            "train/a.png": png(),
            "train/b.png": png(),
            "train/b.txt": b"\xff\xfe",
            "train/c.png": png(),
            "train/c.txt": b"c",
            "test/d.png": png(),
            "test/d.txt": b"d",
        },
    )
    with pytest.raises(UserError, match=r"2 bad .* the first: train/a.png has no caption"):
        load(tmp_path)
    assert load(tmp_path, bad=2).captions == (("c",),)


BAD_METADATA = {
    "not json": (b'{"file_name": "a.png", "caption": "x"}\n{"file_name"', "line 2: not JSON"),
    "not an object": (b"[1]", "line 1: not a JSON object"),
    "not utf-8": (b'\n{"file_name": "a.png", "caption": "\xff"}', "line 2: not UTF-8"),
    "nested too deep": (b"[" * 200_000, "line 1: not JSON"),
    "no file_name": (b'{"caption": "x"}', "line 1: file_name is missing"),
    "empty file_name": (b'{"file_name": "", "caption": "x"}', "line 1: file_name is empty"),
    "parent": (b'{"file_name": "../a.png", "caption": "x"}', "line 1: file_name '../a.png' is not a plain path"),
    "inner parent": (b'{"file_name": "b/../../a.png", "caption": "x"}', "is not a plain path"),
    "absolute": (b'{"file_name": "/a.png", "caption": "x"}', "is not a plain path"),
    "drive": (b'{"file_name": "C:a.png", "caption": "x"}', "is not a plain path"),
    "backslash": (b'{"file_name": "..\\\\a.png", "caption": "x"}', "is not a plain path"),
    "null": (b'{"file_name": "a\\u0000.png", "caption": "x"}', "is not a plain path"),
    "twice": (
        b'{"file_name": "a.png", "caption": "x"}\n{"file_name": "./a.png", "caption": "x"}',
        "'a.png' is in metadata.jsonl line 1 and in metadata.jsonl line 2",
    ),
    "both": (b'{"file_name": "a.png", "caption": "x", "captions": []}', "line 1: has both"),
    "captions text": (b'{"file_name": "a.png", "captions": "x"}', "line 1: captions is not a list"),
    "caption number": (b'{"file_name": "a.png", "caption": 3}', "line 1: a caption is not text"),
    "label text": (b'{"file_name": "a.png", "caption": "x", "label": "3"}', "line 1: label is '3'"),
    "label negative": (b'{"file_name": "a.png", "caption": "x", "label": -1}', "line 1: label is -1"),
    "class number": (b'{"file_name": "a.png", "caption": "x", "class_name": 1}', "line 1: class_name is not text"),
    "split": (b'{"file_name": "a.png", "caption": "x", "split": "vall"}', "line 1: split is 'vall', none of train"),
    "two splits": (b'{"file_name": "a.png", "caption": "x", "split": "trainval"}', "'trainval' says several splits"),
    "key twice": (b'{"file_name": "a.png", "caption": "x", "caption": "y"}', "line 1: caption is given twice"),
    "key in two cases": (b'{"file_name": "a.png", "caption": "x", "Caption": "y"}', "line 1: caption is given twice"),
    "another split": (b'{"file_name": "a.png", "caption": "x", "subset": "val"}', "'subset' looks like the split"),
    "unknown caption": (
        b'{"file_name": "a.png", "prompt": "x"}',
        "no caption, and unknown keys: prompt; known are",
    ),
    "caption and text": (b'{"file_name": "a.png", "caption": "x", "text": "y"}', "has both caption and text"),
    "some splits": (
        b'{"file_name": "a.png", "caption": "x", "split": "train"}\n{"file_name": "b.png", "caption": "x"}',
        "line 1 has a split and metadata.jsonl line 2 has none",
    ),
    "two names": (
        b'{"file_name": "a.png", "caption": "x", "label": 1, "class_name": "a"}\n'
        b'{"file_name": "b.png", "caption": "x", "label": 1, "class_name": "b"}',
        "line 2: label 1 is 'b' here and 'a' before",
    ),
    "empty": (b"\n\n", "is empty"),
}


@pytest.mark.parametrize("kind", BAD_METADATA)
@pytest.mark.parametrize("zipped", [False, True])
def test_bad_metadata(tmp_path, kind, zipped):
    content, message = BAD_METADATA[kind]
    files = {"metadata.jsonl": content, "a.png": png(), "b.png": png()}
    path = write_zip(tmp_path / "a.zip", files) if zipped else write(tmp_path / "a", files)
    with pytest.raises(UserError) as caught:
        load(path, bad=10)
    assert str(caught.value).startswith("--data_dir")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    write(tmp_path, {"secret.png": png()})
    row = {"file_name": "a.png", "caption": "x", "split": "train"}
    write(tmp_path / "set", {"metadata.jsonl": metadata(row)})
    os.symlink(tmp_path / "secret.png", tmp_path / "set" / "a.png")
    with pytest.raises(UserError, match=r"a.png is a link that leaves"):
        load(tmp_path / "set")


def test_damaged_zips(tmp_path):
    content = write_zip(tmp_path / "a.zip", GOOD).read_bytes()
    (tmp_path / "text.zip").write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"neither a folder nor a readable .zip"):
        load(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        start = archive.getinfo("b.png").header_offset + 45
    (tmp_path / "flipped.zip").write_bytes(content[:start] + b"\0\0\0" + content[start + 3 :])
    with pytest.raises(UserError, match=r"1 bad .* the first: b.png cannot be read"):
        load(tmp_path / "flipped.zip")


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"--data_dir: .* is empty"):
        load(tmp_path)


def pictures(*names, suffix=".txt"):
    """Different pictures with a caption each, by their names."""
    files = {name: png(10 + index) for index, name in enumerate(names)}
    return files | {name.rpartition(".")[0] + suffix: f"caption of {name}".encode() for name in names}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAINING", "eval"),
        ("train_set", "test-set"),
        ("train2017", "val2017"),
        ("training images", "validation images"),
        ("trn", "held_out"),
        ("train", "dev"),
    ],
)
@pytest.mark.parametrize("inner", ["{}/{}", "all/{}/{}", "{}/roses/{}", "roses/{}/{}"])
def test_folders_that_say_a_split_are_no_classes(tmp_path, train, test, inner):
    names = [inner.format(folder, f"{number}.png") for folder in (train, test) for number in range(3)]
    write(tmp_path, pictures(*names))
    sets = [load(tmp_path, split) for split in ("train", "test")]
    assert [set(each.file_names) for each in sets] == [set(names[:3]), set(names[3:])]
    classes = {"{}/{}": "picture", "all/{}/{}": "all"}.get(inner, "roses")
    assert tuple(sets[0].label_names) == (classes,)
    assert sets[0].origin.startswith("the folders ") and f"{train}/" in sets[0].origin and f"{test}/" in sets[0].origin


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("trainval/1.png", "test/1.png"), "'trainval' says several splits"),
        (("train/test/1.png", "test/2.png"), "the folders of train/test/1.png say both test and train"),
        (("train/1.png", "bus/1.png"), "train/1.png has a split and bus/1.png has none"),
    ],
)
def test_folders_that_say_it_half_are_refused(tmp_path, names, named):
    write(tmp_path, pictures(*names))
    with pytest.raises(UserError, match=named):
        load(tmp_path)


def test_a_train_folder_alone_is_divided(tmp_path):
    write(tmp_path, pictures(*(f"train/{number}.png" for number in range(5))))
    assert len(load(tmp_path)) + len(load(tmp_path, "test")) == 5
    assert load(tmp_path).origin == "only train/ is there, so that 10% of it are held out by their names"


@pytest.mark.parametrize("key", ["Split", "SPLIT", " split "])
@pytest.mark.parametrize("said", [("train", "test"), ("Training", "Val")])
def test_a_split_in_other_letters_is_read(tmp_path, key, said):
    rows = [{"file_name": f"{i}.png", "caption": "x", key: said[i < 3]} for i in range(10)]
    write(tmp_path, {"metadata.jsonl": metadata(*rows)} | {f"{i}.png": png(i) for i in range(10)})
    assert load(tmp_path, "test").file_names == ("0.png", "1.png", "2.png") and len(load(tmp_path)) == 7


def test_what_pillow_reads_is_read(tmp_path):
    names = {"a.jpe": "JPEG", "b.jfif": "JPEG", "c.jp2": "JPEG2000", "d.ppm": "PPM", "e.ico": "ICO", "f.avif": "AVIF"}
    for index, (name, format_name) in enumerate(names.items()):
        Image.new("RGB", (16, 16), (20 * index, 0, 0)).save(tmp_path / name, format_name)
        (tmp_path / name).with_suffix(".txt").write_text(name)
    captions = load(tmp_path).captions + load(tmp_path, "test").captions
    assert sorted(captions) == [(name,) for name in names]


SKIPPED = {
    "a picture of another kind": ({"x.heic": b"x", "x.txt": b"a"}, "x.heic is no picture"),
    "a picture without an ending": ({"x": b"x", "x.txt": b"a"}, "x is no picture: without an ending"),
    "another kind alone": ({"x.mp4": b"x"}, "x.mp4 is no picture"),
    "a caption alone": ({"x.txt": b"a"}, "x.txt is a caption without its picture"),
    "a picture alone": ({"x.png": png(99)}, "x.png has no caption"),
}


@pytest.mark.parametrize("kind", SKIPPED)
def test_what_is_left_out_is_counted_once_and_named(tmp_path, kind, caplog):
    more, named = SKIPPED[kind]
    names = [f"{folder}/{number}.png" for folder in ("train", "test") for number in range(2)]
    write(tmp_path, pictures(*names) | {f"train/{name}": content for name, content in more.items()})
    with pytest.raises(UserError, match=f"--max_bad_examples: 1 bad .* the first: train/{named}"):
        load(tmp_path)
    assert len(load(tmp_path, bad=1)) == len(load(tmp_path, "test")) == 2
    assert named in caplog.text


def test_captions_by_other_usual_names(tmp_path):
    write(tmp_path, {"train/a.png": png(1), "train/a.png.txt": b"A", "train/b.png": png(2), "train/b.TXT": b"B"})
    write(tmp_path, {"train/c.png": png(3), "train/c.caption": b"C", "test/d.png": png(4), "test/d.txt": b"D"})
    write(tmp_path, {"LICENSE": b"x", "README.md": b"x", "train/Thumbs.db": b"x"})
    assert load(tmp_path).captions == (("A",), ("B",), ("C",))


def test_pictures_and_keys_that_metadata_leave_out_are_told(tmp_path, caplog):
    rows = [{"file_name": f"{i}.png", "text": f"t{i}", "width": 8, "split": ["train", "test"][i]} for i in range(2)]
    write(tmp_path, {"metadata.jsonl": metadata(*rows)} | {f"{i}.png": png(i) for i in range(4)})
    assert load(tmp_path).captions == (("t0",),)
    assert "2 pictures are in no metadata and left out, the first: 2.png" in caplog.text
    assert "keys that are not read: width (2 times); known are file_name" in caplog.text


def as_csv(*lines):
    return "\r\n".join(lines).encode("utf-8-sig")


LAYOUTS = {
    "text": {
        "metadata.jsonl": metadata({"file_name": "a.png", "text": "A"}, {"file_name": "b.png", "text": ["B", "C"]})
    },
    "csv": {"metadata.csv": as_csv("file_name,text", "a.png,A", 'b.png,"B, ""C""\r\nD"')},
    "semicolons": {"metadata.csv": as_csv("file_name;caption;label", "a.png;A;3", "b.png;B;0")},
    "lists of pandas": {"metadata.csv": as_csv("file_name,captions", "a.png,A", "b.png,\"['B', 'C']\"")},
    "lists": {"metadata.csv": as_csv("file_name,captions", "a.png,A", 'b.png,"[""B"", ""C""]"')},
    "one folder down": {"flowers/metadata.jsonl": metadata(*({"file_name": f"{n}.png", "caption": n} for n in "ab"))},
}
CAPTIONS = {"text": ("B", "C"), "csv": ('B, "C"\r\nD',), "one folder down": ("b",)}
CAPTIONS |= dict.fromkeys(("lists", "lists of pandas"), ("B", "C"))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hugging_faces_layouts(tmp_path, layout, zipped):
    folder = "flowers/" if layout == "one folder down" else ""
    files = LAYOUTS[layout] | {f"{folder}{name}.png": png(index) for index, name in enumerate("ab")}
    path = write_zip(tmp_path / "a.zip", files) if zipped else write(tmp_path / "a", files)
    sets = [load(path, split) for split in ("train", "test")]
    found = {name: captions for each in sets for name, captions in zip(each.file_names, each.captions, strict=True)}
    first = ("a",) if layout == "one folder down" else ("A",)
    assert found == {"a.png": first, "b.png": CAPTIONS.get(layout, ("B",))}
    if layout == "semicolons":
        assert sorted(label for each in sets for label in each.labels) == [0, 3]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("prefix", ["", "data/"])
def test_metadata_of_each_split(tmp_path, zipped, prefix):
    files = {}
    for index, split in enumerate(("train", "test")):
        files[f"{prefix}{split}/metadata.jsonl"] = metadata({"file_name": "a.png", "text": split})
        files[f"{prefix}{split}/a.png"] = png(index)
    path = write_zip(tmp_path / "a.zip", files) if zipped else write(tmp_path / "a", files)
    for index, split in enumerate(("train", "test")):
        found = load(path, split)
        assert found.captions == ((split,),) and found.images[0][0, 0, 0] == index
        assert found.file_names == (f"{prefix}{split}/a.png",)


BAD_CSV = {
    "fields": (b"file_name,text\na.png,A,more\n", "metadata.csv line 2: 3 fields, and the first line names 2"),
    "twice": (b"file_name,text,text\na.png,A,B\n", "text is given twice"),
    "quote": (b'file_name,text\na.png,"A\n', "not CSV"),
    "letters": (b"file_name,text\na.png,\xff\n", "not UTF-8"),
    "label": (b"file_name,text,label\na.png,A,cat\n", "label is 'cat', not a whole number"),
}


@pytest.mark.parametrize("kind", BAD_CSV)
def test_bad_csv(tmp_path, kind):
    content, message = BAD_CSV[kind]
    write(tmp_path, {"metadata.csv": content, "a.png": png()})
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_copies_stay_on_one_side_and_are_told(tmp_path, caplog, zipped):
    names = [f"{number}.png" for number in range(60)]
    files = pictures(*names)
    originals = [name for name in names if position(name) < 0.1][:2] + [name for name in names if position(name) > 0.1][
        :2
    ]
    for index, name in enumerate(originals):
        # By their bytes under any name, by their names with other bytes.
        files |= {f"other{index}.png": files[name], f"other{index}.txt": b"x"}
        files |= {name.replace(".png", " (1).png"): png(200 + index), name.replace(".png", " (1).txt"): b"x"}
    path = write_zip(tmp_path / "a.zip", files) if zipped else write(tmp_path / "a", files)
    train, test = (set(load(path, split).file_names) for split in ("train", "test"))
    assert not train & test and len(train | test) == 68
    for index, name in enumerate(originals):
        family = {name, f"other{index}.png", name.replace(".png", " (1).png")}
        assert family <= train or family <= test
    # What has no copy lies where it lay without them.
    alone = set(names) - set(originals)
    assert {name for name in alone if position(name) < 0.1} == test & alone
    assert "8 pictures are copies of others" in caplog.text


def test_copies_in_two_given_splits_are_told(tmp_path, caplog):
    files = pictures("train/a.png", "train/b.png", "test/c.png")
    write(tmp_path, files | {"test/a.png": files["train/a.png"], "test/a.txt": b"x"})
    assert len(load(tmp_path)) == len(load(tmp_path, "test")) == 2
    assert "1 pictures lie in two splits with the same bytes, such as" in caplog.text
    assert "test/a.png" in caplog.text and "train/a.png" in caplog.text


@pytest.mark.parametrize(
    ("name", "train", "validation", "captions", "classes"),
    [
        ("oxford_flowers102_64px", 6551, 819, 5, 102),
        ("cub200_crops_100classes_227px", 5309, 593, 5, 100),
        ("cub200_reed_captions_10classes_256px", 489, 54, 10, 10),
    ],
)
def test_shared_sets(shared_data, monkeypatch, name, train, validation, captions, classes):
    sets = [load(shared_data / f"{name}.zip", "test", 32)]
    # Decoding the large half as well would take half a minute.
    blank = np.zeros((32, 32, 3), np.uint8)
    monkeypatch.setattr(examples, "decode_square", lambda encoded, resolution: blank.copy())
    sets.append(load(shared_data / f"{name}.zip", "train", 32))
    assert [(dataset.name, len(dataset)) for dataset in sets] == [
        ("image_folder/validation", validation),
        ("image_folder/train", train),
    ]
    for dataset in sets:
        assert len(set(dataset.labels.tolist())) == classes
        assert {len(texts) for texts in dataset.captions} == {captions}
    assert sets[0].label_names == sets[1].label_names
    assert all(image.shape == (32, 32, 3) and image.std() > 5 for image in sets[0].images)


def test_shared_flower(shared_data, tmp_path):
    path = shared_data / "oxford_flowers102_64px.zip"
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("metadata.jsonl").splitlines()[:40]
        files = {name: archive.read(name) for name in (json.loads(line)["file_name"] for line in lines)}
    files["metadata.jsonl"] = b"\n".join(lines)
    folder = load(write(tmp_path / "flowers", files), resolution=64)
    same(folder, load(write_zip(tmp_path / "flowers.zip", files), resolution=64))
    assert folder.captions[0][1] == "a white flower called passion flower"
    assert folder.label_names[folder.labels[0]] == "passion flower"
    with Image.open(io.BytesIO(files["images/image_00001.jpg"])) as image:
        np.testing.assert_array_equal(folder.images[0], np.asarray(image.convert("RGB")))


def test_files_that_claim_to_be_huge(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 2000)
    files = {"train/a.png": png(), "train/a.txt": b"a", "train/b.png": b"0" * 3000, "train/b.txt": b"b"}
    files |= {"test/c.png": png(1), "test/c.txt": b"c"}
    for path in (write(tmp_path / "a", files), write_zip(tmp_path / "a.zip", files)):
        with pytest.raises(UserError, match=r"1 bad .* the first: train/b.png is larger than 2,000 bytes"):
            load(path)


def test_no_tensorflow_is_needed(tmp_path):
    path = write_zip(tmp_path / "a.zip", GOOD)
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from t2i_kd.data.catalogue import load_dataset\n"
        f"print(len(load_dataset('image_folder', 'train', 8, {str(path)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
