"""What a run measures of itself: the numbers, and by whom."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from t2i_kd.errors import UserError
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher
from t2i_kd.training.measuring import Measurements, criterion

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 256, (6, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("teachers", "name"),
    [
        (["vgg19_slim"], "efficientnet_lite0_block5"),
        (["efficientnet_lite0"], "vgg19_slim_pool4"),
        (["none"], "efficientnet_lite0_block5"),
        (["vgg19_slim", "efficientnet_lite0"], "vgg19_slim_pool4"),
        (["efficientnet_lite0", "vgg19_slim"], "efficientnet_lite0_block5"),
    ],
)
def test_a_network_measures_that_does_not_teach(teachers, name):
    assert Measurements(teachers, 32, REAL).name == name


def test_the_values_are_their_formulas():
    generated = RNG.uniform(-30, 290, (5, 32, 32, 3))
    values = Measurements(["vgg19_slim"], 32, REAL).of(generated, generated[:4].reshape(2, 2, 32, 32, 3))
    network = load_teacher(TeacherOptions(teacher="efficientnet_lite0"), 32)
    shown = np.rint(np.clip(generated, 0, 255)).astype("float32")
    one, other = (
        np.asarray(network(images)["block5"], float).mean((1, 2)) for images in (shown, REAL.astype("float32"))
    )

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(one, one), kernel(other, other))]
    assert values["kernel_distance_efficientnet_lite0_block5"] == pytest.approx(
        sum(within) - 2 * kernel(one, other).mean(), rel=1e-3
    )
    assert values["diversity_efficientnet_lite0_block5"] == pytest.approx(
        pdist(one).mean() / pdist(other).mean(), rel=1e-4
    )

    within = (pdist(one[:2]).mean() + pdist(one[2:4]).mean()) / 2
    assert values["seed_diversity_efficientnet_lite0_block5"] == pytest.approx(within / pdist(other).mean(), rel=1e-4)


def test_without_seeds_there_is_no_diversity_over_them():
    assert not any(name.startswith("seed") for name in Measurements(["vgg19_slim"], 32, REAL).of(REAL))


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["diversity_x", "kernel_distance_x", "held_out_loss"], "held_out_loss"),
        (["kernel_distance_x", "distance_to_teacher"], "distance_to_teacher"),
        (["overfitting", "kernel_distance_x"], "kernel_distance_x"),
        (["overfitting"], None),
        ([], None),
    ],
)
def test_the_best_step_is_chosen_by_the_held_out_loss_or_the_kernel_distance(names, name):
    assert criterion(dict.fromkeys(names, 0.0)) == name


def test_too_few_images_are_named():
    with pytest.raises(UserError, match="--measure_every: 1 held-out images are too few"):
        Measurements(["none"], 32, REAL[:1])
