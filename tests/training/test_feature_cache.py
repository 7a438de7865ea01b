"""The teacher's cached features are those of a forward pass at each step."""

import numpy as np
import pytest

from t2i_kd.teachers.vgg19 import build_vgg19
from t2i_kd.training.feature_cache import CachedFeatures, features_worth_caching

TAPS = ("image", "conv1_2", "pool3")
COUNT = 7


@pytest.fixture(scope="module")
def teacher():
    """A tiny teacher."""
    return build_vgg19(32, 1 / 16)


@pytest.fixture(scope="module")
def images():
    """A few images."""
    return list(np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("batch_size", [3, 16])
def test_a_batchs_features_are_those_of_its_images(teacher, images, batch_size):
    features = CachedFeatures(teacher, TAPS, images, True, batch_size)
    chosen, mirrored = np.array([6, 0, 0, 3, 6]), np.array([True, False, True, False, False])
    batch = np.stack([images[i][:, ::-1] if flip else images[i] for i, flip in zip(chosen, mirrored, strict=True)])
    expected, found = teacher(batch.astype("float32")), features.of(chosen, mirrored)
    assert set(found) == {"conv1_2", "pool3"}
    for tap, values in found.items():
        assert values == pytest.approx(np.asarray(expected[tap]), rel=1e-4, abs=1e-3)


def test_features_are_cached_only_where_it_is_worth_it(teacher, images):
    def found(taps=TAPS, flip=False, batch_size=4, steps=100, megabytes=1):
        return features_worth_caching(teacher, taps, images, flip, batch_size, steps, megabytes)

    # 4 bytes x 7 images x (32 x 32 x 4 + 4 x 4 x 16) elements: 122 kB.
    assert sum(values.nbytes for values in found().taps.values()) == 4 * 7 * (4096 + 256)
    assert found(megabytes=0) is None
    assert found(megabytes=1, taps=(*TAPS, "conv1_1"), flip=True) is not None
    assert found(taps=("image",)) is None
    assert found(steps=3) is None and found(steps=4) is not None
    assert found(steps=4, flip=True) is None


def test_a_resumed_run_has_the_same_features(teacher, images):
    one, other = (CachedFeatures(teacher, TAPS, images, True, 4) for _ in range(2))
    assert all(np.array_equal(one.taps[tap], other.taps[tap]) for tap in one.taps)
