"""How a training process treats memory that it has freed."""

import ctypes
import sys

# glibc's parameters of mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD = 64 * 2**20


def keep_freed_memory():
    """Makes glibc keep what the process frees, so that a step's large tensors come from pages that it already has.

    TensorFlow frees and allocates every activation anew at each step. By default glibc asks the kernel for each block
    of more than 32 MB at most, gives it back at once, and the kernel clears every page of it again: measured as half of
    an adversarial step's time on two cores. The process then holds the largest amount that it ever used. On other C
    libraries this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
    mallopt(M_TOP_PAD, TOP_PAD)
