"""A small captioned set with classes, and students that draw it, for the tests of metrics."""

import numpy as np

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.metrics.context import EvaluationContext

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "grey": (128, 128, 128)}


def picture(colour, seed):
    noise = np.random.default_rng(seed).normal(0, 12, (32, 32, 3))
    return np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)


def flowers(split, count):
    """`count` pictures of four classes, each its colour with noise; every picture has a caption of its own."""
    names = tuple(COLOURS)
    labels = np.arange(count) % len(names)
    return CaptionedImages(
        name=f"flowers/{split}",
        images=np.stack([picture(names[label], 1000 * len(split) + i) for i, label in enumerate(labels)]),
        captions=tuple((f"a {names[label]} flower", f"flower {i} is {names[label]}") for i, label in enumerate(labels)),
        labels=labels,
        label_names=names,
    )


class Painter:
    """A student that draws a picture of the colour that the caption names, or of the next colour where it is wrong."""

    resolution = data_resolution = 32

    def __init__(self, wrong=False):
        self.wrong = wrong

    def generate(self, captions, seeds):
        names = list(COLOURS)
        asked = [next(i for i, name in enumerate(names) if name in caption) for caption in captions]
        return np.stack([picture(names[(i + self.wrong) % 4], 10**6 + s) for i, s in zip(asked, seeds, strict=True)])


def context_of(student, train=240, test=160, shared=None, **options):
    """A context on `flowers`; what is trained is shared by those with the same dict `shared`."""
    cache = {} if shared is None else shared
    cache |= {("split", "train", 32, 32): flowers("train", train), ("split", "test", 32, 32): flowers("test", test)}
    return EvaluationContext(student, "flowers", cache=cache, **{"num_captions": test, **options})
