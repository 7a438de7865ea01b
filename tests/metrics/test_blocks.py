"""Evaluating many pictures takes little memory: no measure makes a float64 copy of all activations."""

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from t2i_kd.metrics import blocks
from t2i_kd.metrics.cache import ArrayCache, digest
from t2i_kd.metrics.diversity import mean_pair_distance
from t2i_kd.metrics.frechet import moments_of
from t2i_kd.metrics.inception_score import inception_score
from t2i_kd.metrics.kernel_distance import kernel_distance
from t2i_kd.metrics.manifold import manifold_contributions

COUNT, WIDTH = 480, 2000
# In bytes: a float64 copy of all activations of one kind.
COPY = COUNT * WIDTH * 8


def peak_of(call):
    """Bytes that NumPy and Python held at the same time, beyond those before."""
    tracemalloc.start()
    try:
        # Threads of many small products wait for each other on a busy machine.
        with threadpool_limits(1):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "measure",
    [
        lambda features, ones: manifold_contributions(features, features),
        lambda features, ones: mean_pair_distance(features, ones),
        lambda features, ones: kernel_distance(features, features),
        lambda features, ones: inception_score(features, ones),
    ],
    ids=["manifold", "diversity", "kernel", "inception_score"],
)
def test_no_measure_copies_all_activations(measure, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 60)
    features = np.random.default_rng(0).random((COUNT, WIDTH), np.float32)
    features /= features.sum(1, keepdims=True)
    assert peak_of(lambda: measure(features, np.ones((1, COUNT)))) < COPY / 2


def test_moments_take_the_memory_of_a_block_and_their_own(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 60)
    features = np.random.default_rng(0).random((20_000, 64), np.float32)
    # A float64 copy would take twice as much.
    assert peak_of(lambda: moments_of(features, np.ones(len(features)))) < features.nbytes


def test_what_is_kept_is_mapped_and_not_read_into_memory(tmp_path):
    large = np.random.default_rng(0).random((COUNT, WIDTH), np.float32)
    cache = ArrayCache(tmp_path)

    def kept():
        return cache.arrays("reference", digest("key"), lambda: [np.arange(3), large, np.zeros((0, 4)), np.float32(2)])

    assert peak_of(kept) < COPY / 8
    found = []
    assert peak_of(lambda: found.extend(kept())) < COPY / 8
    assert isinstance(found[1], np.memmap) and all(array.ctypes.data % array.itemsize == 0 for array in found)
    for array, expected in zip(found, (np.arange(3), large, np.zeros((0, 4)), np.float32(2)), strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype and array.shape == expected.shape
