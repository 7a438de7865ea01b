"""The share of images whose class a probe names."""

import types

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.linear_model import LogisticRegression

from benchmarks.caption_class import class_scores, shares, targets


def test_shares_count_the_first_and_the_first_five():
    scores = np.array(
        [[9, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7], [0, 0, 9, 1, 2, 3, 4], [7, 6, 5, 4, 3, 2, 1]], float
    )
    # Right first; right last; right last of five; not among the first five.
    assert shares(np.arange(10, 17), scores, [10, 16, 13, 16]) == (0.5, 0.75)


@pytest.mark.parametrize("count", [2, 3])
def test_every_class_has_a_score(count):
    features, classes = np.repeat(np.eye(count), 5, axis=0), np.repeat(np.arange(count), 5)
    scores = class_scores(LogisticRegression().fit(features, classes), features)
    assert scores.shape == (5 * count, count) and (scores.argmax(1) == classes).all()


def test_emoji_are_named_by_their_files():
    files = ("1f44b.png", "1f44b-1f3fb.png", "1f469-1f3fd-200d-1f91d-200d-1f468-1f3ff.png", "2764-fe0f.png")
    named = targets("noto_emoji", types.SimpleNamespace(file_names=files))
    assert list(named["skin_tones"]) == ["", "light", "medium and dark", ""]
    assert all(map(str.isidentifier, named))  # TensorFlow makes scopes of them
    assert list(named["emoji"]) == ["1F44B", "1F44B", "1F469-200D-1F91D-200D-1F468", "2764"]
