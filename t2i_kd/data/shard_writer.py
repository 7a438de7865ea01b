"""Writes a data set as shards for `--dataset=shards`: an Apache Beam pipeline, in which each element is one shard.

Shards are independent of each other. One appears whole or not at all, and one that is there and whose pictures have not
changed is not written again, so that a preparation that was killed goes on. The workers read `data_dir` and write `out`
themselves: on several machines both must be folders that all of them see.
"""

import contextlib
import functools
import hashlib
import json
import os
import uuid
from dataclasses import asdict, dataclass
from logging import WARNING, getLogger
from pathlib import Path

from absl import logging

from t2i_kd.checksums import sha256_of
from t2i_kd.data.captioned_images import digest_of
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.examples import Pictures, check_file, report_bad
from t2i_kd.data.shards import FORMAT_VERSION, INSTALL, MANIFEST, record_of
from t2i_kd.data.sources import SourceFile, place_state
from t2i_kd.errors import UserError
from t2i_kd.imaging import encode_png, write_file_atomically

PREPARATION = "preparation.json"
# Beam's own DirectRunner first looks on the network for another runner; this is what it takes where there is none.
RUNNERS = {"DirectRunner": "apache_beam.runners.portability.fn_api_runner.FnApiRunner"}
# A record is read alone; a PNG is compressed already.
WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True)
class Preparation:
    """What is prepared.

    Attributes:
        dataset: name of the data set.
        data_dir: its folder or archive.
        resolution: side of the pictures.
        max_bad_examples: how many broken pictures and bad captions of a split may be left out.
        examples_per_shard: how many examples of the data set a shard covers.
        out: the folder of the shards.
    """

    dataset: str
    data_dir: str
    resolution: int
    max_bad_examples: int
    examples_per_shard: int
    out: str

    def load(self, split):
        """The split, its pictures unread; loaded once a process."""
        return _load(self.dataset, split, self.resolution, self.data_dir, self.max_bad_examples)


@dataclass(frozen=True)
class Shard:
    """A shard: examples `first` to `last` (exclusive) of a split."""

    split: str
    number: int
    count: int
    first: int
    last: int

    @property
    def file(self):
        """The name of the file of records."""
        return f"{self.stem}.array_record"

    @property
    def index(self):
        """The name of the file that describes the records."""
        return f"{self.stem}.json"

    @property
    def stem(self):
        """What both names begin with."""
        return f"{self.split}-{self.number:05d}-of-{self.count:05d}"


