"""What is said of a GAN that goes wrong: values by hand, and warnings once for each time."""

import numpy as np
import pytest
from absl import logging

from t2i_kd.training.health import Health, head_health


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that are logged, as text."""
    told = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: told.append(message % values))
    return told


def test_shares_and_overfitting_are_those_of_the_formula():
    training = {"fine": np.array([[3.0, 1.0], [-1.0, 1.0]]), "coarse": np.array([2.0, 2.0])}
    held_out = {"fine": np.array([[0.0, 1.0]]), "coarse": np.array([1.0])}
    generated = {"fine": np.array([[-2.0, 1.0], [-2.0, -1.0]]), "coarse": np.array([-1.0, -1.0])}
    values = head_health(training, held_out, generated)
    assert values["real_for_real_fine"] == 0.75 and values["generated_for_real_fine"] == 0.25
    assert values["real_for_real_coarse"] == 1 and values["generated_for_real_coarse"] == 0
    # Of coarse 2, 2, -1, whose mean is 1: squares 1, 1, 4. Of fine 3, 1, -1, 1, -2, 1, -2, -1, whose mean is 0.
    assert values["score_spread"] == pytest.approx(max(2**0.5, (22 / 8) ** 0.5))
    # Means: training 1 + 2, held out 0.5 + 1, generated -1 - 1.
    assert values["overfitting"] == pytest.approx((3 - 1.5) / (3 + 2))


def test_equal_scores_have_no_overfitting():
    assert "overfitting" not in head_health(*[{"one": np.array([1.0])}] * 3)


def test_scores_that_say_nothing_have_no_overfitting():
    training, held_out, generated = ({"one": np.full(4, value)} for value in (0.0012, 0.0009, 0.0011))
    values = head_health(training, held_out, generated)
    assert "overfitting" not in values and values["score_spread"] == pytest.approx(0.00005)


@pytest.mark.parametrize(("generated", "measured"), [(0.0, True), (0.6, False), (2.0, False)])
def test_means_that_samples_alone_keep_apart_have_no_overfitting(generated, measured):
    """Of 16 images with deviation 1 each, the standard error of the difference is 2^0.5 / 4 = .354, 4 of them 1.41."""
    spread = np.tile([-1.0, 1.0], 8)
    scores = ({"one": mean + spread} for mean in (1.5, 1.0, generated))
    values = head_health(*scores)
    assert ("overfitting" in values) == measured
    if measured:
        assert values["overfitting"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"real_for_real_a": 1.0, "generated_for_real_a": 0.0}, "apart without fail"),
        ({"score_spread": 0.01}, "the same of every image (their scores deviate by 0.010)"),
        ({"overfitting": 0.7}, "by heart (overfitting 0.70, above 0.60)"),
        ({"diversity_any": 0.4}, "0.40 times as different"),
    ],
)
def test_a_value_that_leaves_its_range_is_told_once_until_it_is_back(warnings, values, words):
    health = Health()
    for step in (10, 20):
        health.look(step, values)
    assert len(warnings) == 1 and words in warnings[0] and warnings[0].startswith("step 10: ")
    health.look(30, dict.fromkeys(values, 0.5))
    health.look(40, values)
    assert len(warnings) == 2 and warnings[1].startswith("step 40: ")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"real_for_real_a": 1.0, "generated_for_real_a": 0.0, "real_for_real_b": 0.9, "generated_for_real_b": 0.0},
        {"overfitting": 0.6, "diversity_any": 0.5, "score_spread": 0.05},
    ],
)
def test_within_their_ranges_nothing_is_told(warnings, values):
    Health().look(10, values)
    assert not warnings
