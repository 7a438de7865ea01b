import math

import numpy as np
import pytest

from t2i_kd.noise import noise_from_seeds, noise_in_graph

EDGE_SEEDS = [0, 1, 2, -1, 2**31, 2**32, 2**32 - 1, 2**63 - 1, -(2**63)]


def by_hand(seed, dim):
    """The module's text in plain Python integers, as a JavaScript or Kotlin author would write it."""

    def mix(x):
        x ^= x >> 16
        x = x * 0x85EBCA6B % 2**32
        x ^= x >> 13
        x = x * 0xC2B2AE35 % 2**32
        return x ^ (x >> 16)

    low, high = seed % 2**32, (seed % 2**64) >> 32

    def word(i):
        return mix(mix(mix((i + 1) * 0x9E3779B9 % 2**32) ^ low) ^ high)

    values = []
    for k in range((dim + 1) // 2):
        u, v = ((word(2 * k) >> 8) + 1) / 2**24, (word(2 * k + 1) >> 8) / 2**24
        radius = math.sqrt(-2 * math.log(u))
        values += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return values[:dim]


@pytest.mark.parametrize("dim", [1, 7, 32])
def test_numpy_follows_the_definition(dim):
    expected = np.array([by_hand(seed, dim) for seed in EDGE_SEEDS], np.float32)
    noise = noise_from_seeds(EDGE_SEEDS, dim)
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dim", [1, 7, 32])
def test_graph_equals_numpy(dim):
    tf = pytest.importorskip("tensorflow")
    graph = tf.function(lambda seeds: noise_in_graph(seeds, dim), input_signature=[tf.TensorSpec([None], tf.int64)])
    noise = graph(np.array(EDGE_SEEDS, np.int64)).numpy()
    np.testing.assert_allclose(noise, noise_from_seeds(EDGE_SEEDS, dim), rtol=1e-6, atol=1e-7)


def test_a_row_depends_on_its_seed_alone():
    together = noise_from_seeds([5, 9, 5], 16)
    np.testing.assert_array_equal(together[1], noise_from_seeds([9], 16)[0])
    np.testing.assert_array_equal(together[0], together[2])
    np.testing.assert_array_equal(noise_from_seeds([5], 4)[0], together[0, :4])


def test_is_standard_normal_and_uncorrelated():
    noise = noise_from_seeds(np.arange(20_000), 16).astype(np.float64)
    assert np.isfinite(noise).all()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.var() - 1) < 0.02
    assert abs((noise**4).mean() - 3) < 0.1
    between_dimensions = np.corrcoef(noise.T) - np.eye(16)
    assert np.abs(between_dimensions).max() < 0.04
    # Neighbouring seeds share nothing either.
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.01
    assert abs((np.abs(noise) < 1).mean() - 0.6827) < 0.005
