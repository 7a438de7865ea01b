import dataclasses

import keras
import numpy as np
import pytest

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.metrics import context, resampling, tap_distance
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.tap_errors import TapObjective
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.vgg19 import TAPS, build_vgg19

NO_TEACHER = TeacherOptions(teacher="none")


class Inverter:
    """A student whose picture of `picture i` is the negative of picture i."""

    resolution = data_resolution = 32

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
    cache = {("split", "test", 32, 32): pictures}
    return EvaluationContext(Inverter(pictures.images), "noise", num_captions=count, teacher=teacher, cache=cache)


def values_of(measurement, teacher="none"):
    """Without what all names begin and end with."""
    rows = resampling.resampled(measurement, 0, 0)
    suffix = f"_{teacher}_32_n{measurement.generated}"
    assert all(line.startswith("tap_") and line.endswith(suffix) for line in rows)
    return {line.removeprefix("tap_").removesuffix(suffix): values[0] for line, values in rows.items()}


def test_every_picture_has_the_mean_over_its_own_elements():
    rng = np.random.default_rng(0)
    shapes = {"image": (7, 8, 8, 3), "pool5": (7, 1, 1, 16)}
    reference, generated = (
        {name: rng.normal(50, 900, shape).astype("float32") for name, shape in shapes.items()} for _ in range(2)
    )
    differences, magnitudes = tap_distance.tap_differences(reference, generated), tap_distance.magnitudes_of(reference)
    for name in shapes:
        for i in range(7):
            pairs = list(zip(reference[name][i].ravel().tolist(), generated[name][i].ravel().tolist(), strict=True))
            assert differences[name][i] == pytest.approx(sum(abs(x - y) for x, y in pairs) / len(pairs), rel=1e-6)
            assert magnitudes[name][i] == pytest.approx(sum(abs(x) for x, _ in pairs) / len(pairs), rel=1e-6)


def test_sums_by_hand():
    differences = {"a": np.array([1.0, 3]), "b": np.array([10.0, 0])}
    magnitudes = {"a": np.array([2.0, 2]), "b": np.array([5.0, 15])}
    found = tap_distance.sums_of(differences, magnitudes, np.array([[1.0, 1], [2, 0]]))
    assert found["a"].tolist() == [2, 1] and found["b"].tolist() == [5, 10]
    assert found["sum"].tolist() == [7, 11]
    assert found["normalised sum"].tolist() == [2 / 2 + 5 / 10, 1 / 2 + 10 / 5]


def test_a_tap_that_is_always_zero_counts_nothing():
    found = tap_distance.sums_of({"dead": np.zeros(2)}, {"dead": np.zeros(2)}, np.ones((1, 2)))
    assert found["normalised sum"].tolist() == [0]


@pytest.mark.parametrize(
    ("generated", "named"),
    [({"b": np.zeros((2, 3))}, "differ"), ({"a": np.zeros((2, 4))}, "differ"), ({"a": np.full((2, 3), np.nan)}, "NaN")],
)
def test_other_taps_or_shapes_and_nan_are_refused(generated, named):
    with pytest.raises(ValueError, match=named):
        tap_distance.tap_differences({"a": np.zeros((2, 3))}, generated)


def test_without_a_teacher_the_pixels_are_compared(pictures):
    values = values_of(tap_distance.measure(context_of(pictures, NO_TEACHER, 11)))
    reference = pictures.images.astype("float64")
    oracle = np.abs(reference - (255 - reference)).mean()
    assert values["image"] == values["sum"] == pytest.approx(oracle, rel=1e-6)
    assert values["normalised_sum"] == pytest.approx(oracle / reference.mean(), rel=1e-6)


def test_every_tap_of_a_teacher_counts_once(pictures, monkeypatch):
    keras.utils.set_random_seed(0)
    teacher = build_vgg19(32, width=1 / 32)
    monkeypatch.setattr(context, "load_teacher", lambda recipe, resolution: teacher)
    result = tap_distance.measure(context_of(pictures, TeacherOptions(), 11))
    reference = pictures.images.astype("float32")
    of_reference, generated = teacher.predict(reference, verbose=0), teacher.predict(255 - reference, verbose=0)
    oracle = {tap: np.abs(of_reference[tap].astype("float64") - generated[tap]).mean() for tap in TAPS}
    values = values_of(result, "vgg19_average")
    for tap in TAPS:
        assert values[tap] == pytest.approx(oracle[tap], rel=1e-4)
    assert values["sum"] == pytest.approx(sum(oracle.values()), rel=1e-4)
    assert result.samples["tap_normalised_sum_vgg19_average_32_n11"].mean() == pytest.approx(
        values["normalised_sum"], rel=1e-9
    )
    assert result.protocol["captions"] == result.protocol["pictures"] == 11


def test_a_broken_teacher_is_named(pictures, monkeypatch):
    teacher = build_vgg19(32, width=1 / 32)
    layer = teacher.get_layer("conv3_1")
    layer.set_weights([np.full(weights.shape, np.nan) for weights in layer.get_weights()])
    monkeypatch.setattr(context, "load_teacher", lambda recipe, resolution: teacher)
    with pytest.raises(UserError, match="--teacher: conv3_1 hold NaN or infinity"):
        tap_distance.measure(context_of(pictures, TeacherOptions(), 3))


def test_pictures_take_turns(pictures):
    protocol = tap_distance.measure(context_of(pictures, NO_TEACHER, 25)).protocol
    assert (protocol["captions"], protocol["pictures"]) == (25, 11)


def test_a_teacher_says_its_own_taps(pictures, monkeypatch):
    """The run's own objective on a network whose taps are not VGG19's, beside the raw sums of every tap."""
    image = keras.Input((32, 32, 3), name="image")
    taps = {"image": image, "stem": keras.layers.AveragePooling2D(2)(image)}
    monkeypatch.setattr(context, "load_teacher", lambda recipe, resolution: keras.Model(image, taps))
    objective = TapObjective("squared", "raw", (("st*", 0.5),))
    found = dataclasses.replace(context_of(pictures, TeacherOptions(), 11), tap_objective=objective)
    measurement = tap_distance.measure(found)
    values = values_of(measurement, "vgg19_average")
    assert list(values) == ["image", "stem", "sum", "normalised_sum", "objective_squared_raw"]
    reference = pictures.images.astype("float64")
    halved = (2 * reference - 255).reshape(11, 16, 2, 16, 2, 3).mean((2, 4))
    assert values["objective_squared_raw"] == pytest.approx(0.5 * np.mean(halved**2), rel=1e-5)
    said = {name: value for name, value in measurement.protocol.items() if name.startswith("objective")}
    assert said == {"objective_error": "squared", "objective_scaling": "raw", "objective_tap_weights": "stem:0.5"}
    unfit = dataclasses.replace(found, tap_objective=TapObjective("l1", "raw", (("pool9", 1.0),)))
    with pytest.raises(UserError, match=r"'pool9' fits none of the taps image, stem"):
        tap_distance.check(unfit)


def test_a_side_that_the_teacher_cannot_see_is_named_with_the_teacher(pictures, monkeypatch):
    """Such as that of an ICSD-GAN's coarse images."""
    monkeypatch.setattr(Inverter, "resolution", 8)
    asked = context_of(pictures, TeacherOptions(teacher="vgg19_slim"), 11)
    with pytest.raises(UserError, match=r"^--teacher: vgg19_slim cannot see images of 8 px"):
        _ = asked.loaded_teacher
