"""A data set from arrays in memory, for whoever works in Python."""

import functools
import hashlib
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from t2i_kd.data.captioned_images import CaptionedImages, check_caption
from t2i_kd.data.decoding import centred_square
from t2i_kd.errors import UserError
from t2i_kd.imaging import to_uint8


def from_arrays(
    images, captions, test_images, test_captions, labels=None, test_labels=None, label_names=None, name="arrays"
):
    """A data set of two splits, `train` and `test`, that `load_dataset` takes in place of a name.

    Pictures are cut to their centred square and resized as those from files are. uint8 arrays are not copied: who
    changes them afterwards changes the data set, too.

    Args:
        images: the training pictures, RGB in 0-255, uint8 or float (see `to_uint8`): an array [n, height, width, 3], or
            a list of n arrays [height, width, 3] of any sizes.
        captions: for each of them a caption, or a list of at least one.
        test_images, test_captions: the same, held out of training.
        labels: whole numbers [n], each picture's class, 0 or more; None: all pictures are one class.
        test_labels: the same for the test pictures; needed where `labels` are given.
        label_names: the classes' names, by label; None: their numbers.
        name: what reports call the set.

    Returns:
        `ArrayDataset`.

    Raises:
        UserError: naming the argument that is wrong, and where it can be said its item.
    """
    if (labels is None) != (test_labels is None):
        raise UserError("test_labels: the pictures of one split have labels, those of the other have none")
    if labels is None and label_names is not None:
        raise UserError("label_names: there are no labels")
    splits = {
        "train": _split("", images, captions, labels),
        "test": _split("test_", test_images, test_captions, test_labels),
    }
    largest = max(int(split.labels.max()) for split in splits.values())
    if label_names is None:
        label_names = ["picture"] if labels is None else [str(label) for label in range(largest + 1)]
    if largest >= len(label_names):
        raise UserError(f"label_names: {len(label_names)} names, and there is a label {largest}")
    return ArrayDataset(str(name), splits, tuple(map(str, label_names)))


@dataclass(frozen=True)
class Split:
    """One split as it was given: uint8 pictures [height, width, 3], captions, and int32 labels."""

    images: tuple[np.ndarray, ...]
    captions: tuple[tuple[str, ...], ...]
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """A data set in memory; `load` is the one method that a data set's module has.

    Attributes:
        name: what reports call it.
        splits: {"train" or "test": `Split`}.
        label_names: the classes' names, by label.
    """

    name: str
    splits: dict[str, Split]
    label_names: tuple[str, ...]

    def load(self, split, resolution):
        """The pictures of `train` or `test` at a resolution, as `CaptionedImages`. Raises `UserError` for another."""
        if split not in self.splits:
            raise UserError(f"--dataset: {self.name} has no {split} split, only {' and '.join(self.splits)}")
        found = self.splits[split]
        images = np.stack([centred_square(Image.fromarray(image), resolution) for image in found.images])
        images.flags.writeable = False
        return CaptionedImages(f"{self.name}/{split}", images, found.captions, found.labels, self.label_names)

    @functools.cached_property
    def digest(self):
        """SHA-256, in hexadecimal, over every split's pictures, captions and labels and the labels' names."""
        sha256 = hashlib.sha256(json.dumps(self.label_names).encode())
        for name, split in self.splits.items():
            described = [name, [image.shape for image in split.images], split.captions, split.labels.tolist()]
            sha256.update(json.dumps(described).encode())
            for image in split.images:
                sha256.update(np.ascontiguousarray(image))
        return sha256.hexdigest()


def _split(prefix, images, captions, labels):
    """The arguments of one split, checked; their names begin with `prefix`."""
    pictures = tuple(_picture(f"{prefix}images[{index}]", image) for index, image in enumerate(images))
    if not pictures:
        raise UserError(f"{prefix}images: empty")
    if len(captions) != len(pictures):
        raise UserError(f"{prefix}captions: {len(captions)} for {len(pictures)} pictures")
    texts = tuple(_captions(f"{prefix}captions[{index}]", given) for index, given in enumerate(captions))
    return Split(pictures, texts, _labels(f"{prefix}labels", labels, len(pictures)))


def _picture(where, image):
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(f"{where}: an array of shape {image.shape}, not [height, width, 3]")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise UserError(f"{where}: {image.dtype}, neither uint8 nor float")
    return to_uint8(image)


def _captions(where, given):
    listed = [given] if isinstance(given, str) else list(given)
    if not listed:
        raise UserError(f"{where}: empty")
    for caption in listed:
        if not isinstance(caption, str):
            raise UserError(f"{where}: {caption!r} is not text")
    try:
        return tuple(map(check_caption, listed))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _labels(where, labels, count):
    if labels is None:
        return np.zeros(count, np.int32)
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise UserError(f"{where}: shape {labels.shape} for {count} pictures")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise UserError(f"{where}: not whole numbers of 0 and more")
    return labels.astype(np.int32)
