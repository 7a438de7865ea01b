"""The labelled pictures of a TensorFlow Datasets set: downloaded, prepared and read by TFDS, or read without it.

TFDS 4.9.10 cannot be imported on a host without TensorFlow. There, a set that was prepared elsewhere is read by the
few lines below: TFRecord files of `tf.train.Example` messages, in TFDS's own folder layout NAME/VERSION/.
"""

import importlib.util
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from t2i_kd.errors import UserError


@dataclass(frozen=True)
class PreparedSet:
    """A prepared set: the names of its labels, and `records()`, its (file name, label, encoded picture)."""

    label_names: list[str]
    records: Callable[[], Iterator[tuple[str, int, bytes]]]


def open_prepared(name, folder, file_name_feature):
    """All splits of a set, put together.

    Args:
        name: the set's name in TFDS; it has features `image` and `label`.
        folder: TFDS's data_dir; the set is downloaded there, if it is missing and TensorFlow is installed.
        file_name_feature: the feature that holds a picture's file name.

    Raises:
        UserError: that says how to prepare the set, where it is missing and cannot be downloaded, or is not TFRecord.
    """
    needed = ("tensorflow", "tensorflow_datasets")
    if all(importlib.util.find_spec(package) for package in needed):
        return _open_with_tfds(name, Path(folder), file_name_feature)
    return _open_without_tfds(name, Path(folder), file_name_feature)


def _missing(name, folder, reason):
    return UserError(
        f"--data_dir: the pictures of {name} are not in {folder} and could not be downloaded ({reason}); run "
        f"`tfds build {name} --data_dir={folder}` where there are a network and TensorFlow, and copy the folder"
    )


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _open_with_tfds(name, folder, file_name_feature):
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=folder)
        builder.download_and_prepare()
    except Exception as error:  # Network, disk and missing packages: each library raises its own kind.
        raise _missing(name, folder, _first_line(error)) from None
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(f"--data_dir: {builder.data_dir} is prepared as {builder.info.file_format.value}, not tfrecord")
    images = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    encoded = {key: tfds.decode.SkipDecoding() for key in images}

    def records():
        for split in sorted(builder.info.splits):
            # One file after the other: the order that the reader without TFDS has.
            in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
            try:
                rows = builder.as_dataset(split=split, decoders=encoded, shuffle_files=False, read_config=in_order)
                for row in tfds.as_numpy(rows):
                    yield row[file_name_feature].decode("utf-8"), int(row["label"]), row["image"]
            except Exception as error:  # TensorFlow raises its own kinds on missing and damaged files.
                raise UserError(f"--data_dir: {builder.data_dir} cannot be read: {_first_line(error)}") from None

    return PreparedSet(list(builder.info.features["label"].names), records)


def _open_without_tfds(name, folder, file_name_feature):
    versions = [path.parent for path in (folder / name).glob("*/dataset_info.json")]
    if not versions:
        raise _missing(name, folder, "TensorFlow and tensorflow-datasets are not installed")
    version = max(versions, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()])
    files = sorted(version.glob(f"{name}-*.tfrecord-*"))
    if not files:
        raise UserError(f"--data_dir: {version} holds no .tfrecord files")

    def records():
        for path in files:
            for message in read_tfrecord(path):
                try:
                    row = parse_example(message)
                    record = row[file_name_feature].decode("utf-8"), row["label"], row["image"]
                except (LookupError, ValueError, TypeError, AttributeError):
                    raise UserError(f"--data_dir: {path} is damaged: a record is not a labelled picture") from None
                yield record

    labels = version / "label.labels.txt"
    names = labels.read_text("utf-8").splitlines() if labels.is_file() else []
    return PreparedSet(names, records)


def read_tfrecord(path):
    """The records of a TFRecord file, each bytes. Checksums are not checked: a damaged picture fails to decode.

    Raises:
        UserError: naming the file, where it ends within a record.
    """
    with open(path, "rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            # Not more than a picture is ever read, whatever a damaged length says.
            record = file.read(length) if 0 <= length < 2**31 else b""
            if len(record) != length or len(file.read(4)) != 4:
                raise UserError(f"--data_dir: {path} is damaged: it ends within a record")
            yield record


def parse_example(message):
    """The features of a serialized `tf.train.Example` that hold one value of bytes or int64, by name.

    Example, Features and the map's entries nest as field 1 (the entry's key 1, its value 2); a Feature holds its list
    in field 1 (bytes) or 3 (int64), and a list its values in field 1.
    """
    values = {}
    for _, features in _fields(message):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            for kind, content in _fields(parts.get(2, b"")):
                listed = [value for _, value in _fields(content)]
                if kind == 3 and listed and isinstance(listed[0], bytes):
                    listed = [_varint(listed[0], 0)[0]]
                if kind in (1, 3) and listed:
                    values[parts[1].decode("utf-8")] = listed[0]
    return values


def _fields(message):
    """The (field number, value) pairs of a protocol buffer's message: int for a varint, else bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
        else:
            length, position = _varint(message, position) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], position)
            value, position = message[position : position + length], position + length
        yield number, value


def _varint(message, position):
    value = shift = 0
    while message[position] & 0x80:
        value |= (message[position] & 0x7F) << shift
        position, shift = position + 1, shift + 7
    return value | message[position] << shift, position + 1
