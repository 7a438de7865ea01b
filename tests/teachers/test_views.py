"""The teacher's kept views are what it would see at each step."""

import types

import numpy as np
import pytest

from t2i_kd.data.batches import Batches
from t2i_kd.teachers.vgg19 import build_vgg19
from t2i_kd.teachers.views import Views, views_that_pay

TAPS = ("image", "conv1_2", "pool3")
COUNT = 7


@pytest.fixture(scope="module")
def teacher():
    """A tiny teacher."""
    return build_vgg19(32, 1 / 16)


@pytest.fixture(scope="module")
def images():
    """A few pictures."""
    return list(np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("batch_size", [3, 16])
def test_a_batch_has_its_pictures_views(teacher, images, batch_size):
    dataset = types.SimpleNamespace(images=images, captions=[(str(i), "x") for i in range(COUNT)])
    views = Views(teacher, TAPS, images, True, 4)
    batches = Batches(dataset, {}, batch_size, 5, 0, 4, flip=True, features=views)
    plain = Batches(dataset, {}, batch_size, 5, 0, 4, flip=True)
    for index in range(4):
        batch = batches[index]
        assert np.array_equal(batch["image"], plain[index]["image"])
        seen = teacher(batch["image"].astype("float32"))
        assert set(batch["features"]) == {"conv1_2", "pool3"}
        for tap, values in batch["features"].items():
            assert values == pytest.approx(np.asarray(seen[tap]), rel=1e-4, abs=1e-3)


def test_views_are_kept_only_where_they_pay(teacher, images):
    def found(taps=TAPS, flip=False, batch_size=4, steps=100, megabytes=1):
        return views_that_pay(teacher, taps, images, flip, batch_size, steps, megabytes)

    # 4 bytes x 7 pictures x (32 x 32 x 4 + 4 x 4 x 16) elements: 122 kB.
    assert sum(values.nbytes for values in found().taps.values()) == 4 * 7 * (4096 + 256)
    assert found(megabytes=0) is None
    assert found(megabytes=1, taps=(*TAPS, "conv1_1"), flip=True) is not None
    assert found(taps=("image",)) is None
    assert found(steps=3) is None and found(steps=4) is not None
    assert found(steps=4, flip=True) is None


def test_a_resumed_run_has_the_same_views(teacher, images):
    one, other = (Views(teacher, TAPS, images, True, 4) for _ in range(2))
    assert all(np.array_equal(one.taps[tap], other.taps[tap]) for tap in one.taps)
