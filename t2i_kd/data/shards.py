"""`--dataset=shards`: what `python -m t2i_kd.prepare` has written of another data set, read through Grain.

`--data_dir` is the folder:

    manifest.json                         what the shards were made of, with the SHA-256 of every file; written last
    train-00000-of-00012.array_record     pictures of the training size with their captions, labels and names
    train-00000-of-00012.json             the same without the pictures, so that a start reads no picture
    preparation.json                      what the preparation was asked for

A record is a line of JSON (`name`, `captions`, `label`, `split`, `sha256` of the picture's original file and
`attributes`) and after it the picture as a PNG. Examples have the order, the names and the checksums of the original
data set, so that batches are the same. Each picture is read when a batch needs it, from whichever shard it lies in.
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2i_kd.checksums import sha256_of
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.data.examples import Example, Pictures, Progress, decoders, held_pictures
from t2i_kd.data.sources import FolderSource
from t2i_kd.errors import UserError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
NEEDS = "a folder that python -m t2i_kd.prepare has written"
INSTALL = 'pip install "t2i_kd[shards]"'


def load(split, resolution, data_dir, decode=True, cache_dir=None):
    """The pictures of a split.

    Every shard is compared with its checksum; one that `cache_dir` knows and that has not changed is not read for that.

    Args:
        split: one that was prepared.
        resolution: the side that the pictures were prepared at.
        data_dir: the folder.
        decode: as of `t2i_kd.data.examples.collect`.
        cache_dir: as of `t2i_kd.data.sources.open_source`.

    Raises:
        UserError: for a preparation that was not finished, another resolution, a split that was not prepared, or shards
            that are missing or damaged, which are named.
    """
    manifest = _read_manifest(Path(data_dir) / MANIFEST)
    if resolution != manifest["resolution"]:
        raise UserError(
            f"--resolution: the pictures in {data_dir} were prepared at {manifest['resolution']} px, not {resolution}"
        )
    if split not in manifest["splits"]:
        raise UserError(f"--dataset: {data_dir} has no {split} split, only {' and '.join(manifest['splits'])}")
    described = manifest["splits"][split]
    shards = [each for each in described["shards"] if each["examples"]]
    _check_shards(f"shards/{split}", FolderSource(data_dir, cache_dir, "shards"), shards)
    rows = [row for shard in shards for row in _read_index(Path(data_dir), shard)]
    names, captions, labels, digests, attributes = zip(*rows, strict=True) if rows else ((),) * 5
    records = Records(ArrayRecords(tuple(FileInstruction.of(data_dir, each) for each in shards)), names)
    return CaptionedImages(
        name=f"shards/{split}",
        images=Pictures(records, resolution, room=held_pictures(resolution) if decode else 0),
        captions=tuple(map(tuple, captions)),
        labels=np.array(labels, np.int32),
        label_names=tuple(described["label_names"]),
        attributes=attributes if any(attributes) else (),
        file_names=names if any(names) else (),
        digests=digests,
        origin=described["origin"],
    )


def record_of(described, png):
    """The bytes of a record: a picture's description, a dict of JSON values, and the picture."""
    return json.dumps(described).encode() + b"\n" + png


@dataclass(frozen=True)
class FileInstruction:
    """What Grain reads of a file: so many records after the skipped ones. With it no file is opened at the start."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int

    @classmethod
    def of(cls, folder, shard):
        """All of a shard, as the manifest describes it."""
        return cls(str(Path(folder) / shard["file"]), 0, shard["examples"], shard["examples"])


@dataclass(frozen=True)
class ArrayRecords:
    """The records of several files, in order; the files are opened when they are first read."""

    files: tuple[FileInstruction, ...]

    def __len__(self):
        return sum(each.take for each in self.files)

    @functools.cached_property
    def _source(self):
        return _grain().ArrayRecordDataSource(self.files)

    def png(self, index):
        """A record's picture. Raises `UserError` with the reason where it cannot be read."""
        try:
            return self._source[index].partition(b"\n")[2]
        except UserError:
            raise
        except Exception as error:  # array_record raises many kinds on a damaged file.
            ends = np.cumsum([each.take for each in self.files])
            file = self.files[int(np.searchsorted(ends, index, "right"))].filename
            raise UserError(f"cannot be read from {file}: {' '.join(str(error).split())[:200]}") from None


class Records(Sequence):
    """The records as what `Pictures` reads, made when they are asked for."""

    def __init__(self, records, names):
        self._records, self._names = records, names

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        name = self._names[index] or f"picture {index}"
        return Example(name, (), 0, functools.partial(self._records.png, index))


def _grain():
    try:
        import grain.sources
    except ImportError as error:
        raise UserError(f"--dataset: shards are read by Grain and array_record: {INSTALL} ({error})") from None
    return grain.sources


def _read_manifest(path):
    if not path.is_file():
        raise UserError(f"--data_dir: no {path}: a preparation writes it last, and goes on with the same command")
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {manifest['format_version']}, not {FORMAT_VERSION}")
        if not isinstance(manifest["splits"], dict):
            raise TypeError("splits are no object")
        return manifest
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"--data_dir: {path} is not that of a preparation of this version: {error}") from None


def _check_shards(name, source, shards):
    """Raises `UserError` that names the shards whose checksum is not the manifest's; says how far it is."""
    progress = Progress(name, len(shards), "shards")
    wrong = []
    for shard, found in zip(shards, decoders().map(lambda each: _sha256(source, each["file"]), shards), strict=True):
        if found != shard["sha256"]:
            wrong.append(f"{source.path / shard['file']} {'is damaged' if found else 'cannot be read'}")
        progress.advance()
        source.checked.save_now_and_then()
    source.checked.save()
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"--data_dir: {wrong[0]}: its SHA-256 is not that of {MANIFEST}{more}")


def _sha256(source, file):
    """A shard's SHA-256; empty where it cannot be read."""
    state = source.state(file)
    known = source.checked.found(file, state)
    if known:
        return known[0]
    try:
        found = sha256_of(source.path / file)
    except OSError:
        return ""
    source.checked.keep(file, state, found, None)
    return found


def _read_index(folder, shard):
    """The rows of a shard without their pictures: [name, captions, label, SHA-256, attributes] each."""
    path = folder / shard["index"]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--data_dir: cannot read {path}: {error.strerror or error}") from None
    if hashlib.sha256(content).hexdigest() != shard["index_sha256"]:
        raise UserError(f"--data_dir: {path} is damaged: its SHA-256 is not that of {MANIFEST}")
    return json.loads(content)["rows"]
