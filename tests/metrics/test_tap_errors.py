"""The errors of taps against hand-worked and NumPy values."""

import keras
import numpy as np
import pytest

from t2i_kd.metrics.tap_errors import SCALE_IMAGES, tap_errors, tap_scales
from t2i_kd.teachers.vgg19 import TAPS


def test_hand_worked_errors():
    reference = {"image": np.array([[1.0, -2.0], [0.0, 4.0]], "float32")}
    generated = {"image": np.array([[0.0, 0.0], [0.0, 2.0]], "float32")}
    # Differences 1, -2, 0, 2.
    assert float(tap_errors(reference, generated, "l1", {"image": 1.0})["image"]) == pytest.approx(5 / 4)
    assert float(tap_errors(reference, generated, "squared", {"image": 1.0})["image"]) == pytest.approx(9 / 4)
    assert float(tap_errors(reference, generated, "squared", {"image": 2.0})["image"]) == pytest.approx(9 / 16)
    smooth = np.mean(np.sqrt(np.array([1.0, 4, 0, 4]) + 1e-6) - 1e-3)
    assert float(tap_errors(reference, generated, "charbonnier", {"image": 1.0})["image"]) == pytest.approx(
        smooth, rel=1e-5
    )


def test_an_annealed_error_goes_from_half_the_square_to_the_absolute_value():
    reference, generated = {"image": np.array([[0.01, -3.0]], "float32")}, {"image": np.zeros((1, 2), "float32")}

    def error(progress, chosen):
        one = {"image": reference["image"][:, chosen]}, {"image": generated["image"][:, chosen]}
        return float(tap_errors(*one, "annealed", {"image": 1.0}, progress=progress)["image"])

    assert error(0.0, [0]) == pytest.approx(0.01**2 / 2, rel=1e-2)
    assert error(0.0, [1]) == pytest.approx(10**0.5 - 1, rel=1e-5)
    # Half way, E = 10^-1.5.
    assert error(0.5, [1]) == pytest.approx((9 + 0.001) ** 0.5 - 10**-1.5, rel=1e-5)
    assert error(1.0, [1]) == pytest.approx(3 - 1e-3, rel=1e-5)


def test_half_precision_taps_are_compared_in_float32():
    reference = {"image": np.full((1, 2), 1000.0, "float16")}
    generated = {"image": np.zeros((1, 2), "float16")}
    assert float(tap_errors(reference, generated, "squared", {"image": 1.0})["image"]) == pytest.approx(1e6)


def test_only_named_taps_are_compared():
    maps = {name: np.ones((1, 2), "float32") for name in TAPS}
    assert list(tap_errors(maps, maps, "l1", {"pool5": 1.0, "image": 1.0})) == ["pool5", "image"]


def test_an_images_error_is_the_mean_over_its_own_elements():
    rng = np.random.default_rng(0)
    reference, generated = ({"tap": rng.normal(0, 9, (5, 3, 2, 4)).astype("float32")} for _ in range(2))
    found = np.asarray(tap_errors(reference, generated, "squared", {"tap": 2.0}, per_image=True)["tap"])
    expected = [np.mean((a / 2 - b / 2) ** 2) for a, b in zip(reference["tap"], generated["tap"], strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    together = float(tap_errors(reference, generated, "squared", {"tap": 2.0})["tap"])
    assert together == pytest.approx(np.mean(expected), rel=1e-6)


def test_scales_are_deviations_from_the_channels_means_of_evenly_spaced_images():
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), np.uint8)
    image = keras.Input((4, 4, 3))
    teacher = keras.Model(image, {"image": image, "dead": 0 * image})
    chosen = images[[int(i * 299 / (SCALE_IMAGES - 1)) for i in range(SCALE_IMAGES)]].astype("float64")
    expected = np.sqrt(np.mean([np.var(chosen[..., channel]) for channel in range(3)]))
    assert tap_scales(teacher, list(images)) == {"image": pytest.approx(expected, rel=1e-12), "dead": 1e-6}
