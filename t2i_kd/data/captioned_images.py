"""What every data set is to the rest of the project: pictures with captions, reachable by index; what a caption is."""

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from t2i_kd.errors import UserError

MAX_CAPTION_CHARACTERS = 2000
# So many classes are counted each.
FEW_CLASSES = 12


@dataclass(frozen=True)
class CaptionedImages:
    """A captioned set of images.

    Attributes:
        name: `DATASET/SPLIT`.
        images: `images[i]` is the i-th picture, uint8 RGB [resolution, resolution, 3] in 0-255: an array, or a
            reader that decodes on demand.
        captions: for each picture its captions, at least one, none empty.
        labels: int32 [n], each picture's class.
        label_names: the classes' names, by label.
        attributes: for each picture what is in it, by the attribute's name (`captioned_shapes`); else empty.
        file_names: each picture's path inside the set, where it came from a file; else empty.
        digests: the SHA-256 of each picture's file, where the files were read; else empty.
        origin: where the set's splits come from, a clause for people; empty where the set has fixed ones.
        left_out: the bad pictures and captions that are not in the set, each a name with its reason.
    """

    name: str
    images: Sequence
    captions: tuple[tuple[str, ...], ...]
    labels: np.ndarray
    label_names: tuple[str, ...]
    attributes: tuple[dict[str, str], ...] = field(default=())
    file_names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    origin: str = ""
    left_out: tuple[str, ...] = ()

    def __len__(self):
        return len(self.captions)

    def described(self):
        """(name, what it is) of every picture, what it is a list of JSON values with the picture's digest first."""
        names = self.file_names or [str(index) for index in getattr(self.images, "indices", range(len(self)))]
        pictures = self.digests or (digest_of(image) for image in self.images)
        for name, picture, captions, label in zip(names, pictures, self.captions, self.labels, strict=True):
            yield name, [picture, captions, self.label_names[label], int(label)]

    def named(self):
        """What is known of a set without its pictures, as JSON values."""
        return [self.file_names, self.captions, self.labels.tolist(), list(self.label_names)]

    @property
    def all_captions(self):
        """Every caption of every picture, in order."""
        return [caption for captions in self.captions for caption in captions]


def digest_of(*arrays):
    """SHA-256, in hexadecimal, over arrays' shapes, dtypes and values."""
    sha256 = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        sha256.update(f"{array.shape}{array.dtype}".encode())
        sha256.update(array)
    return sha256.hexdigest()


class Chosen(Sequence):
    """Some of a reader's pictures, in any order, as often as asked for.

    Attributes:
        indices: theirs in the reader.
    """

    def __init__(self, images, indices):
        self._images, self.indices = images, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self._images[self.indices[operator.index(index)]]

    def many(self, indices):
        """See `many`."""
        return many(self._images, [self.indices[index] for index in indices])


def many(images, indices):
    """The pictures of some indices, a list; a reader that decodes on demand decodes them at once, on all cores."""
    indices = [operator.index(index) for index in indices]
    return images.many(indices) if hasattr(images, "many") else [images[index] for index in indices]


def split_lines(dataset):
    """What is told of a split: its size, its classes and where it comes from, each a line."""
    lines = [f"{dataset.name}: {len(dataset):,} images"]
    counts = np.bincount(dataset.labels, minlength=len(dataset.label_names))
    if 1 < len(counts) <= FEW_CLASSES:
        lines.append(
            "  classes: " + ", ".join(f"{name} {n:,}" for name, n in zip(dataset.label_names, counts, strict=True))
        )
    elif len(counts) > 1:
        there = counts[counts > 0]
        lines.append(f"  {len(there):,} of {len(counts):,} classes, each of {there.min():,} to {there.max():,} images")
    return lines + [f"  split: {dataset.origin}"] * bool(dataset.origin)


def check_caption(caption):
    """A user's caption, if it is one.

    Args:
        caption: str, or bytes in UTF-8.

    Returns:
        The caption as str, unchanged.

    Raises:
        UserError: when it is empty or blank, not UTF-8, or longer than 2,000 characters.
    """
    try:
        text = caption.decode("utf-8") if isinstance(caption, bytes) else caption
        text.encode("utf-8")
    except UnicodeError:
        raise UserError("caption: not UTF-8 text") from None
    if not text.strip():
        raise UserError("caption: empty")
    if len(text) > MAX_CAPTION_CHARACTERS:
        raise UserError(f"caption: {len(text)} characters, more than the {MAX_CAPTION_CHARACTERS} allowed")
    return text
