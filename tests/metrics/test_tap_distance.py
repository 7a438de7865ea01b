import itertools

import keras
import numpy as np
import pytest

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.metrics import context, tap_distance
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.recipe import TeacherRecipe
from t2i_kd.teachers.vgg19 import TAPS, build_vgg19

NO_TEACHER = TeacherRecipe(teacher="none")


class Inverter:
    """A student whose picture of `picture i` is the negative of picture i."""

    resolution = 32

    def __init__(self, images):
        self.images = images

    def generate(self, captions, seeds):
        return np.stack([255 - self.images[int(caption.split()[1])] for caption in captions])


@pytest.fixture
def pictures():
    images = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
    captions = tuple((f"picture {i}",) for i in range(11))
    return CaptionedImages("noise/test", images, captions, np.zeros(11, int), ("noise",))


def context_of(pictures, teacher, count):
    cache = {("split", "test", 32): pictures}
    return EvaluationContext(Inverter(pictures.images), "noise", num_captions=count, teacher=teacher, cache=cache)


def batches_of(taps, sizes):
    starts = np.cumsum([0, *sizes])
    return [{name: value[low:high] for name, value in taps.items()} for low, high in itertools.pairwise(starts)]


def test_streaming_equals_one_shot():
    rng = np.random.default_rng(0)
    shapes = {"image": (7, 8, 8, 3), "pool5": (7, 1, 1, 16)}
    real, made = (
        {name: rng.normal(50, 900, shape).astype("float32") for name, shape in shapes.items()} for _ in range(2)
    )
    streamed = tap_distance.tap_distances(batches_of(real, (3, 3, 1)), batches_of(made, (3, 3, 1)))
    for name in shapes:
        oracle = np.abs(real[name].astype("float64") - made[name]).mean()
        assert streamed[name] == pytest.approx(oracle, rel=1e-6)


def test_sums_are_kept_in_float64():
    total = tap_distance.TapDistances()
    total.update({"tap": np.full((1, 1), 2.0**25)}, {"tap": np.zeros((1, 1))})
    for _ in range(64):
        total.update({"tap": np.ones((1, 1))}, {"tap": np.zeros((1, 1))})
    assert total.distances()["tap"] * 65 == 2.0**25 + 64


def test_a_tap_that_is_always_zero_counts_nothing():
    total = tap_distance.TapDistances()
    total.update({"dead": np.zeros((2, 3))}, {"dead": np.zeros((2, 3))})
    assert total.normalised() == {"dead": 0.0}


@pytest.mark.parametrize("made", [{"b": np.zeros((2, 3))}, {"a": np.zeros((2, 4))}])
def test_other_taps_or_shapes_are_refused(made):
    with pytest.raises(ValueError, match="differ"):
        tap_distance.TapDistances().update({"a": np.zeros((2, 3))}, made)


def test_without_a_teacher_the_pixels_are_compared(pictures):
    values = tap_distance.measure(context_of(pictures, NO_TEACHER, 11))["values"]
    real = pictures.images.astype("float64")
    oracle = np.abs(real - (255 - real)).mean()
    assert values["image"] == values["sum"] == pytest.approx(oracle, rel=1e-6)
    assert values["normalised sum"] == pytest.approx(oracle / real.mean(), rel=1e-6)


def test_every_tap_of_a_teacher_counts_once(pictures, monkeypatch):
    keras.utils.set_random_seed(0)
    teacher = build_vgg19(32, width=1 / 32)
    monkeypatch.setattr(context, "load_teacher", lambda recipe, resolution: teacher)
    result = tap_distance.measure(context_of(pictures, TeacherRecipe(), 11))
    real = pictures.images.astype("float32")
    seen, made = teacher.predict(real, verbose=0), teacher.predict(255 - real, verbose=0)
    oracle = {tap: np.abs(seen[tap].astype("float64") - made[tap]).mean() for tap in TAPS}
    for tap in TAPS:
        assert result["values"][tap] == pytest.approx(oracle[tap], rel=1e-4)
    assert result["values"]["sum"] == pytest.approx(sum(oracle.values()), rel=1e-4)
    assert result["protocol"]["pairs"] == result["protocol"]["pictures"] == 11


def test_pictures_take_turns(pictures):
    protocol = tap_distance.measure(context_of(pictures, NO_TEACHER, 25))["protocol"]
    assert (protocol["pairs"], protocol["pictures"]) == (25, 11)
