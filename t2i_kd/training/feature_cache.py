"""The teacher's features of the training set's images, computed once instead of at every step."""

import keras
import numpy as np

from t2i_kd.training.distribution import predict

MEGABYTE = 2**20
# An image must come at least so often in a stage for its features to be worth caching.
VISITS = 2


class CachedFeatures:
    """The teacher's taps of every image of a set, in memory.

    Args:
        teacher: a frozen teacher.
        taps: names of the taps that are cached; `image`, the image itself, is left out.
        images: images by index, uint8 [resolution, resolution, 3].
        flip: cache also the mirrored images' taps.
        batch_size: the training's, so that the arithmetic is the same as in its step.
    """

    def __init__(self, teacher, taps, images, flip, batch_size):
        self.count = len(images)
        network = keras.Model(teacher.input, {tap: teacher.output[tap] for tap in computed(taps)})
        count = (1 + flip) * self.count
        self.taps = {tap: np.empty((count, *output.shape[1:]), "float32") for tap, output in network.output.items()}
        for start in range(0, count, batch_size):
            rows = range(start, start + batch_size)
            features = predict(network, np.stack([self._image(images, row % count) for row in rows]), batch_size)
            for tap, values in features.items():
                self.taps[tap][start : start + batch_size] = values[: count - start]

    def _image(self, images, row):
        image = images[row % self.count].astype("float32")
        return image if row < self.count else image[:, ::-1]

    def of(self, images, mirrored):
        """{tap: float32 [batch, height, width, channels]} of images by index, `mirrored` bool [batch]."""
        rows = np.asarray(images) + self.count * np.asarray(mirrored)
        return {tap: values[rows] for tap, values in self.taps.items()}


def computed(taps):
    """The taps that a network has to compute."""
    return [tap for tap in taps if tap != "image"]


def features_worth_caching(teacher, taps, images, flip, batch_size, steps, megabytes):
    """`CachedFeatures`, or None where they need more than `megabytes` or an image comes less than `VISITS` times."""
    count = (1 + flip) * len(images)
    size = 4 * count * sum(int(np.prod(teacher.output[tap].shape[1:])) for tap in computed(taps))
    if not size or size > megabytes * MEGABYTE or steps * batch_size < VISITS * count:
        return None
    return CachedFeatures(teacher, taps, images, flip, batch_size)
