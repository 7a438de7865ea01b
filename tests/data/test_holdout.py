"""The held-out side is a fixed function of the names."""

import hashlib

import pytest

from t2i_kd.data.holdout import copies_by_name, held_out, held_out_groups, joined, position


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


@pytest.mark.parametrize(
    "family",
    [
        ["x.png", "x (1).png"],
        ["a/x.png", "a/x (2).jpg", "a/x copy.png", "a/x copy 2.png"],
        ["x.png", "x - Copy.png", "x - Copy (2).png"],
        ["x.jpg", "x.webp"],
    ],
)
def test_copies_have_one_stem(family):
    others = ["y.png", "x1.png", "b/x.png", "copy.png", *(f"{number}.png" for number in range(40))]
    assert copies_by_name(family + others, 0.1) == [family]


def test_a_numbering_is_no_family_of_copies():
    assert copies_by_name([f"photo ({number}).jpg" for number in range(300)], 0.1) == []


def test_groups_join_and_go_where_their_shortest_name_goes():
    names = ["aa", "b", "c", "dd", "e"]
    groups = joined(names, [["aa", "b"], ["dd", "aa"], ["c"]])
    assert sorted(groups) == [["b", "aa", "dd"], ["c"], ["e"]]
    for share in (0.1, 0.5, 0.9):
        chosen = held_out_groups(groups, share)
        assert ("b" in chosen) == ("aa" in chosen) == ("dd" in chosen)
        assert chosen & {"b", "c", "e"} == held_out(["b", "c", "e"], share)
    assert len(held_out_groups([["a", "b", "c"]], 0.1)) == 1
