"""The noise of a seed, the same on every platform: in NumPy, in a SavedModel's graph, in a page or on a phone.

A student with `noise_dim` = d > 0 reads d numbers beside the text. Those of seed s (a 64-bit integer) are a function of
s alone, never of the batch that the caption came in. With all integers unsigned and of 32 bits, wrapping around:

    mix(x):    x ^= x >> 16;  x *= 0x85EBCA6B;  x ^= x >> 13;  x *= 0xC2B2AE35;  x ^= x >> 16      (MurmurHash3)
    word(i):   mix(mix(mix((i + 1) * 0x9E3779B9) ^ low) ^ high),   low, high: the halves of s in two's complement

and then, in double precision, Box-Muller on each pair of words:

    u = ((word(2k) >> 8) + 1) / 2^24 in (0, 1],   v = (word(2k + 1) >> 8) / 2^24 in [0, 1)
    noise[2k], noise[2k + 1] = sqrt(-2 ln u) cos(2 pi v), sqrt(-2 ln u) sin(2 pi v)

rounded to float32. In JavaScript, `Math.imul` and `>>>` are these operations; in Kotlin, `*` and `ushr` of an `Int`.
"""

import math

import numpy as np

GOLDEN_RATIO = 0x9E3779B9
MIXERS = (0x85EBCA6B, 0xC2B2AE35)
LOW_HALF = 0xFFFFFFFF
UNIT = 2.0**-24


def noise_from_seeds(seeds, dim):
    """Standard normal noise, in NumPy.

    Args:
        seeds: int64 [n], or a sequence of such integers.
        dim: numbers a seed, d.

    Returns:
        float32 [n, d].
    """
    seeds = np.asarray(seeds, np.int64).reshape(-1, 1)
    low, high = ((half & LOW_HALF).astype(np.uint32) for half in (seeds, seeds >> 32))
    # The graph's and this module's integers wrap around by design: 32-bit arrays do so without a warning.
    index = np.arange(1, dim + dim % 2 + 1, dtype=np.uint32)
    words = _mix(_mix(_mix(index * np.uint32(GOLDEN_RATIO))[None] ^ low) ^ high) >> np.uint32(8)
    radius = np.sqrt(-2.0 * np.log((words[:, 0::2] + 1.0) * UNIT))
    angle = 2.0 * math.pi * UNIT * words[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(len(seeds), -1)[:, :dim].astype(np.float32)


def _mix(word):
    for shift, factor in zip((16, 13), MIXERS, strict=True):
        word = (word ^ (word >> np.uint32(shift))) * np.uint32(factor)
    return word ^ (word >> np.uint32(16))


def noise_in_graph(seeds, dim):
    """`noise_from_seeds` in TensorFlow's operations, equal to it up to the rounding of a float32.

    Args:
        seeds: int64 tensor [batch].
        dim: numbers a seed, a Python integer.

    Returns:
        float32 tensor [batch, dim].
    """
    import tensorflow as tf

    seeds = tf.reshape(seeds, [-1, 1])
    low = tf.cast(tf.bitwise.bitwise_and(seeds, LOW_HALF), tf.uint32)
    high = tf.cast(tf.bitwise.bitwise_and(tf.bitwise.right_shift(seeds, 32), LOW_HALF), tf.uint32)
    # What does not depend on the seed is a constant of the graph.
    index = _mix(np.arange(1, dim + dim % 2 + 1, dtype=np.uint32) * np.uint32(GOLDEN_RATIO))
    mixed = _mix_in_graph(tf.bitwise.bitwise_xor(tf.constant(index[None]), low))
    mixed = _mix_in_graph(tf.bitwise.bitwise_xor(mixed, high))
    words = tf.cast(tf.bitwise.right_shift(mixed, tf.constant(8, tf.uint32)), tf.float64)
    radius = tf.sqrt(-2.0 * tf.math.log((words[:, 0::2] + 1.0) * UNIT))
    angle = 2.0 * math.pi * UNIT * words[:, 1::2]
    pairs = tf.stack([radius * tf.cos(angle), radius * tf.sin(angle)], axis=-1)
    return tf.cast(tf.reshape(pairs, [-1, dim + dim % 2])[:, :dim], tf.float32)


def _mix_in_graph(word):
    import tensorflow as tf

    def xor_shifted(value, shift):
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(shift, tf.uint32)))

    for shift, factor in zip((16, 13), MIXERS, strict=True):
        word = xor_shifted(word, shift) * tf.constant(factor, tf.uint32)
    return xor_shifted(word, 16)
