"""Activations in blocks: float32, perhaps on disk, in float64 only as many at a time as memory always has room for."""

import numpy as np

BLOCK = 512


def row_blocks(vectors):
    """Slices of `BLOCK` rows, the last of fewer, that cover all rows in turn."""
    return [slice(start, start + BLOCK) for start in range(0, len(vectors), BLOCK)]


def check_finite(vectors):
    """Raises `ValueError` where float activations hold NaN or infinity."""
    if not all(np.isfinite(vectors[rows]).all() for rows in row_blocks(vectors)):
        raise ValueError("activations hold NaN or infinity")