def prepare(preparation, splits, runner="DirectRunner", pipeline_options=(), report=print):
    """Writes every shard that is missing, then the manifest.

    Args:
        preparation: `Preparation`.
        splits: names of the splits.
        runner: Beam's, by its name.
        pipeline_options: Beam's other options, each `name=value`.
        report: gets a line for each thing done.

    Raises:
        UserError: where a split cannot be loaded, `out` holds another preparation, Beam or array_record are missing, or
            more pictures and captions are bad than may be; the good shards stay.
    """
    _check_installed()
    for cached in (_load, _place_state):
        cached.cache_clear()
    datasets = {split: preparation.load(split) for split in splits}
    out = Path(preparation.out)
    _begin(out, preparation, datasets)
    shards = [shard for split, dataset in datasets.items() for shard in shards_of(preparation, split, len(dataset))]
    todo = [shard for shard in shards if not _is_finished(preparation, shard)]
    report(f"{out}: {len(shards)} shards, {len(shards) - len(todo)} of them already there")
    if todo:
        (out / MANIFEST).unlink(missing_ok=True)
        _run(preparation, todo, runner, pipeline_options)
    missing = [shard.file for shard in shards if not (out / shard.index).is_file()]
    if missing:
        raise UserError(
            f"--out: {len(missing)} shards could not be written, the first {missing[0]}; the workers' logs say why, "
            "and the same command goes on"
        )
    written = {shard: _read_index(out, shard) for shard in shards}
    bad = {split: list(dataset.left_out) for split, dataset in datasets.items()}
    for shard, index in written.items():
        bad[shard.split] += index["left_out"]
    for split, reasons in bad.items():
        report_bad(datasets[split].name, reasons, preparation.max_bad_examples)
    manifest = {
        "format_version": FORMAT_VERSION,
        "dataset": preparation.dataset,
        "resolution": preparation.resolution,
        "splits": {
            split: {
                "origin": dataset.origin,
                "label_names": list(dataset.label_names),
                "shards": [_described(out, shard, index) for shard, index in written.items() if shard.split == split],
            }
            for split, dataset in datasets.items()
        },
    }
    write_file_atomically(out / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    for split, values in manifest["splits"].items():
        count = sum(shard["examples"] for shard in values["shards"])
        report(f"{split}: {count:,} examples in {len(values['shards'])} shards")


def shards_of(preparation, split, examples):
    """The shards of a split of so many examples."""
    size = preparation.examples_per_shard
    count = -(-examples // size)
    return [Shard(split, n, count, n * size, min((n + 1) * size, examples)) for n in range(count)]


def write_shard(shard, preparation):
    """Writes a shard's records and its index, or warns that it cannot; what a worker does."""
    # The index of what is to be replaced goes first, so that a shard that cannot be written is not there.
    (Path(preparation.out) / shard.index).unlink(missing_ok=True)
    try:
        _write_shard(shard, preparation)
    except (OSError, RuntimeError) as error:  # array_record raises the latter for what a disk refuses.
        logging.warning("%s: cannot be written: %s", shard.file, " ".join(str(error).split())[:200])


def _write_shard(shard, preparation):
    from array_record.python.array_record_module import ArrayRecordWriter

    dataset, out = preparation.load(shard.split), Path(preparation.out)
    rows, left_out, states = [], [], []
    # Some runners give an element to two workers.
    temporary = out / f".{shard.file}.{uuid.uuid4().hex}.tmp"
    try:
        writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
        for index in range(shard.first, shard.last):
            states.append(_state(dataset.images, index, preparation.data_dir))
            picture, sha256, wrong = _picture(dataset.images, index, preparation.resolution)
            name = dataset.file_names[index] if dataset.file_names else ""
            if wrong:
                left_out.append(f"{name} {wrong}")
                continue
            attributes = dataset.attributes[index] if dataset.attributes else {}
            row = [name, dataset.captions[index], int(dataset.labels[index]), sha256, attributes]
            keys = ("name", "captions", "label", "sha256", "attributes")
            described = {**dict(zip(keys, row, strict=True)), "split": shard.split}
            writer.write(record_of(described, encode_png(picture)))
            rows.append(row)
        writer.close()
        _flush_to_disk(temporary)
        sha256 = sha256_of(temporary)
        temporary.replace(out / shard.file)
    finally:
        temporary.unlink(missing_ok=True)
    # The index comes last: with it the shard is finished.
    values = {"sha256": sha256, "rows": rows, "left_out": left_out, "states": states}
    write_file_atomically(out / shard.index, json.dumps(values).encode())
    logging.info("%s: %d examples", shard.file, len(rows))


@functools.lru_cache(maxsize=4)
def _load(dataset, split, resolution, data_dir, max_bad_examples):
    return load_dataset(dataset, split, resolution, data_dir, max_bad_examples, decode=False)


def _picture(images, index, resolution):
    """(picture, SHA-256, what is wrong) of one of a data set's pictures."""
    if isinstance(images, Pictures):
        found = check_file(images.unread(index), resolution)
        return found.picture, found.sha256, found.wrong
    return images[index], digest_of(images[index]), ""


def _state(images, index, data_dir):
    """What changes with a picture's file, or, where it is not known which that is, with any file of `data_dir`.

    Empty where neither is known, None for a picture that is computed.
    """
    read = images.unread(index).read if isinstance(images, Pictures) else None
    if isinstance(read, SourceFile):
        return read.state
    return _place_state(data_dir) if data_dir else None


@functools.lru_cache(maxsize=4)
def _place_state(data_dir):
    return place_state(data_dir)


def _flush_to_disk(path):
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _check_installed():
    verbosity = logging.get_verbosity()
    try:
        # Beam tells of clients of other services that are not installed.
        logging.set_verbosity(min(verbosity, logging.ERROR))
        import apache_beam  # noqa: F401
        import array_record.python.array_record_module  # noqa: F401
    except ImportError as error:
        raise UserError(f"shards are written by Apache Beam and array_record: {INSTALL} ({error})") from None
    finally:
        logging.set_verbosity(verbosity)


def _begin(out, preparation, datasets):
    """Makes the folder with `preparation.json`, or checks that an existing one is this preparation's."""
    ours = {name: value for name, value in asdict(preparation).items() if name not in ("data_dir", "out")}
    del ours["max_bad_examples"]
    for split, dataset in datasets.items():
        ours[split] = hashlib.sha256(json.dumps(dataset.named()).encode("utf-8", "surrogatepass")).hexdigest()
    path = out / PREPARATION
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            theirs = json.loads(path.read_bytes())
            other = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
            if other:
                raise UserError(f"--out: {out} holds another preparation, of another {', '.join(other)}; take another")
        elif any(not each.name.startswith(".") for each in out.iterdir()):
            raise UserError(f"--out: {out} is not empty and has no {PREPARATION}")
        else:
            write_file_atomically(path, (json.dumps(ours, indent=1) + "\n").encode())
        for left in out.glob(".*.tmp"):
            left.unlink(missing_ok=True)  # Of a preparation that was killed.
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"--out: cannot use {out}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"--out: {path} is not that of a preparation: {error}") from None


def _is_finished(preparation, shard):
    """Whether a shard is there, whole, and of pictures that have not changed."""
    out, images = Path(preparation.out), preparation.load(shard.split).images
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        index = _read_index(out, shard)
        states = [_state(images, each, preparation.data_dir) for each in range(shard.first, shard.last)]
        return index["states"] == states and "" not in states and sha256_of(out / shard.file) == index["sha256"]
    return False


def _read_index(out, shard):
    return json.loads((out / shard.index).read_bytes())


def _described(out, shard, index):
    """A shard as the manifest has it."""
    return {
        "file": shard.file,
        "sha256": index["sha256"],
        "examples": len(index["rows"]),
        "index": shard.index,
        "index_sha256": sha256_of(out / shard.index),
    }


def _run(preparation, shards, runner, pipeline_options):
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    if runner in RUNNERS:
        # It tells of every channel between its own threads; another runner tells where its job is.
        getLogger("apache_beam").setLevel(WARNING)
    given = [f"--runner={RUNNERS.get(runner, runner)}", *(f"--{option}" for option in pipeline_options)]
    # Of this machine every core; other runners pass over it.
    options = PipelineOptions(given, direct_running_mode="multi_threading", direct_num_workers=0)
    try:
        pipeline = beam.Pipeline(options=options)
    except ValueError as error:
        raise UserError(f"--beam_runner: {runner}: {' '.join(str(error).split())}") from None
    with pipeline:
        # Without a reshuffle a runner may leave all shards to one worker.
        _ = pipeline | beam.Create(shards) | beam.Reshuffle() | beam.Map(write_shard, preparation)
