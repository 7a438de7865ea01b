"""What the teacher sees in the training set's real pictures, computed once instead of at every step."""

import keras
import numpy as np

from t2i_kd.training.distribution import predict

MEGABYTE = 2**20
# A picture must come at least so often in a stage for its view to be worth keeping.
VISITS = 2


class Views:
    """The teacher's taps of every picture of a set, in memory.

    Args:
        teacher: a frozen teacher.
        taps: names of the taps that are kept; `image`, the picture itself, is left out.
        images: pictures by index, uint8 [resolution, resolution, 3].
        flip: keep also the mirrored pictures' taps.
        batch_size: the training's, so that the arithmetic is the same as in its step.
    """

    def __init__(self, teacher, taps, images, flip, batch_size):
        self.count = len(images)
        network = keras.Model(teacher.input, {tap: teacher.output[tap] for tap in kept(taps)})
        views = (1 + flip) * self.count
        self.taps = {tap: np.empty((views, *output.shape[1:]), "float32") for tap, output in network.output.items()}
        for start in range(0, views, batch_size):
            rows = range(start, start + batch_size)
            made = predict(network, np.stack([self._picture(images, row % views) for row in rows]), batch_size)
            for tap, values in made.items():
                self.taps[tap][start : start + batch_size] = values[: views - start]

    def _picture(self, images, row):
        picture = images[row % self.count].astype("float32")
        return picture if row < self.count else picture[:, ::-1]

    def of(self, images, mirrored):
        """{tap: float32 [batch, height, width, channels]} of pictures by index, `mirrored` bool [batch]."""
        rows = np.asarray(images) + self.count * np.asarray(mirrored)
        return {tap: values[rows] for tap, values in self.taps.items()}


def kept(taps):
    """The taps that a network has to compute."""
    return [tap for tap in taps if tap != "image"]


def views_that_pay(teacher, taps, images, flip, batch_size, steps, megabytes):
    """`Views`, or None where they would need more than `megabytes` or every picture comes less than `VISITS` times."""
    views = (1 + flip) * len(images)
    size = 4 * views * sum(int(np.prod(teacher.output[tap].shape[1:])) for tap in kept(taps))
    if not size or size > megabytes * MEGABYTE or steps * batch_size < VISITS * views:
        return None
    return Views(teacher, taps, images, flip, batch_size)
