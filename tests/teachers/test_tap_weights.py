"""Which taps a stage compares."""

import pytest

from t2i_kd.errors import UserError
from t2i_kd.teachers.tap_weights import resolve_tap_weights
from t2i_kd.teachers.vgg19 import TAPS


def test_weights():
    assert resolve_tap_weights(()) == dict.fromkeys(TAPS, 1.0)
    assert resolve_tap_weights((("image", 3.0), ("pool5", 0.5))) == {"image": 3.0, "pool5": 0.5}
    blocks = resolve_tap_weights((("*", 1.0), ("conv*", 0.0), ("conv5_1", 2.0)))
    assert blocks == {"image": 1.0, **{f"pool{i}": 1.0 for i in range(1, 6)}, "conv5_1": 2.0}


@pytest.mark.parametrize(
    ("weights", "named"),
    [((("conv9_1", 1.0),), "conv9_1"), ((("image", -1.0),), "negative"), ((("image", 0.0),), "nothing")],
)
def test_wrong_weights_are_named(weights, named):
    with pytest.raises(UserError, match=named):
        resolve_tap_weights(weights)
