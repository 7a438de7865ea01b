"""Which arithmetic trains fastest here: what `--dtype_policy=auto` stands for.

bfloat16 is worth it where a processor or GPU multiplies in it; elsewhere it is emulated, and slower than float32. So it
is measured, in a convolution of the size that the generators have.
"""

import statistics
import time

import numpy as np
from keras import ops

AUTO = "auto"
FLOAT32 = "float32"
BFLOAT16 = "mixed_bfloat16"
# How much faster bfloat16's convolution must be: what is left in float32 makes a step gain less.
WORTH = 1.2
TURNS = 5
# Of the convolution that is timed: 2.4 thousand million multiply-adds.
BATCH, SIDE, CHANNELS, WINDOW = 16, 64, 64, 3


def _seconds(images, kernel):
    began = time.perf_counter()
    ops.convert_to_numpy(ops.cast(ops.sum(ops.conv(images, kernel, padding="same")), "float32"))
    return time.perf_counter() - began


def measured_speedup():
    """How many times as fast as in float32 a convolution is in bfloat16 here.

    Both take turns, after one pass each that does not count; the median of the turns' ratios. Where bfloat16 takes
    more than twice as long in the first turn, as where it is emulated, there is no further one.
    """
    rng = np.random.default_rng(0)
    shapes = (BATCH, SIDE, SIDE, CHANNELS), (WINDOW, WINDOW, CHANNELS, CHANNELS)
    single = [ops.convert_to_tensor(rng.standard_normal(shape), "float32") for shape in shapes]
    half = [ops.cast(each, "bfloat16") for each in single]
    _seconds(*single), _seconds(*half)
    ratios = []
    for _ in range(TURNS):
        ratios.append(_seconds(*single) / _seconds(*half))
        if ratios[0] < 1 / 2:
            break
    return statistics.median(ratios)


def fastest_policy():
    """(dtype policy, a line that says why): `mixed_bfloat16` where `measured_speedup` is `WORTH` or more."""
    speedup = measured_speedup()
    policy = BFLOAT16 if speedup >= WORTH else FLOAT32
    return policy, f"--dtype_policy=auto: {policy}, since a convolution in bfloat16 is {speedup:.2g} times as fast here"
