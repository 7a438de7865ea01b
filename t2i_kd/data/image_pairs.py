"""Pictures of two sides, A and B, paired or not: what image-to-image systems learn from."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from absl import logging
from PIL import Image

from t2i_kd.data.captioned_images import digest_of
from t2i_kd.data.decoding import centred_square
from t2i_kd.data.examples import Found, Pictures, Progress, checked, held_pictures, report_bad
from t2i_kd.data.sources import open_source
from t2i_kd.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# The folders of a split, by what they begin with.
FOLDERS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}


# Which side is read and which is made.
DIRECTIONS = ("AtoB", "BtoA")


@dataclass(frozen=True)
class ImagePairs:
    """Pictures of two sides.

    Attributes:
        name: `DATASET/SPLIT`.
        first, second: A's and B's pictures, each uint8 RGB [resolution, resolution, 3] by its index. B may be empty.
        paired: whether the i-th of A belongs to the i-th of B.
        first_names, second_names: where they came from.
        first_digests, second_digests: SHA-256 of their files, where they were read; else empty.
    """

    name: str
    first: Sequence
    second: Sequence
    paired: bool
    first_names: tuple[str, ...] = ()
    second_names: tuple[str, ...] = ()
    first_digests: tuple[str, ...] = ()
    second_digests: tuple[str, ...] = ()

    def described(self):
        """(name, what it is) of every picture, what it is a list of JSON values with the picture's digest first."""
        sides = {
            "A": (self.first, self.first_names, self.first_digests),
            "B": (self.second, self.second_names, self.second_digests),
        }
        for side, (images, names, digests) in sides.items():
            for index in range(len(images)):
                name = names[index] if names else str(index)
                yield f"{side}/{name}", [digests[index] if digests else digest_of(images[index]), self.paired]

    def named(self):
        """What is known of a set without its pictures, as JSON values."""
        return [self.first_names, self.second_names, len(self.first), len(self.second), self.paired]

    def __len__(self):
        """How many examples an epoch has: of the larger side."""
        return max(len(self.first), len(self.second))

    def turned(self, direction):
        """(sources, targets) of one of `DIRECTIONS`."""
        return (self.first, self.second) if direction == DIRECTIONS[0] else (self.second, self.first)


@dataclass(frozen=True)
class Side:
    """One picture of a side, unread.

    Attributes:
        name: names it in reports.
        read: gives the encoded picture, or raises `UserError` with the reason.
        cut: from the picture, a `PIL.Image`, to the part of it that is meant.
    """

    name: str
    read: Callable[[], bytes]
    cut: Callable

    def picture(self, encoded, resolution):
        """Of what `read` gives, uint8 RGB [resolution, resolution, 3]. Raises `UserError` with the reason."""
        return centred_square(self.cut(encoded), resolution)


def collect_pairs(name, first, second, resolution, max_bad_examples=0, decode=True):
    """`ImagePairs` of paired `Side`s; a pair of which one cannot be decoded is left out whole, counted and named.

    Args and errors as of `t2i_kd.data.examples.collect`.
    """
    bad, kept, progress = [], ([], []), Progress(name, len(first))
    room = held_pictures(resolution) // 2 if decode else 0
    found = _checked(itertools.chain.from_iterable(zip(first, second, strict=True)), resolution, decode)
    # Twice the same iterator: its next two are a pair.
    for pair in zip(found, found, strict=True):
        bad.extend(f"{unread.name} {each.wrong}" for unread, each in pair if each.wrong)
        if not any(each.wrong for _, each in pair):
            for side, (unread, each) in zip(kept, pair, strict=True):
                side.append(_within(room, side, unread, each))
        progress.advance()
    # A picture side by side would be counted twice.
    report_bad(name, list(dict.fromkeys(bad)), max_bad_examples)
    return _pairs(name, kept, resolution, room, paired=True)


def collect_sides(name, first, second, resolution, max_bad_examples=0, decode=True):
    """`ImagePairs` of `Side`s that do not belong together; one that cannot be decoded is left out, counted and named.

    Args and errors as of `t2i_kd.data.examples.collect`.
    """
    bad, kept, progress = [], ([], []), Progress(name, len(first) + len(second))
    room = held_pictures(resolution) // 2 if decode else 0
    for side, unread in zip(kept, (first, second), strict=True):
        for each, found in _checked(unread, resolution, decode):
            if found.wrong:
                bad.append(f"{each.name} {found.wrong}")
            else:
                side.append(_within(room, side, each, found))
            progress.advance()
    report_bad(name, bad, max_bad_examples)
    return _pairs(name, kept, resolution, room, paired=False)


