"""Which taps a stage compares."""

import pytest

from t2i_kd.errors import UserError
from t2i_kd.teachers.tap_weights import resolve_tap_weights
from t2i_kd.teachers.vgg19 import TAPS


def test_weights():
    assert resolve_tap_weights((), TAPS) == dict.fromkeys(TAPS, 1.0)
    assert resolve_tap_weights((("image", 3.0), ("pool5", 0.5)), TAPS) == {"image": 3.0, "pool5": 0.5}
    blocks = resolve_tap_weights((("*", 1.0), ("conv*", 0.0), ("conv5_1", 2.0)), TAPS)
    assert blocks == {"image": 1.0, **{f"pool{i}": 1.0 for i in range(1, 6)}, "conv5_1": 2.0}


@pytest.mark.parametrize(
    ("weights", "named"),
    [((("conv9_1", 1.0),), "conv9_1"), ((("image", -1.0),), "negative"), ((("image", 0.0),), "nothing")],
)
def test_wrong_weights_are_named(weights, named):
    with pytest.raises(UserError, match=named):
        resolve_tap_weights(weights, TAPS)


def test_the_taps_are_the_teachers_and_a_message_names_some_of_them():
    taps = [f"layer_{index}" for index in range(200)]
    assert resolve_tap_weights((("layer_19?", 2.0), ("layer_3", 1.0)), taps) == {
        "layer_3": 1.0,
        **{f"layer_19{digit}": 2.0 for digit in range(10)},
    }
    with pytest.raises(UserError, match=r"'image' fits none of the taps layer_0, .*, layer_29 and 170 more"):
        resolve_tap_weights((("image", 1.0),), taps)
