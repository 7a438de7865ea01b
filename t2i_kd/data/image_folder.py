"""`--dataset=image_folder`: the user's own pictures and captions, from a folder or straight from a .zip.

`--data_dir` is the folder or the .zip. It holds `metadata.jsonl`, one JSON object a line:

    {"file_name": "images/1.jpg", "caption": "a red rose"}
    {"file_name": "images/2.jpg", "captions": ["a bee", "an insect"], "label": 3, "class_name": "bee", "split": "train"}

or `metadata.csv` with the same keys in its first line, as Hugging Face's image folders do; `text` is another word for
`caption`. There may be one in each folder, such as `train/metadata.jsonl`; a `file_name` starts where its metadata lie.
Keys in other letters (`Split`) are recognised, other keys are left unread, and told. Or it holds pictures with a text
file beside each (`rose.jpg`, `rose.txt`), one caption a line, blank lines ignored. Where all these pictures lie in
folders, a folder's name is its pictures' class.

Labels: `label` where it is given, else the class names in alphabetical order, else 0 everywhere.

Splits: `split`, or a folder of that name, is `train`, `validation` or `test`, or one of their usual other names (see
`SPLIT_WORDS`), in any letters. Where there is no `test`, asking for it gives `validation`. Where no split is given at
all, `t2i_kd.data.holdout` holds out a tenth of the pictures as `test` by their names and the rest is `train`; pictures
of the same bytes, and copies by their name (`x.png`, `x (1).png`), stay on one side.

A file of metadata has up to 64 MiB and a million lines, a picture up to 1000 captions.

Nothing is left out in silence: what is neither a picture nor its captions is a bad example, a picture that the metadata
do not list is told. Pictures of any size and shape are cut to their centred square and resized; see
`t2i_kd.data.decoding`.
"""

import ast
import contextlib
import csv
import dataclasses
import functools
import io
import json
import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from absl import logging

from t2i_kd.data.catalogue import SPLITS
from t2i_kd.data.decoding import picture_suffixes
from t2i_kd.data.examples import Example, collect, collection_paused
from t2i_kd.data.holdout import copies_by_name, held_out_groups, joined
from t2i_kd.data.sources import (
    MAX_CAPTIONS_BYTES,
    MAX_LIST_BYTES,
    FolderSource,
    Within,
    ZipSource,
    open_source,
    place_state,
    safe_name,
)
from t2i_kd.errors import UserError

METADATA = "metadata.jsonl"
METADATA_FILES = (METADATA, "metadata.csv")
NEEDS = f"a folder or .zip of pictures with {' or '.join(METADATA_FILES)}, or with a .txt of captions beside each"
KEYS = ("file_name", "caption", "captions", "text", "label", "class_name", "split")
TEXT_SUFFIXES = (".txt", ".caption")
# What a folder of pictures often holds beside them, and nobody takes for one.
ASIDES = re.compile(r"(readme|licen[sc]e|notice|dataset_infos?)(\..*)?|thumbs\.db|desktop\.ini|.*\.md", re.IGNORECASE)
# The usual names of the splits, without what follows them in `test_set` or `val2017`.
SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "heldout", "holdout"),
}
SPLIT_TAIL = re.compile(r"(set|split|data|images?|imgs?|pictures?)$")
# Names that say several splits at once.
SEVERAL_SPLITS = ("trainval", "traintest", "trainvaltest", "trainvalidation", "valtest", "testval")
# Keys that elsewhere say the split.
SPLIT_KEYS = ("subset", "partition", "fold", "phase", "set", "splits")
HELD_OUT_SHARE = 0.1
MAX_LABEL = 1_000_000
# Of one list, and the captions of one picture.
MAX_PICTURES, MAX_CAPTIONS = 1_000_000, 1000
MAX_HEADER_BYTES = 2**16
# JSON can hold it, and UTF-8 cannot.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Record:
    """A picture as its metadata describe it; `where` names the line or file for errors."""

    where: str
    file_name: str
    captions: tuple[str | bytes, ...]
    label: int | None = None
    class_name: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Found:
    """What a folder holds: the pictures; what was skipped, as (name, why); where the splits are said."""

    records: list[Record]
    skipped: list[tuple[str, str]]
    splits_from: str


