"""Whitening against its definition."""

import numpy as np
import pytest

from t2i_kd.text.whitening import FLOOR, whitening_map


def test_whitened_vectors_have_mean_0_and_covariance_1():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5000, 6)) @ rng.normal(size=(6, 6)) + 3
    kernel, bias = whitening_map(vectors)
    made = vectors @ kernel + bias
    np.testing.assert_allclose(made.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(made, rowvar=False), np.eye(6), atol=0.05)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-5)


def test_directions_that_do_not_vary_stay_bounded():
    vectors = np.outer(np.linspace(-1, 1, 100), [1.0, 0.0, 0.0])
    kernel, bias = whitening_map(vectors)
    assert np.isfinite(kernel).all()
    assert np.abs(kernel).max() <= 1 / np.sqrt(FLOOR * vectors.var(0, ddof=1).max()) * 1.001
    np.testing.assert_allclose((vectors @ kernel + bias)[:, 1:], 0, atol=1e-6)


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_vectors_that_are_alike_but_for_rounding_are_centred(noise):
    """Otherwise rounding would be blown up to the size of a difference."""
    vectors = np.array([3.0, -2, 0.5]) + noise * np.random.default_rng(0).standard_normal((10, 3))
    kernel, bias = whitening_map(vectors)
    np.testing.assert_allclose(kernel, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(bias, [-3, 2, -0.5], atol=1e-5)
