"""An image to a square of a given side, equal in NumPy and in a TensorFlow graph.

The largest centred square is cut out; where it has another side, each axis is resampled with Lanczos's kernel of three
lobes, widened when the image shrinks (as Pillow and `tf.image.resize(..., "lanczos3", antialias=True)` do), and the
result is rounded to whole numbers in 0-255.
"""

import functools

import numpy as np

LOBES = 3
# In arithmetic of 64 bits: eight times a picture would be much.
PIXELS_AT_ONCE = 2**20


def resize_square(image, side):
    """The centred square of an image at a side, in NumPy.

    Args:
        image: uint8 RGB [height, width, 3].
        side: of the result in pixels.

    Returns:
        float32 [side, side, 3], whole numbers in 0-255.
    """
    length = min(image.shape[:2])
    top, left = (image.shape[0] - length) // 2, (image.shape[1] - length) // 2
    square = image[top : top + length, left : left + length]
    if length == side:
        return square.astype(np.float32)
    weights = _weights(length, side)
    rows = max(1, PIXELS_AT_ONCE // length)
    narrowed = np.concatenate(
        [
            np.einsum("hwc,bw->hbc", square[start : start + rows].astype(np.float64), weights, optimize=True)
            for start in range(0, length, rows)
        ]
    )
    resized = np.einsum("ah,hbc->abc", weights, narrowed, optimize=True)
    return np.rint(np.clip(resized, 0, 255)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _weights(length, side):
    """float64 [side, length]: output a = sum_h w_ah input_h.

    w_ah = K((h + 1/2 - c_a) / s), divided by their sum over h, with c_a = (a + 1/2) length / side, s = max(1, length /
    side), and K(x) = sinc(x) sinc(x / 3) for |x| < 3, else 0.
    """
    scale = length / side
    centres = (np.arange(side) + 0.5) * scale
    x = (np.arange(length) + 0.5 - centres[:, None]) / max(1.0, scale)
    weights = np.where(np.abs(x) < LOBES, np.sinc(x) * np.sinc(x / LOBES), 0.0)
    return weights / weights.sum(1, keepdims=True)


def resize_square_in_graph(image, side):
    """`resize_square` in TensorFlow's operations: uint8 [height, width, 3] -> float32 [side, side, 3]."""
    import tensorflow as tf

    height, width = tf.shape(image)[0], tf.shape(image)[1]
    length = tf.minimum(height, width)
    top, left = (height - length) // 2, (width - length) // 2
    square = tf.cast(image[top : top + length, left : left + length], tf.float32)
    resized = tf.image.resize(square, (side, side), "lanczos3", antialias=True)
    # What has the side already stays as it is, to the bit.
    whole = tf.cond(tf.equal(length, side), lambda: square, lambda: tf.round(tf.clip_by_value(resized, 0.0, 255.0)))
    return tf.ensure_shape(whole, (side, side, 3))