def load(split, resolution, data_dir, max_bad_examples=0, decode=True, cache_dir=None):
    """The pictures of a split; see the module for what `data_dir` holds, `collect` for `decode`, and `open_source`.

    Raises:
        UserError: for metadata that cannot be read (named by line), a `file_name` that leaves the folder or comes
            twice, labels or splits that some pictures have and others lack, a split that is not there, or more bad
            pictures and captions than `max_bad_examples`.
    """
    with collection_paused():
        index = _index(split, data_dir, cache_dir)
        found, source = index.found, index.source
        split, members, origin = _chosen(index, split)
        examples = (
            Example(record.file_name, record.captions, label, source.file(record.file_name))
            for record, label in zip(found.records, index.labels, strict=True)
            if record.file_name in members
        )
        return collect(
            f"image_folder/{split}",
            examples,
            index.label_names,
            resolution,
            max_bad_examples,
            len(members),
            decode,
            [f"{name} {why}" for name, why in found.skipped if split_of_folders(name) in (None, split)],
            origin,
        )


@dataclass(frozen=True)
class Index:
    """What a folder or archive holds, for any split of it.

    Attributes:
        source: where its files lie.
        found: its pictures.
        labels: their labels, in their order.
        label_names: the classes' names, by label.
        members: {split: its file names}.
        origin: where the splits come from.
    """

    source: FolderSource | ZipSource | Within
    found: Found
    labels: list[int]
    label_names: list[str]
    members: dict[str, frozenset[str]]
    origin: str


# (split, index) of one that was read and waits for another split, by what must be the same then. A run reads its two
# splits one after the other, and afterwards nothing of this stays in memory.
_WAITING: dict[tuple, tuple[str, Index]] = {}


def _index(split, data_dir, cache_dir):
    """The `Index` that the load before has read for another split, where nothing has changed; else a new one."""
    key = (str(data_dir), cache_dir, place_state(data_dir))
    before, index = _WAITING.pop(key, (split, None))
    _WAITING.clear()
    if before == split:
        index = _read_index(data_dir, cache_dir)
        if key[-1]:
            _WAITING[key] = split, index
    return index


def _read_index(data_dir, cache_dir):
    source = Within.single_folder(open_source(data_dir, cache_dir), METADATA_FILES, is_split)
    found = _read(source)
    _refuse_duplicates(found.records)
    return Index(source, found, *_labels(found.records), *_divided(found, source))


@functools.lru_cache(maxsize=1000)
def split_word(name):
    """The split that a name says, in whatever letters: `train`, `validation`, `test`; None: none.

    Raises:
        UserError: for a name that says several.
    """
    plain = re.sub(r"[^a-z]", "", name.lower())
    for word in dict.fromkeys((plain, SPLIT_TAIL.sub("", plain))):
        if word in SEVERAL_SPLITS:
            raise UserError(f"{name!r} says several splits; name each {' or '.join(SPLITS)}")
        for split, words in SPLIT_WORDS.items():
            if word in words:
                return split
    return None


def is_split(name):
    """Whether a name says a split, or several."""
    try:
        return split_word(name) is not None
    except UserError:
        return True


def split_of_folders(name):
    """The split that the folders of a file say; None: none. Raises `UserError` where they say two."""
    try:
        said = {word for part in _folders(name) if (word := split_word(part))}
    except UserError as error:
        raise UserError(f"--data_dir: {name}: {error}") from None
    if len(said) > 1:
        raise UserError(f"--data_dir: the folders of {name} say both {' and '.join(sorted(said))}")
    return said.pop() if said else None


def _folders(name):
    """The folders of a plain name; as `PurePosixPath` has them, sooner."""
    return name.split("/")[:-1]


def _read(source):
    names = source.names()
    metadata = [name for name in names if name.rpartition("/")[2].lower() in METADATA_FILES]
    found = _from_metadata(source, names, metadata) if metadata else _from_text_files(source, names)
    if not found.records:
        more = f" ({found.skipped[0][0]} {found.skipped[0][1]})" if found.skipped else ""
        wanted = f"neither {' nor '.join(METADATA_FILES)} nor pictures with a .txt beside them"
        raise UserError(f"--data_dir: {source.path} is empty: {wanted}{more}")
    return found


