"""`--dataset=image_folder`: the user's own pictures and captions, from a folder or straight from a .zip.

`--data_dir` is the folder or the .zip. Either it holds `metadata.jsonl`, one JSON object a line (in a .zip it may lie
one folder down):

    {"file_name": "images/1.jpg", "caption": "a red rose"}
    {"file_name": "images/2.jpg", "captions": ["a bee", "an insect"], "label": 3, "class_name": "bee", "split": "train"}

or it holds pictures with a text file beside each (`rose.jpg`, `rose.txt`), one caption a line, blank lines ignored.
Where all these pictures lie in folders, a folder's name is its pictures' class.

Labels: `label` where it is given, else the class names in alphabetical order, else 0 everywhere.

Splits: `split`, or a top folder of that name beside text files, is `train`, `validation` or `test`. Where there is no
`test`, asking for it gives `validation`. Where no split is given at all, `t2i_kd.data.holdout` holds out a tenth of the
file names as `test` and the rest is `train`.

Pictures of any size and shape are cut to their centred square and resized; see `t2i_kd.data.decoding`.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import PurePosixPath

from t2i_kd.data.catalogue import SPLITS
from t2i_kd.data.examples import Example, collect
from t2i_kd.data.holdout import held_out
from t2i_kd.data.sources import open_source, safe_name
from t2i_kd.errors import UserError

METADATA = "metadata.jsonl"
NEEDS = f"a folder or .zip of pictures with {METADATA}, or with a .txt of captions beside each"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
HELD_OUT_SHARE = 0.1
MAX_LABEL = 1_000_000


@dataclass(frozen=True)
class Record:
    """A picture as its metadata describe it; `where` names the line or file for errors."""

    where: str
    file_name: str
    captions: tuple[str | bytes, ...]
    label: int | None = None
    class_name: str | None = None
    split: str | None = None


def load(split, resolution, data_dir, max_bad_examples=0, decode=True):
    """The pictures of a split; see the module for what `data_dir` holds, and `collect` for `decode`.

    Raises:
        UserError: for metadata that cannot be read (named by line), a `file_name` that leaves the folder or comes
            twice, labels or splits that some pictures have and others lack, a split that is not there, or more bad
            pictures and captions than `max_bad_examples`.
    """
    source = open_source(data_dir)
    records = _read_records(source)
    _refuse_duplicates(records)
    labels, label_names = _labels(records)
    split, wanted = _split(records, split)
    examples = (
        Example(record.file_name, record.captions, label, functools.partial(source.read, record.file_name))
        for record, label in zip(records, labels, strict=True)
        if record.file_name in wanted
    )
    return collect(f"image_folder/{split}", examples, label_names, resolution, max_bad_examples, len(wanted), decode)


def _read_records(source):
    names = source.names()
    records = _from_metadata(source) if METADATA in names else _from_text_files(source, names)
    if not records:
        raise UserError(f"--data_dir: {source.path} is empty: neither {METADATA} nor pictures with a .txt beside them")
    return records


def _from_metadata(source):
    try:
        content = source.read(METADATA)
    except UserError as error:
        raise UserError(f"--data_dir: {source.path}: {METADATA} {error}") from None
    records = []
    # Split at line feeds only: a caption may hold other line separators of Unicode.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            where = f"{METADATA} line {number}"
            try:
                records.append(_parse(line, where))
            except UserError as error:
                raise UserError(f"--data_dir: {source.path}: {where}: {error}") from None
    return records


def _parse(line, where):
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError("not a JSON object")
    file_name, label, split = values.get("file_name"), values.get("label"), values.get("split")
    class_name = values.get("class_name")
    if not isinstance(file_name, str):
        raise UserError("file_name is missing or not text")
    if label is not None and (type(label) is not int or not 0 <= label <= MAX_LABEL):
        raise UserError(f"label is {label!r}, not a whole number from 0 to {MAX_LABEL:,}")
    if class_name is not None and not isinstance(class_name, str):
        raise UserError("class_name is not text")
    if split is not None and split not in SPLITS:
        raise UserError(f"split is {split!r}, none of {', '.join(SPLITS)}")
    return Record(where, safe_name(file_name), _captions(values), label, class_name, split)


def _captions(values):
    if "caption" in values and "captions" in values:
        raise UserError("has both caption and captions")
    captions = values.get("captions", [values["caption"]] if "caption" in values else [])
    if not isinstance(captions, list):
        raise UserError("captions is not a list")
    captions = tuple("" if caption is None else caption for caption in captions)
    if not all(isinstance(caption, str) for caption in captions):
        raise UserError("a caption is not text")
    return captions


def _from_text_files(source, names):
    known = set(names)
    paths = [PurePosixPath(name) for name in names if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES]
    splits = [path.parts[0] if len(path.parts) > 1 and path.parts[0] in SPLITS else None for path in paths]
    in_folders = all(len(path.parts) > (1 if split is None else 2) for path, split in zip(paths, splits, strict=True))
    records = []
    for path, split in zip(paths, splits, strict=True):
        text_file = str(path.with_suffix(".txt"))
        captions = _lines(source, text_file) if text_file in known else ()
        class_name = path.parent.name if in_folders else None
        records.append(Record(str(path), str(path), captions, class_name=class_name, split=split))
    return records


def _lines(source, name):
    try:
        content = source.read(name)
    except UserError as error:
        raise UserError(f"--data_dir: {source.path}: {name} {error}") from None
    stripped = (line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    return tuple(line for line in stripped if line)


def _refuse_duplicates(records):
    first = {}
    for record in records:
        if record.file_name in first:
            raise UserError(
                f"--data_dir: file_name {record.file_name!r} is in {first[record.file_name]} and in {record.where}"
            )
        first[record.file_name] = record.where


def _labels(records):
    if _given(records, "label"):
        return [record.label for record in records], _names_by_label(records)
    if _given(records, "class_name"):
        names = sorted({record.class_name for record in records})
        by_name = {name: label for label, name in enumerate(names)}
        return [by_name[record.class_name] for record in records], names
    return [0] * len(records), ["picture"]


def _given(records, field):
    """Whether the records have the field; refuses that only some of them have."""
    with_it = [record for record in records if getattr(record, field) is not None]
    if with_it and len(with_it) < len(records):
        without = next(record for record in records if getattr(record, field) is None)
        raise UserError(f"--data_dir: {with_it[0].where} has a {field} and {without.where} has none")
    return bool(with_it)


def _names_by_label(records):
    names = {}
    for record in records:
        name = str(record.label) if record.class_name is None else record.class_name
        if names.setdefault(record.label, name) != name:
            raise UserError(
                f"--data_dir: {record.where}: label {record.label} is {name!r} here and {names[record.label]!r} before"
            )
    return [names.get(label, str(label)) for label in range(max(names) + 1)]


def _split(records, split):
    """The split that is read and the set of its file names."""
    if _given(records, "split"):
        members = {name: frozenset(record.file_name for record in records if record.split == name) for name in SPLITS}
        if split == "test" and not members["test"]:
            split = "validation"
    else:
        every = frozenset(record.file_name for record in records)
        test = held_out(every, HELD_OUT_SHARE)
        members = {"train": every - test, "validation": frozenset(), "test": test}
    if not members[split]:
        there = ", ".join(name for name in SPLITS if members[name])
        raise UserError(f"--dataset: image_folder has no {split} pictures in --data_dir; it has {there}")
    return split, members[split]
