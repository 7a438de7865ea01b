"""Which pairs of a picture and its caption a student is asked for, and the pictures that it generates of them."""

import dataclasses
import operator
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from t2i_kd.imaging import to_uint8
from t2i_kd.metrics.cache import scratch_array

# Captions in memory at a time.
AT_ONCE = 256


def draw_pairs(captions, groups, count, seed):
    """Draws (picture, caption) pairs so that every group of pictures is asked for as evenly as possible.

    Groups take turns in a random order. Within a group the pictures take turns too, and a caption text comes a
    second time only after every text of the group has come once.

    Args:
        captions: for each picture its captions.
        groups: lists of picture indices, none empty.
        count: number of pairs.
        seed: the only source of chance.

    Returns:
        A list of `count` tuples (picture index, caption).
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(groups))
    turns = [_distinct_pairs(captions, groups[group], rng) for group in order]
    pairs = []
    for i in range(count):
        turn, group = divmod(i, len(turns))
        pairs.append(turns[group][turn % len(turns[group])])
    return pairs


def unrelated(pairs):
    """Where the first pair of each picture stands among `pairs`, and for each of these one of another picture.

    With more pairs than pictures, half of the pairs further on may be the same picture again; of pictures it is not.

    Returns:
        (rows, others), lists of ints: the others are the rows half of them further on.
    """
    first = {}
    for row, (picture, _) in enumerate(pairs):
        first.setdefault(picture, row)
    rows = list(first.values())
    return rows, rows[len(rows) // 2 :] + rows[: len(rows) // 2]


def _distinct_pairs(captions, group, rng):
    pictures = [int(picture) for picture in rng.permutation(group)]
    shuffled = {picture: rng.permutation(len(captions[picture])) for picture in pictures}
    pairs = {}
    for turn in range(max(len(choice) for choice in shuffled.values())):
        for picture in pictures:
            if turn < len(shuffled[picture]):
                caption = captions[picture][shuffled[picture][turn]]
                pairs.setdefault(caption, (picture, caption))
    return list(pairs.values())


def generate(student, captions, seed):
    """The student's pictures of captions, the i-th with seed `seed + i`, with a progress bar where it takes long.

    Captions may be a reader of source pictures, for a student of those.

    Returns:
        uint8 [n, resolution, resolution, 3], on disk.
    """
    side = student.resolution
    generated = scratch_array((len(captions), side, side, 3), np.uint8)
    with tqdm(total=len(captions), desc="generating pictures", unit="img", delay=5, leave=False, disable=None) as bar:
        for start in range(0, len(captions), AT_ONCE):
            some = [captions[i] for i in range(start, min(start + AT_ONCE, len(captions)))]
            generated[start : start + len(some)] = student.generate(some, [seed + start + i for i in range(len(some))])
            bar.update(len(some))
    return generated


def reduced(dataset, factor):
    """A data set with its pictures averaged down in squares of `factor` pixels, half values rounded to even."""
    if factor == 1:
        return dataset
    return dataclasses.replace(dataset, images=Reduced(dataset.images, factor))


class Reduced(Sequence):
    """A reader of pictures averaged down in squares of `factor` pixels."""

    def __init__(self, images, factor):
        self._images, self._factor = images, factor

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        image = np.asarray(self._images[operator.index(index)], np.float32)
        side = len(image) // self._factor
        squares = image.reshape(side, self._factor, side, self._factor, -1)
        return to_uint8(squares.mean(axis=(1, 3)))