def _checked(sides, resolution, decode):
    return checked(sides, resolution) if decode else ((side, Found()) for side in sides)


def _within(room, side, unread, found):
    """What a side keeps of its next picture: beyond the room the picture itself is read again at each use."""
    return unread, found if len(side) < room else dataclasses.replace(found, picture=None)


def _pairs(name, kept, resolution, room, paired):
    pictures = []
    for side in kept:
        held = {index: found.picture for index, (_, found) in enumerate(side) if found.picture is not None}
        pictures.append(Pictures([unread for unread, _ in side], resolution, held, room))
    names = [tuple(unread.name for unread, _ in side) for side in kept]
    digests = [tuple(found.sha256 for _, found in side if found.sha256) for side in kept]
    return ImagePairs(name, *pictures, paired, *names, *digests)


class Folders:
    """The pictures of the folders that a layout knows, in a folder or a .zip; a .zip may hold one folder around them.

    Args:
        path: of the folder or .zip.
        known: names of folders, such as `trainA` or `A/train`.
        cache_dir: as of `open_source`.

    Raises:
        UserError: naming --data_dir, where the path is neither.
    """

    def __init__(self, path, known, cache_dir=None):
        # A picture of two halves may be whole and no pair.
        self.source = open_source(path, cache_dir, "pairs")
        names = self.source.names()
        tops = {PurePosixPath(name).parts[0] for name in names if "/" in name}
        self._prefix = ""
        if len(tops) == 1 and not any(name.startswith(f"{folder}/") for name in names for folder in known):
            self._prefix = f"{tops.pop()}/"
        inside = [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]
        self._files = {folder: [name for name in inside if name.startswith(f"{folder}/")] for folder in known}

    def pictures(self, folder):
        """The names of a folder's pictures, sorted; what else lies there is counted in a warning."""
        files = self._files.get(folder, [])
        found = [name for name in files if PurePosixPath(name).suffix.lower() in SUFFIXES]
        if len(found) < len(files):
            other = next(name for name in files if name not in found)
            logging.warning(
                "%s: %d files are no pictures and left out, such as %s", folder, len(files) - len(found), other
            )
        return found

    def file(self, name):
        """A picture's file, unread: `SourceFile`."""
        return self.source.file(self._prefix + name)


def from_image_pairs(first, second, test_first, test_second, paired=True, name="arrays"):
    """A data set of two sides from arrays in memory, which an image-to-image system takes in place of a name.

    Args:
        first, second: A's and B's training pictures, lists of uint8 RGB arrays [height, width, 3] of any sizes; they
            are cut to their centred square and resized as those from files are.
        test_first, test_second: the same, held out of training.
        paired: whether the i-th of A belongs to the i-th of B.
        name: what reports call the set.

    Returns:
        `PairArrays`.

    Raises:
        UserError: naming the argument that is wrong.
    """
    given = {"first": first, "second": second, "test_first": test_first, "test_second": test_second}
    for argument, images in given.items():
        for index, image in enumerate(images):
            image = np.asarray(image)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise UserError(f"{argument}[{index}]: {image.dtype} {image.shape}, not uint8 [height, width, 3]")
    if paired and (len(first) != len(second) or len(test_first) != len(test_second)):
        raise UserError("second: pairs have as many pictures on each side")
    return PairArrays(str(name), {"train": (first, second), "test": (test_first, test_second)}, paired)


@dataclass(frozen=True, eq=False)
class PairArrays:
    """A data set in memory; `load` is the one method that a data set's module has. See `from_image_pairs`."""

    name: str
    splits: dict
    paired: bool

    def load(self, split, resolution):
        """The pictures of `train` or `test` at a resolution, as `ImagePairs`. Raises `UserError` for another."""
        if split not in self.splits:
            raise UserError(f"--dataset: {self.name} has no {split} split, only {' and '.join(self.splits)}")
        sides = [
            [centred_square(Image.fromarray(np.asarray(image)), resolution) for image in side]
            for side in self.splits[split]
        ]
        return ImagePairs(f"{self.name}/{split}", *sides, self.paired)

    @property
    def digest(self):
        """SHA-256, in hexadecimal, over every split's pictures and whether they are pairs."""
        sha256 = hashlib.sha256(str(self.paired).encode())
        for split, sides in self.splits.items():
            for side in sides:
                sha256.update(f"{split} {[np.shape(image) for image in side]}".encode())
                for image in side:
                    sha256.update(np.ascontiguousarray(image))
        return sha256.hexdigest()
