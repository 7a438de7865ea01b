"""Streamed moments against NumPy's."""

import numpy as np
import pytest

from t2i_kd.metrics.moments import Moments


@pytest.mark.parametrize("sizes", [(50,), (1, 49), (7, 0, 20, 23), (1,) * 50])
def test_batches_of_any_size_give_numpys_moments(sizes):
    # A large mean beside a small spread: where sums of squares lose their digits.
    values = np.random.default_rng(0).normal(1e4, [0.1, 1, 3], (50, 3))
    moments, start = Moments(), 0
    for size in sizes:
        moments.update(values[start : start + size])
        start += size
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(values, rowvar=False), rtol=1e-8)


@pytest.mark.parametrize(
    ("batch", "named"),
    [([[1.0, np.nan]], "NaN"), ([[np.inf, 1.0]], "infinity"), ([1.0, 2.0], "shape"), ([[1.0, 2.0, 3.0]], "width 3")],
)
def test_wrong_activations_are_named(batch, named):
    moments = Moments()
    moments.update([[1.0, 2.0]])
    with pytest.raises(ValueError, match=named):
        moments.update(batch)
    assert moments.count == 1


def test_one_vector_has_no_covariance():
    moments = Moments()
    moments.update([[1.0, 2.0]])
    with pytest.raises(ValueError, match="1 activations"):
        _ = moments.covariance
