"""What a start has found of pictures' files is not looked for again, and what has changed is always seen."""

import hashlib
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from t2i_kd.data import checked_files, examples
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.checked_files import CheckedFiles
from t2i_kd.data.image_pairs import ImagePairs
from t2i_kd.errors import UserError
from tests.data_files import write, write_zip

NAMES = [f"{index}.png" for index in range(5)]


def png(seed, width=8):
    stream = io.BytesIO()
    # Stored without compression, so that two pictures have files of one size.
    pixels = np.random.default_rng(seed).integers(0, 256, (8, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def files(seeds=range(5)):
    rows = [{"file_name": name, "caption": name, "split": "train"} for name in NAMES]
    text = "\n".join(map(json.dumps, rows)).encode()
    return {"metadata.jsonl": text, **{name: png(seed) for name, seed in zip(NAMES, seeds, strict=True)}}


@pytest.fixture(autouse=True)
def decoded(monkeypatch):
    """The files that are decoded, by their SHA-256; files count as old as soon as they are written."""
    monkeypatch.setattr(checked_files, "SETTLED_SECONDS", -1)
    found, decode = [], examples.decode_square
    monkeypatch.setattr(
        examples,
        "decode_square",
        lambda encoded, *rest: found.append(hashlib.sha256(encoded).hexdigest()) or decode(encoded, *rest),
    )
    return found


def test_auto_is_the_usual_folder_of_whoever_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    checked = CheckedFiles("auto", "data")
    checked.keep("a.png", "state", "sha", "")
    checked.save()
    assert len(list((tmp_path / ".cache" / "t2i_kd").glob("pictures-*.json"))) == 1


def load(path, cache_dir, **options):
    return load_dataset("image_folder", "train", 8, str(path), cache_dir=str(cache_dir), **options)


@pytest.mark.parametrize("write", [write, write_zip])
def test_a_second_start_decodes_nothing_and_gives_the_same(tmp_path, decoded, write):
    contents = files()
    data, cache = write(tmp_path / "data", contents), tmp_path / "cache"
    first = load(data, cache)
    assert len(decoded) == 5
    second = load(data, cache)
    assert len(decoded) == 5
    assert first.digests == second.digests == tuple(hashlib.sha256(contents[name]).hexdigest() for name in NAMES)
    assert list(first.described()) == list(second.described())
    for one, other in zip(first.images, second.images, strict=True):
        np.testing.assert_array_equal(one, other)
    # At their use they are, once.
    assert len(list(second.images)) == 5 and len(decoded) == 10


@pytest.mark.parametrize("write", [write, write_zip])
def test_a_changed_picture_of_the_same_size_is_seen(tmp_path, decoded, write):
    data, cache = tmp_path / "data", tmp_path / "cache"
    before = load(write(data, files()), cache)
    after = load(write(data, files([0, 1, 20, 3, 4])), cache)
    assert decoded[5:] == [hashlib.sha256(png(20)).hexdigest()] if write is write_zip else len(decoded) >= 6
    assert [a == b for a, b in zip(before.digests, after.digests, strict=True)] == [True, True, False, True, True]
    np.testing.assert_array_equal(after.images[2], Image.open(io.BytesIO(png(20))))


def test_a_changed_picture_with_its_old_time_is_seen(tmp_path, decoded):
    data, cache = write(tmp_path / "data", files()), tmp_path / "cache"
    load(data, cache)
    found = (data / "2.png").stat()
    (data / "2.png").write_bytes(png(20))
    os.utime(data / "2.png", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert load(data, cache).digests[2] == hashlib.sha256(png(20)).hexdigest()
    assert len(decoded) == 6


def test_a_file_that_has_just_changed_is_not_kept(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(checked_files, "SETTLED_SECONDS", 3600)
    data, cache = write(tmp_path / "data", files()), tmp_path / "cache"
    for _ in range(2):
        load(data, cache)
    assert len(decoded) == 10 and not cache.exists()


def test_a_picture_that_cannot_be_decoded_stays_one(tmp_path, decoded):
    data, cache = write(tmp_path / "data", files() | {"1.png": b"no picture"}), tmp_path / "cache"
    for count in (5, 5):
        with pytest.raises(UserError, match=r"--max_bad_examples: 1 bad .* the first: 1.png is not a JPEG"):
            load(data, cache)
        assert len(decoded) == count
    assert load(data, cache, max_bad_examples=1).file_names == ("0.png", "2.png", "3.png", "4.png")


def test_what_held_out_pictures_were_read_for_does_not_count_as_decoded(tmp_path, decoded):
    """Where files of one size are compared, their checksums are kept, and nothing is known of their soundness."""
    data, cache = write(tmp_path / "data", files() | {"1.png": b"x" * len(png(0))}), tmp_path / "cache"
    load(data, cache, decode=False)
    assert not decoded and len(list(cache.iterdir())) == 1
    with pytest.raises(UserError, match=r"the first: 1.png is not a JPEG"):
        load(data, cache)


@pytest.mark.parametrize("damage", ["bit", "cut", "version"])
def test_what_is_kept_and_damaged_counts_as_none(tmp_path, decoded, damage, monkeypatch, caplog):
    data, cache = write(tmp_path / "data", files()), tmp_path / "cache"
    digests = load(data, cache).digests
    (path,) = cache.iterdir()
    content = path.read_bytes()
    if damage == "version":
        monkeypatch.setattr(checked_files.PIL, "__version__", "another")
    else:
        place = content.index(digests[0].encode())
        changed = content[:place] + (b"1" if content[place : place + 1] == b"0" else b"0") + content[place + 1 :]
        path.write_bytes(changed if damage == "bit" else content[:-9])
    assert load(data, cache).digests == digests
    assert len(decoded) == 10
    assert ("damaged, made anew" in caplog.text) == (damage != "version")


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "cache").write_bytes(b"")
    assert len(load(write(tmp_path / "data", files()), tmp_path / "cache")) == 5
    assert "--cache_dir: cannot" in caplog.text


def test_halves_are_not_taken_for_whole_pictures(tmp_path):
    """A picture of odd width is whole as such, and no pair side by side."""
    cache, data = tmp_path / "cache", tmp_path / "data"
    (data / "train").mkdir(parents=True)
    for index in range(2):
        (data / "train" / f"{index}.png").write_bytes(png(index, 16 + index))
        (data / "train" / f"{index}.txt").write_text("x")

    def pairs():
        return load_dataset("paired_folder", "train", 8, str(data), 1, kinds=(ImagePairs,), cache_dir=str(cache))

    load_dataset("image_folder", "train", 8, str(data), cache_dir=str(cache))
    first, second = pairs(), pairs()
    assert first.first_names == second.first_names == ("train/0.png",)
    assert first.first_digests == second.first_digests
    for one, other in zip([*first.first, *first.second], [*second.first, *second.second], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_start_that_is_stopped_has_not_worked_for_nothing(tmp_path, decoded, monkeypatch):
    data, cache = write(tmp_path / "data", files()), tmp_path / "cache"
    decode = examples.decode_square

    def stopping(encoded, resolution):
        if encoded == png(3):
            raise RuntimeError("stopped")
        return decode(encoded, resolution)

    with monkeypatch.context() as patch:
        patch.setattr(examples, "decode_square", stopping)
        with pytest.raises(RuntimeError, match="stopped"):
            load(data, cache)
    assert len(load(data, cache)) == 5
    # A picture behind the one that stopped it may be decoded by both starts.
    assert [decoded.count(hashlib.sha256(png(seed)).hexdigest()) for seed in range(4)] == [1, 1, 1, 1]


def test_pictures_of_a_batch_are_decoded_by_several_threads(tmp_path):
    dataset = load(write(tmp_path / "data", files()), "", decode=False)
    for chosen in ([0, 4, 4, 1], np.array([3, 2])):
        for index, picture in zip(chosen, dataset.images.many(chosen), strict=True):
            np.testing.assert_array_equal(picture, dataset.images[index])
    (tmp_path / "data" / "3.png").unlink()
    with pytest.raises(UserError, match=r"^3.png does not exist"):
        dataset.images.many([0, 3])