def _from_metadata(source, names, metadata):
    records, unread = [], Counter()
    folders = [str(PurePosixPath(name).parent) for name in metadata]
    for name, folder in zip(metadata, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"--data_dir: {source.path}: {folder} holds both {' and '.join(METADATA_FILES)}")
        records += _records_of(source, name, folder, unread)
    if unread:
        told = ", ".join(f"{key} ({count:,} times)" for key, count in unread.most_common(10))
        _tell(f"{source.path}: keys that are not read: {told}; known are {', '.join(KEYS)}")
    listed = {record.file_name for record in records}
    unlisted = [name for name in names if name not in listed and _is_picture(name)]
    if unlisted:
        _tell(f"{source.path}: {len(unlisted)} pictures are in no metadata and left out, the first: {unlisted[0]}")
    by_key = any(record.split for record in records)
    if not by_key:
        records = [_in_split(each, split_of_folders(each.file_name)) for each in records]
    return _found(records, [], "the key split of the metadata" if by_key else "")


def _in_split(record, split):
    return record if record.split == split else dataclasses.replace(record, split=split)


def _found(records, skipped, origin):
    """`Found`; where the splits are said by folders, and there is none but train, none is said."""
    folders = {part for each in records for part in _folders(each.file_name)}
    folders = {part for part in folders if is_split(part)}
    named = ", ".join(f"{part}/" for part in sorted(folders))
    if not origin and {each.split for each in records} == {"train"}:
        divided = [dataclasses.replace(each, split=None) for each in records]
        return Found(divided, skipped, f"only {named} is there, so that {HELD_OUT_SHARE:.0%} of it are held out")
    return Found(records, skipped, origin or (f"the folders {named}" if folders else ""))


def _records_of(source, name, folder, unread):
    """The records of one file of metadata; keys that are not read are counted in `unread`."""
    try:
        content = source.read(name, MAX_LIST_BYTES).removeprefix(b"\xef\xbb\xbf")
    except UserError as error:
        raise UserError(f"--data_dir: {source.path}: {name} {error}") from None
    records = []
    rows = _json_rows(content) if name.lower().endswith(".jsonl") else _csv_rows(content)
    number = 0
    try:
        for number, values in rows:
            if len(records) == MAX_PICTURES:
                raise UserError(f"more than {MAX_PICTURES:,} pictures")
            records.append(_record(values() if callable(values) else values, f"{name} line {number}", folder, unread))
    except UserError as error:
        raise UserError(f"--data_dir: {source.path}: {name} line {number}: {error}") from None
    return records


def _json_rows(content):
    # Split at line feeds only: a caption may hold other line separators of Unicode.
    for number, line in enumerate(io.BytesIO(content), 1):
        if line.strip():
            yield number, functools.partial(_parse_json, line)


def _parse_json(line):
    if len(line) > MAX_CAPTIONS_BYTES:
        raise UserError(f"longer than {MAX_CAPTIONS_BYTES:,} bytes")
    try:
        values = _ONCE_EACH.decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError("not UTF-8") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError("not a JSON object")
    return values


def _unique(pairs):
    _refuse_twice([key for key, _ in pairs])
    return dict(pairs)


# Made once: a decoder with a function of one's own is otherwise made anew for each line.
_ONCE_EACH = json.JSONDecoder(object_pairs_hook=_unique)


def _refuse_twice(keys):
    counts = Counter(keys) if len(set(keys)) < len(keys) else {}
    for key, count in counts.items():
        if count > 1:
            raise UserError(f"{key[:100]} is given twice")


