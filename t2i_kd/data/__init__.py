"""Data sets: from pictures and captions to batches."""

from t2i_kd.data.arrays import from_arrays

__all__ = ["from_arrays"]
