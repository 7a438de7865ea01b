"""The user's own pictures, from folders and zips, good and bad."""

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

from t2i_kd.data import examples, sources
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.holdout import position
from t2i_kd.errors import UserError


def png(value=0, size=(8, 8)):
    stream = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


def metadata(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


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
    write(tmp_path, {"metadata.jsonl": metadata(*rows)} | {row["file_name"]: png() for row in rows})
    expected = sum(position(row["file_name"]) < 0.1 for row in rows)
    assert len(load(tmp_path, "test")) == expected
    assert len(load(tmp_path, "train")) == 60 - expected
    with pytest.raises(UserError, match="no validation pictures"):
        load(tmp_path, "validation")


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
    assert sum(isinstance(held, np.ndarray) for held in partly.images._held) == 1
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
    "split": (b'{"file_name": "a.png", "caption": "x", "split": "val"}', "line 1: split is 'val', none of train"),
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
