"""A data set as shards gives the batches of the original one; what is stopped goes on, and what is damaged is named."""

import errno
import functools
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from t2i_kd.data import checked_files, shard_writer
from t2i_kd.data.batches import Batches, caption_pairs
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.shard_writer import Preparation, prepare
from t2i_kd.errors import UserError
from tests.data import test_noto_emoji as emoji

pytest.importorskip("apache_beam", reason="shards need Apache Beam")
pytest.importorskip("grain.sources", reason="shards need Grain")

prepare_command = importlib.import_module("t2i_kd.prepare")
ROOT = Path(__file__).resolve().parents[2]
COUNT = 10


def picture(seed):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(autouse=True)
def files_count_as_old(monkeypatch):
    monkeypatch.setattr(checked_files, "SETTLED_SECONDS", -1)


@pytest.fixture
def data(tmp_path):
    """A folder of ten pictures for training and three held out."""
    folder, rows = tmp_path / "data", []
    folder.mkdir()
    for index in range(COUNT + 3):
        (folder / f"{index:02d}.png").write_bytes(picture(index))
        rows.append(
            {
                "file_name": f"{index:02d}.png",
                "captions": [f"picture {index}", f"Bild {index} äöü\n"][: 1 + index % 2],
                "class_name": ("odd", "even")[index % 2],
                "split": "train" if index < COUNT else "test",
            }
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def preparation(data, out, **changes):
    options = {"dataset": "image_folder", "resolution": 8, "max_bad_examples": 0, "examples_per_shard": 4, **changes}
    return Preparation(data_dir=str(data), out=str(out), **options)


def write(data, out, splits=("train", "test"), **changes):
    """Prepares; the lines that it says."""
    lines = []
    prepare(preparation(data, out, **changes), splits, report=lines.append)
    return lines


def load(out, split="train", **options):
    return load_dataset("shards", split, 8, str(out), **options)


def batches(dataset, **options):
    inputs = {"pair": caption_pairs(dataset)}
    return Batches(dataset, inputs, 4, 7, 0, 12, flip=True, noise_dim=2, **options)


def written(out):
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix in (".array_record", ".json")}


def run_prepare(arguments):
    """`main` of the command, in this process."""
    values = flags.FlagValues()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flags, "FLAGS", values)
        patch.setattr(prepare_command, "FLAGS", values)
        for name in ("DEFINE_string", "DEFINE_integer", "DEFINE_list"):
            patch.setattr(flags, name, functools.partial(getattr(flags, name), flag_values=values))
        prepare_command._define()
        values(["prepare", *arguments])
        prepare_command.main()


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_same_batches_as_of_the_original(tmp_path, data):
    out = tmp_path / "shards"
    assert write(data, out)[1:] == ["train: 10 examples in 3 shards", "test: 3 examples in 1 shards"]
    for split in ("train", "test"):
        original, shards = load_dataset("image_folder", split, 8, str(data)), load(out, split)
        assert list(original.described()) == list(shards.described())
        assert original.named() == shards.named() and original.origin == shards.origin
    original, shards = load_dataset("image_folder", "train", 8, str(data)), load(out)
    for unread in (load(out, decode=False), shards):
        for step in range(12):
            ours, theirs = batches(unread)[step], batches(original)[step]
            assert ours.keys() == theirs.keys()
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_set_without_files_keeps_its_attributes(tmp_path):
    out = tmp_path / "shards"
    write("", out, ("test",), dataset="captioned_shapes", examples_per_shard=600)
    original, shards = load_dataset("captioned_shapes", "test", 8), load(out, "test")
    assert shards.attributes == original.attributes and shards.captions == original.captions
    assert [list(each) for each in (shards.described(), shards.named())] == [
        list(each) for each in (original.described(), original.named())
    ]
    np.testing.assert_array_equal(np.stack(list(shards.images)), original.images)


def test_pictures_of_an_archive_that_has_changed_are_written_again(tmp_path):
    """Emoji have no files of their own: what changes is the archive."""
    out, files = tmp_path / "shards", emoji.package()
    archive = emoji.write_tgz(tmp_path / "emoji.tgz", files)
    shards = {"splits": ("train",), "dataset": "noto_emoji", "examples_per_shard": 1000}
    assert write(archive, out, **shards)[0].endswith("1 shards, 0 of them already there")
    assert write(archive, out, **shards)[0].endswith("1 shards, 1 of them already there")
    (changed,) = [name for name in files if name.endswith("/1f1eb.png")]
    emoji.write_tgz(archive, files | {changed: emoji.png(200)})
    assert write(archive, out, **shards)[0].endswith("1 shards, 0 of them already there")


def test_what_is_there_is_not_written_again(tmp_path, data):
    out = tmp_path / "shards"
    write(data, out)
    before = written(out)
    assert write(data, out)[0].endswith("4 shards, 4 of them already there")
    # A shard without its index was not finished, one that is damaged is not whole, and one is of an old picture.
    (out / "test-00000-of-00001.json").unlink()
    damage(out / "train-00000-of-00003.array_record")
    (data / "05.png").write_bytes(picture(50))
    assert write(data, out)[0].endswith("4 shards, 1 of them already there")
    after = written(out)
    same = [name for name in before if before[name] == after[name]]
    assert [name for name in same if name.startswith("t")] == [
        name for name in before if name.startswith("train-00002-of-00003")
    ]
    original = load_dataset("image_folder", "train", 8, str(data))
    assert list(original.described()) == list(load(out).described())
    np.testing.assert_array_equal(load(out).images[5], original.images[5])


