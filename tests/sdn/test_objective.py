"""SDN's objective against hand-worked and NumPy values."""

import numpy as np
import pytest

from t2i_kd.sdn.objective import tap_errors
from t2i_kd.teachers.vgg19 import TAPS


def test_hand_worked_errors():
    real = {"image": np.array([[1.0, -2.0], [0.0, 4.0]], "float32")}
    made = {"image": np.array([[0.0, 0.0], [0.0, 2.0]], "float32")}
    # Differences 1, -2, 0, 2.
    assert float(tap_errors(real, made, "l1", {"image": 1.0})["image"]) == pytest.approx(5 / 4)
    assert float(tap_errors(real, made, "squared", {"image": 1.0})["image"]) == pytest.approx(9 / 4)
    assert float(tap_errors(real, made, "squared", {"image": 2.0})["image"]) == pytest.approx(9 / 16)
    smooth = np.mean(np.sqrt(np.array([1.0, 4, 0, 4]) + 1e-6) - 1e-3)
    assert float(tap_errors(real, made, "charbonnier", {"image": 1.0})["image"]) == pytest.approx(smooth, rel=1e-5)


def test_an_annealed_error_goes_from_half_the_square_to_the_absolute_value():
    real, made = {"image": np.array([[0.01, -3.0]], "float32")}, {"image": np.zeros((1, 2), "float32")}

    def error(progress, chosen):
        one = {"image": real["image"][:, chosen]}, {"image": made["image"][:, chosen]}
        return float(tap_errors(*one, "annealed", {"image": 1.0}, progress=progress)["image"])

    assert error(0.0, [0]) == pytest.approx(0.01**2 / 2, rel=1e-2)
    assert error(0.0, [1]) == pytest.approx(10**0.5 - 1, rel=1e-5)
    # Half way, E = 10^-1.5.
    assert error(0.5, [1]) == pytest.approx((9 + 0.001) ** 0.5 - 10**-1.5, rel=1e-5)
    assert error(1.0, [1]) == pytest.approx(3 - 1e-3, rel=1e-5)


def test_half_precision_taps_are_compared_in_float32():
    real = {"image": np.full((1, 2), 1000.0, "float16")}
    made = {"image": np.zeros((1, 2), "float16")}
    assert float(tap_errors(real, made, "squared", {"image": 1.0})["image"]) == pytest.approx(1e6)


def test_only_named_taps_are_compared():
    maps = {name: np.ones((1, 2), "float32") for name in TAPS}
    assert list(tap_errors(maps, maps, "l1", {"pool5": 1.0, "image": 1.0})) == ["pool5", "image"]