def _csv_rows(content):
    header = content.partition(b"\n")[0]
    if len(header) > MAX_HEADER_BYTES:
        raise UserError(f"its first line is longer than {MAX_HEADER_BYTES:,} bytes")
    delimiter = max((b",", b";", b"\t"), key=header.count).decode()
    # As a stream: whole, a text of other scripts takes eight times its bytes.
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        keys = next(reader, [])
        _refuse_twice(keys)
        for row in reader:
            if not row:
                continue
            if len(row) != len(keys):
                yield reader.line_num, functools.partial(_refuse_row, len(row), len(keys))
            yield reader.line_num, _csv_values(keys, row)
    except csv.Error as error:
        raise UserError(f"not CSV: {error}") from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8") from None


def _refuse_row(found, expected):
    raise UserError(f"{found} fields, and the first line names {expected}")


def _csv_values(keys, row):
    """A row's values by key: an empty cell says nothing, a label is a number, captions are a list in JSON."""
    said = ("caption", "text")
    values = {key: value for key, value in zip(keys, row, strict=True) if value or _known_key(key) in said}
    for key, value in values.items():
        known = _known_key(key)
        if known == "label" and re.fullmatch(r"-?\d{1,20}", value.strip()):
            values[key] = int(value)
        if known == "captions":
            values[key] = _parse_list(value)
    return values


