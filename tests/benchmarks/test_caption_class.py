"""The share of images whose class a probe names."""

import types

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.caption_class import shares


def test_shares_count_the_first_and_the_first_five():
    scores = np.array(
        [[9, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7], [0, 0, 9, 1, 2, 3, 4], [7, 6, 5, 4, 3, 2, 1]], float
    )
    probe = types.SimpleNamespace(classes_=np.array([10, 11, 12, 13, 14, 15, 16]), decision_function=lambda _: scores)
    # Right first; right last; right last of five; not among the first five.
    assert shares(probe, None, [10, 16, 13, 16]) == (0.5, 0.75)
