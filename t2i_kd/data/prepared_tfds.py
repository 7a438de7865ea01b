"""The pictures of a TensorFlow Datasets set: downloaded, prepared and read by TFDS."""

import functools
import importlib.util
from pathlib import PurePosixPath

from t2i_kd.errors import UserError


def is_installed():
    """Whether TFDS is here, and TensorFlow, without which it cannot be imported."""
    return all(importlib.util.find_spec(package) for package in ("tensorflow", "tensorflow_datasets"))


def prepared_pictures(name, folder, file_name_feature, hint, wanted):
    """The pictures of all splits, put together.

    Args:
        name: the set's name in TFDS; it has a feature `image`.
        folder: TFDS's data_dir; the set is downloaded there where it is missing.
        file_name_feature: the feature that holds a picture's file name.
        hint: what else can be done, for the error where the set cannot be downloaded.
        wanted: says of a file's name, without folders and suffix, whether the picture is read.

    Yields:
        (the file's name without folders and suffix, a function that gives the encoded picture).

    Raises:
        UserError: where the set is missing and cannot be downloaded, is not TFRecord, or is damaged.
    """
    builder = _prepared(name, folder, hint)
    for split in sorted(builder.info.splits):
        for row in _rows(builder, split):
            file_name = PurePosixPath(row[file_name_feature].decode("utf-8"))
            if wanted(file_name.stem):
                yield file_name.stem, functools.partial(bytes, row["image"])


def split_pictures(name, folder, split, hint):
    """The encoded pictures of one split, a list in the order of its files.

    Args and errors: as of `prepared_pictures`; and for a machine without TFDS.
    """
    if not is_installed():
        raise UserError(f"--data_dir: {name} is read by TensorFlow Datasets, which is not installed; {hint}")
    return [bytes(row["image"]) for row in _rows(_prepared(name, folder, hint), split)]


def _rows(builder, split):
    """The rows of a split, their images encoded."""
    import tensorflow_datasets as tfds

    images = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    encoded = {key: tfds.decode.SkipDecoding() for key in images}
    rows = builder.as_dataset(split=split, decoders=encoded, read_config=tfds.ReadConfig(try_autocache=False))
    try:
        yield from tfds.as_numpy(rows)
    except Exception as error:  # TensorFlow raises its own kinds on missing and damaged files.
        raise UserError(f"--data_dir: {builder.data_dir} cannot be read: {_first_line(error)}") from None


def _prepared(name, folder, hint):
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=folder)
        builder.download_and_prepare()
    except Exception as error:  # Network, disk and missing packages: each library raises its own kind.
        raise UserError(
            f"--data_dir: {name} of TensorFlow Datasets is not in {folder} and could not be downloaded "
            f"({_first_line(error)}); {hint}"
        ) from None
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(f"--data_dir: {builder.data_dir} is prepared as {builder.info.file_format.value}, not tfrecord")
    return builder


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