@pytest.mark.slow
def test_a_preparation_that_is_killed_goes_on(tmp_path):
    out = tmp_path / "shards"
    command = [sys.executable, "-m", "t2i_kd.prepare", "--dataset=captioned_shapes", "--resolution=8", "--splits=test"]
    command += [f"--out={out}", "--examples_per_shard=16"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list(out.glob("test-*.json")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = written(out)
    assert killed and "manifest.json" not in killed
    with pytest.raises(UserError, match=r"--data_dir: no .*manifest.json: a preparation writes it last"):
        load(out, "test")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    finished = [name for name in killed if name.startswith("test-") and name.endswith(".json")]
    assert f"64 shards, {len(finished)} of them already there" in done.stdout and 0 < len(finished) < 64
    after = written(out)
    assert all(after[name] == killed[name] for name in finished)
    original = load_dataset("captioned_shapes", "test", 8)
    np.testing.assert_array_equal(np.stack(list(load(out, "test").images)), original.images)
    assert not [path for path in out.iterdir() if path.name.startswith(".") and path.name != ".lock"]


@pytest.mark.parametrize("kind", ["array_record", "json"])
@pytest.mark.parametrize("known", [False, True])
def test_a_damaged_shard_is_named(tmp_path, data, kind, known):
    out, cache = tmp_path / "shards", str(tmp_path / "cache")
    write(data, out)
    if known:
        load(out, cache_dir=cache)
        assert len(os.listdir(cache)) == 1
    path = out / f"train-00001-of-00003.{kind}"
    damage(path)
    with pytest.raises(UserError, match=rf"^--data_dir: {path} is damaged: its SHA-256 is not that of manifest.json"):
        load(out, cache_dir=cache)
    # The other split is whole.
    assert len(load(out, "test", cache_dir=cache)) == 3
    path.unlink()
    with pytest.raises(UserError, match=rf"--data_dir: .*{path.name}"):
        load(out, cache_dir=cache)


def test_a_shard_that_goes_while_it_is_used_is_named(tmp_path, data):
    out = tmp_path / "shards"
    write(data, out)
    dataset = load(out)
    (out / "train-00001-of-00003.array_record").unlink()
    assert dataset.images[0].shape == (8, 8, 3)
    with pytest.raises(UserError, match=r"^05.png cannot be read from .*train-00001-of-00003.array_record"):
        dataset.images[5]


def test_bad_pictures_are_counted_and_left_out(tmp_path, data):
    out = tmp_path / "shards"
    (data / "04.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"--max_bad_examples: 1 bad .*image_folder/train.* the first: 04.png is not a"):
        write(data, out)
    assert not (out / "manifest.json").exists()
    assert write(data, out, max_bad_examples=1)[0].endswith("4 of them already there")
    original = load_dataset("image_folder", "train", 8, str(data), 1)
    assert list(original.described()) == list(load(out).described()) and len(original) == 9
    np.testing.assert_array_equal(np.stack(list(original.images)), np.stack(list(load(out).images)))


def test_a_disk_that_is_full_ends_in_one_line_and_loses_nothing(tmp_path, data, monkeypatch, caplog):
    out, refused = tmp_path / "shards", [1]
    flush = shard_writer._flush_to_disk

    def full(path):
        if refused and "train-00001" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(shard_writer, "_flush_to_disk", full)
    with pytest.raises(UserError, match=r"^--out: 1 shards could not be written, the first train-00001-of-00003.array"):
        write(data, out)
    assert "train-00001-of-00003.array_record: cannot be written: [Errno 28] No space left" in caplog.text
    assert not list(out.glob(".*.tmp")) and not (out / "manifest.json").exists()
    refused.clear()
    assert write(data, out)[0].endswith("4 shards, 3 of them already there")
    assert len(load(out)) == COUNT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: --dataset: missing"),
        (["--dataset=captioned_shapes"], "error: --out: missing"),
        (["--dataset=shards", "--out=x"], "error: --dataset: shards are prepared already"),
        (["--dataset=captioned_shapes", "--out=x", "--splits=tset"], "error: --splits: 'tset' is none of train"),
    ],
)
def test_wrong_commands(arguments, message):
    with pytest.raises(UserError) as caught:
        run_prepare(arguments)
    assert f"error: {caught.value}".startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 16}, "--out: .* holds another preparation, of another resolution; take another"),
        ({"examples_per_shard": 5}, "of another examples_per_shard"),
    ],
)
def test_a_folder_belongs_to_one_preparation(tmp_path, data, changes, message):
    write(data, tmp_path / "shards")
    with pytest.raises(UserError, match=message):
        write(data, tmp_path / "shards", **changes)
    with pytest.raises(UserError, match=r"--out: .* is not empty and has no preparation.json"):
        write(data, data, **changes)


@pytest.mark.parametrize(
    ("split", "resolution", "message"),
    [
        ("train", 16, "--resolution: the pictures in .* were prepared at 8 px, not 16"),
        ("validation", 8, "--dataset: .* has no validation split, only train and test"),
    ],
)
def test_what_was_not_prepared_is_refused(tmp_path, data, split, resolution, message):
    write(data, tmp_path / "shards")
    with pytest.raises(UserError, match=message):
        load_dataset("shards", split, resolution, str(tmp_path / "shards"))


def test_without_beam_it_says_what_to_install(tmp_path, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r'pip install "t2i_kd\[shards\]"'):
        write(data, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_a_runner_that_beam_does_not_know_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="--beam_runner: NoRunner"):
        prepare(preparation(data, tmp_path / "shards"), ("train",), "NoRunner", report=lambda line: None)