def _parse_list(text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if text.strip().startswith("["):
            # As pandas writes a list.
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return ast.literal_eval(text.strip())
        return [text]


def _known_key(key):
    """A key of `KEYS` from one in other letters; None: it is none."""
    if key in KEYS:
        return key
    plain = key.strip().lower().replace("-", "_").replace(" ", "_")
    return plain if plain in KEYS else None


def _record(values, where, folder, unread):
    keys = [_known_key(key) or key for key in values]
    _refuse_twice(keys)
    others = [key for key in keys if key not in KEYS]
    values = dict(zip(keys, values.values(), strict=True))
    for key in others:
        if key.strip().lower() in SPLIT_KEYS and isinstance(values[key], str) and split_word(values[key]):
            raise UserError(f"{key!r} looks like the split; name the key split")
    captions = _captions(values)
    if captions is None and others:
        raise UserError(f"no caption, and unknown keys: {', '.join(others[:10])}; known are {', '.join(KEYS)}")
    if others:
        unread.update(others)
    file_name, label, split = values.get("file_name"), values.get("label"), values.get("split")
    class_name = values.get("class_name")
    if not isinstance(file_name, str):
        raise UserError("file_name is missing or not text")
    if label is not None and (type(label) is not int or not 0 <= label <= MAX_LABEL):
        told = repr(label)[:100]
        raise UserError(f"label is {told}, not a whole number from 0 to {MAX_LABEL:,}; class_name takes names")
    if class_name is not None and (not isinstance(class_name, str) or LONE_SURROGATE.search(class_name)):
        raise UserError("class_name is not text")
    if split is not None:
        found = split_word(split) if isinstance(split, str) else None
        if found is None:
            raise UserError(f"split is {split!r}, none of {', '.join(SPLITS)}")
        split = found
    file_name = safe_name(file_name) if folder == "." else f"{folder}/{safe_name(file_name)}"
    return Record(where, file_name, captions or (), label, class_name, split)


def _captions(values):
    """The captions of a line; None where it has no key for them."""
    given = [key for key in ("caption", "captions", "text") if key in values]
    if len(given) > 1:
        raise UserError(f"has both {' and '.join(given)}")
    if not given:
        return None
    captions = values[given[0]]
    if given[0] == "captions" and not isinstance(captions, list):
        raise UserError("captions is not a list")
    if not isinstance(captions, list) or given[0] == "caption":
        captions = [captions]
    captions = tuple("" if caption is None else caption for caption in captions)
    if len(captions) > MAX_CAPTIONS:
        raise UserError(f"{len(captions):,} captions, more than the {MAX_CAPTIONS:,} of a picture")
    if not all(isinstance(caption, str) for caption in captions):
        raise UserError("a caption is not text")
    return captions


def _from_text_files(source, names):
    known = {str(PurePosixPath(name)): name for name in names}
    shown = [PurePosixPath(name) for name in known if not ASIDES.fullmatch(PurePosixPath(name).name)]
    texts = {path for path in shown if path.suffix.lower() in TEXT_SUFFIXES}
    paths = [path for path in shown if _is_picture(path)]
    captions_of = {path: _text_file(path, texts) for path in paths}
    used = set(captions_of.values())
    others = [path for path in shown if path not in texts and not _is_picture(path)]
    skipped = []
    for path in others:
        used.add(_text_file(path, texts))
        skipped.append((str(path), f"is no picture: {path.suffix or 'without an ending'}"))
    skipped += [(str(path), "is a caption without its picture") for path in sorted(texts - used)]
    splits = [split_of_folders(str(path)) for path in paths]
    folders = [[part for part in path.parts[:-1] if not is_split(part)] for path in paths]
    records = []
    for path, split, parts in zip(paths, splits, folders, strict=True):
        captions = _lines(source, known[str(captions_of[path])]) if captions_of[path] else ()
        class_name = parts[-1] if all(folders) else None
        records.append(Record(str(path), known[str(path)], captions, class_name=class_name, split=split))
    return _found(records, skipped, "")


def _is_picture(name):
    return posixpath.splitext(name)[1].lower() in picture_suffixes()


def _text_file(path, texts):
    """The file of a picture's captions, `rose.txt` or `rose.jpg.txt` of `rose.jpg`; None: there is none."""
    for name in (path.stem, path.name):
        for suffix in TEXT_SUFFIXES:
            for written in (suffix, suffix.upper()):
                if path.with_name(name + written) in texts:
                    return path.with_name(name + written)
    return None


def _lines(source, name):
    try:
        content = source.read(name, MAX_CAPTIONS_BYTES)
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


def _divided(found, source):
    """{split: its file names}, and where that comes from."""
    records = found.records
    every = [record.file_name for record in records]
    alike = source.same_content(every)
    if _given(records, "split"):
        members = {name: frozenset(record.file_name for record in records if record.split == name) for name in SPLITS}
        _tell_copies(source, alike, members)
        return members, found.splits_from
    groups = joined(every, [*alike, *copies_by_name(every, HELD_OUT_SHARE)])
    test = held_out_groups(groups, HELD_OUT_SHARE)
    origin = found.splits_from or f"no split is given, so that {HELD_OUT_SHARE:.0%} are held out"
    copies = sum(len(group) - 1 for group in groups)
    if copies and len(groups) > 1:
        example = next(sorted(group) for group in groups if len(group) > 1)
        _tell(
            f"{source.path}: {copies} pictures are copies of others, by their bytes or their names, such as "
            f"{example[1]} of {example[0]}; copies stay on one side of the hold-out"
        )
    elif copies:
        _tell(f"{source.path}: all {len(every)} pictures are copies of one, also those that are held out")
    return {"train": frozenset(every) - test, "validation": frozenset(), "test": test}, f"{origin} by their names"


def _chosen(index, split):
    """The split that is read, its file names, and where that comes from."""
    members, origin = index.members, index.origin
    if split == "test" and not members["test"] and members["validation"]:
        split = "validation"
        origin += "; there is no test split, so that validation stands in"
    if not members[split]:
        there = ", ".join(name for name in SPLITS if members[name])
        advice = "; leave every split out to have some held out" if index.found.splits_from else ""
        raise UserError(f"--dataset: image_folder has no {split} pictures in --data_dir; it has {there}{advice}")
    return split, members[split], origin


def _tell_copies(source, alike, members):
    """Says how many pictures come more than once, and how many of those in two splits."""
    side = {file_name: split for split, names in members.items() for file_name in names}
    across = [group for group in alike if len({side[file_name] for file_name in group}) > 1]
    if across:
        first = across[0][0]
        other = next(name for name in across[0] if side[name] != side[first])
        _tell(
            f"{source.path}: {len(across)} pictures lie in two splits with the same bytes, such as {first} and {other}"
            "; what is held out should not have been seen"
        )
    elif alike:
        copies, (first, other) = sum(len(group) - 1 for group in alike), alike[0][:2]
        _tell(f"{source.path}: {copies} pictures have the same bytes as others, such as {other} and {first}")


@functools.lru_cache(maxsize=64)
def _tell(line):
    """Warns, once: a set is read more than once a run."""
    logging.warning("%s", line)
