"""The data sets by name: what `--dataset` may say."""

import importlib
import os

from t2i_kd.errors import UserError

# Name of the data set -> module with load(split, resolution, data_dir, max_bad_examples).
READERS = {
    "image_folder": "t2i_kd.data.image_folder",
    "cub200": "t2i_kd.data.cub200",
    "oxford_flowers102": "t2i_kd.data.oxford_flowers102",
    "noto_emoji": "t2i_kd.data.noto_emoji",
}
DATASETS = ("captioned_shapes", *READERS)
SPLITS = ("train", "validation", "test")


def load_dataset(name, split, resolution, data_dir="", max_bad_examples=0):
    """A split of a data set.

    Args:
        name: one of `DATASETS`; each reader's module says what `data_dir` holds.
        split: `train`, `validation` (not every set has one) or `test`.
        resolution: side of the pictures in pixels.
        data_dir: folder or archive of the data set; `captioned_shapes` needs none.
        max_bad_examples: broken pictures and bad captions to leave out before stopping.

    Returns:
        `CaptionedImages`, its pictures uint8 RGB [resolution, resolution, 3].

    Raises:
        UserError: naming --dataset, --data_dir, --resolution or --max_bad_examples.
    """
    if name not in DATASETS:
        raise UserError(f"--dataset: {name!r} is none of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise UserError(f"--dataset: {name} has no split {split!r}; splits are {', '.join(SPLITS)}")
    if resolution < 1:
        raise UserError(f"--resolution: {resolution} is not a positive number of pixels")
    if max_bad_examples < 0:
        raise UserError(f"--max_bad_examples: {max_bad_examples} is negative")
    dataset = _load(name, split, resolution, data_dir, max_bad_examples)
    if not len(dataset):
        raise UserError(f"--data_dir: {dataset.name} in {data_dir or 'no folder'} is empty: no picture with a caption")
    return dataset


def _load(name, split, resolution, data_dir, max_bad_examples):
    if name == "captioned_shapes":
        return importlib.import_module("t2i_kd.data.captioned_shapes").load(split, resolution)
    if not data_dir:
        raise UserError(f"--data_dir: missing; --dataset={name} needs its folder or archive")
    path = os.path.expanduser(data_dir)
    if not os.path.exists(path):
        raise UserError(f"--data_dir: {data_dir} does not exist")
    return importlib.import_module(READERS[name]).load(split, resolution, path, max_bad_examples)
