"""The data sets by name: what `--dataset` may say."""

import importlib
import inspect
import os

from t2i_kd import plugins
from t2i_kd.data import cycle_gan
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.data.image_pairs import ImagePairs
from t2i_kd.errors import UserError

# Name of the data set -> its module.
READERS = {
    "captioned_shapes": "t2i_kd.data.captioned_shapes",
    "image_folder": "t2i_kd.data.image_folder",
    "cub200": "t2i_kd.data.cub200",
    "oxford_flowers102": "t2i_kd.data.oxford_flowers102",
    "noto_emoji": "t2i_kd.data.noto_emoji",
    "paired_folder": "t2i_kd.data.paired_folder",
    "unpaired_folder": "t2i_kd.data.unpaired_folder",
    "shards": "t2i_kd.data.shards",
}
DATASETS = (*READERS, *cycle_gan.SETS)
WITHOUT_FILES = ("captioned_shapes", "noto_emoji")
SPLITS = ("train", "validation", "test")
# What the systems read.
KINDS = {CaptionedImages: "captioned images", ImagePairs: "pictures of two sides, A and B"}


def find_dataset(name):
    """What reads a data set: it has one function, `load(split, resolution, ...)`, that returns one of `KINDS`.

    Args:
        name: one of `DATASETS`, or a module on the path by its dotted name.

    Raises:
        UserError: naming --dataset, where there is no such data set.
    """
    if name in READERS:
        return importlib.import_module(READERS[name])
    if name in cycle_gan.SETS:
        return cycle_gan.SETS[name]
    if not plugins.is_dotted(name):
        raise UserError(f"--dataset: {name!r} is none of {', '.join(DATASETS)}, nor a dotted module such as my.data")
    module = plugins.import_module(name, "dataset")
    (load,) = plugins.members(module, "dataset", "load")
    if not callable(load):
        raise UserError(f"--dataset: {name}.load is {type(load).__name__}, not a function")
    return module


def load_dataset(
    dataset,
    split,
    resolution,
    data_dir="",
    max_bad_examples=0,
    decode=True,
    kinds=(CaptionedImages,),
    cache_dir=None,
):
    """A split of a data set.

    Args:
        dataset: a name that `find_dataset` knows, each module says what `data_dir` holds; or an object with a `name`
            and the same method `load`, such as `t2i_kd.data.from_arrays` makes.
        split: `train`, `validation` (not every set has one) or `test`.
        resolution: side of the pictures in pixels.
        data_dir: folder or archive of the data set; `WITHOUT_FILES` need none.
        max_bad_examples: broken pictures and bad captions to leave out before stopping.
        decode: whether every picture is decoded now; otherwise a reader of files decodes it at each use, and one that
            cannot be decoded raises `UserError` then.
        kinds: which of `KINDS` the caller reads.
        cache_dir: the folder that keeps what is found of files, so that a later call does not read those again that
            have not changed; None or empty: nothing is kept.

    Of `data_dir`, `max_bad_examples`, `decode` and `cache_dir`, a `load` gets those that its signature takes.

    Returns:
        One of `kinds`, its pictures uint8 RGB [resolution, resolution, 3].

    Raises:
        UserError: naming --dataset, --data_dir, --resolution or --max_bad_examples.
    """
    name = dataset if isinstance(dataset, str) else dataset.name
    reader = find_dataset(dataset) if isinstance(dataset, str) else dataset
    if split not in SPLITS:
        raise UserError(f"--dataset: {name} has no split {split!r}; splits are {', '.join(SPLITS)}")
    if resolution < 1:
        raise UserError(f"--resolution: {resolution} is not a positive number of pixels")
    if max_bad_examples < 0:
        raise UserError(f"--max_bad_examples: {max_bad_examples} is negative")
    path = _folder(dataset, data_dir)
    options = {"data_dir": path, "max_bad_examples": max_bad_examples, "decode": decode, "cache_dir": cache_dir}
    loaded = reader.load(split, resolution, **_taken(reader.load, options))
    _check_kind(name, loaded, kinds)
    if not len(loaded):
        raise UserError(f"--data_dir: {loaded.name} in {data_dir or 'no folder'} is empty: no picture with a caption")
    return loaded


def _check_kind(name, loaded, kinds):
    """Raises `UserError` unless a data set is one of the kinds that a caller reads."""
    if isinstance(loaded, tuple(KINDS)) and not isinstance(loaded, kinds):
        wanted = " or ".join(KINDS[kind] for kind in kinds)
        raise UserError(f"--dataset: {name} holds {KINDS[type(loaded)]}; what is asked for reads {wanted}")
    if not isinstance(loaded, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise UserError(f"--dataset: {name}.load returns {type(loaded).__name__}, not {wanted}")


def _folder(dataset, data_dir):
    """Where the data set lies; a reader of this package needs it to be there, another one says itself what it needs."""
    path = os.path.expanduser(data_dir)
    needs = getattr(find_dataset(dataset), "NEEDS", "") if dataset in DATASETS else ""
    if needs and not data_dir and dataset not in WITHOUT_FILES:
        raise UserError(f"--data_dir: missing; --dataset={dataset} needs {needs}")
    if needs and data_dir and not os.path.exists(path):
        raise UserError(f"--data_dir: {data_dir} does not exist; --dataset={dataset} needs {needs}")
    return path


def _taken(function, options):
    """The options that a function's signature takes."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return options
    return {name: value for name, value in options.items() if name in parameters}
