"""The held-out side is a fixed function of the names."""

import hashlib

import pytest

from t2i_kd.data.holdout import held_out, position


def test_position_is_the_digest():
    assert position("a.jpg") == int(hashlib.sha256(b"a.jpg").hexdigest()[:16], 16) / 16**16


def test_share_and_stability():
    names = [f"images/{number}.jpg" for number in range(2000)]
    chosen = held_out(names, 0.1)
    assert 150 < len(chosen) < 250
    assert held_out(names[:1000], 0.1) == chosen & set(names[:1000])
    assert held_out(reversed(names), 0.1) == chosen


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_neither_side_is_empty(count, share):
    assert 1 <= len(held_out([f"{number}.png" for number in range(count)], share)) < count


def test_one_or_none():
    assert held_out(["a"], 1.0) == held_out([], 1.0) == frozenset()
