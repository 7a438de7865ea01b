"""Which held-out captions a student is asked for, and the pictures that it draws of them."""

import numpy as np


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
    """The student's pictures of captions, the i-th with seed `seed + i`.

    Returns:
        uint8 [n, resolution, resolution, 3].
    """
    return student.generate(list(captions), [seed + i for i in range(len(captions))])
