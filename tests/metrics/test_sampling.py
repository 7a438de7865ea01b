from collections import Counter

import numpy as np

from t2i_kd.data.captioned_images import Chosen
from t2i_kd.metrics import sampling
from t2i_kd.metrics.sampling import draw_pairs, generate

CAPTIONS = tuple(tuple(f"picture {i} caption {j}" for j in range(3)) for i in range(10))
GROUPS = [[0, 1, 2, 3], [4], [5, 6], [7, 8, 9]]


def test_groups_and_their_pictures_are_asked_for_evenly():
    pairs = draw_pairs(CAPTIONS, GROUPS, 18, seed=1)
    assert len(pairs) == 18
    assert all(caption in CAPTIONS[picture] for picture, caption in pairs)
    group_of = {picture: index for index, group in enumerate(GROUPS) for picture in group}
    asked = Counter(group_of[picture] for picture, _ in pairs)
    assert set(asked.values()) == {4, 5}
    pictures = Counter(picture for picture, _ in pairs)
    assert max(pictures[i] for i in range(4)) - min(pictures[i] for i in range(4)) <= 1


def test_a_text_returns_only_after_all_texts_of_its_group():
    pairs = draw_pairs((("a", "b"), ("a", "c")), [[0, 1]], 6, seed=0)
    texts = [caption for _, caption in pairs]
    assert sorted(texts[:3]) == ["a", "b", "c"]
    assert texts[3:] == texts[:3]


def test_the_seed_alone_decides():
    assert draw_pairs(CAPTIONS, GROUPS, 12, seed=5) == draw_pairs(CAPTIONS, GROUPS, 12, seed=5)
    assert draw_pairs(CAPTIONS, GROUPS, 12, seed=5) != draw_pairs(CAPTIONS, GROUPS, 12, seed=6)


def test_every_picture_has_its_own_seed(monkeypatch):
    class Student:
        resolution = 2

        def generate(self, captions, seeds):
            assert len(captions) <= 2
            return np.array([[int(caption), seed, 0] for caption, seed in zip(captions, seeds, strict=True)]).reshape(
                -1, 1, 1, 3
            )

    monkeypatch.setattr(sampling, "AT_ONCE", 2)
    generated = generate(Student(), ("4", "5", "6"), 7)
    assert generated.shape == (3, 2, 2, 3) and generated.dtype == np.uint8
    assert generated[:, 1, 1].tolist() == [[4, 7, 0], [5, 8, 0], [6, 9, 0]]


def test_chosen_pictures_come_in_the_order_asked_for():
    chosen = Chosen(["a", "b", "c"], [2, 0, 2])
    assert list(chosen) == ["c", "a", "c"] and len(chosen) == 3
