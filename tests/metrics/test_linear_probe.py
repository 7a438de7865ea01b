"""Linear probes on features whose answer is known."""

import numpy as np

from t2i_kd.metrics.linear_probe import probe_accuracy


def test_separable_classes_are_read_out_and_noise_is_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 800)
    clear = np.eye(4)[labels] * [1, 100, 0.01, 5] + 1e-4 * rng.normal(size=(800, 4))
    noise = rng.normal(size=(800, 4))
    train, test = slice(0, 600), slice(600, None)
    assert probe_accuracy(clear[train], labels[train], clear[test], labels[test]) == 1.0
    assert probe_accuracy(noise[train], labels[train], noise[test], labels[test]) < 0.4
