"""Data sets: from pictures and captions to batches."""

from t2i_kd.data.arrays import from_arrays
from t2i_kd.data.image_pairs import from_image_pairs

__all__ = ["from_arrays", "from_image_pairs"]
