"""The procedural data set: what it shows, what it says, what it holds back."""

import hashlib
import itertools
import re

import numpy as np
import pytest

from t2i_kd.data import captioned_shapes
from t2i_kd.data.captioned_shapes import ATTRIBUTES, BACKGROUNDS, COLOURS, combinations, draw
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError

# SHA-256 of all pictures, then all captions, at 32 px.
GOLDEN = {
    "train": "9f566612ecb3364ae636528a792aa91dd53173c5b5c8ddb2f0af01156e15e882",
    "test": "8995a938ce67f4937e254c06c4f13c1420f85d448af8d329b6ef7fbce7471370",
}
PAIRS = list(itertools.combinations(ATTRIBUTES, 2))


@pytest.fixture(scope="module")
def splits():
    return {split: load_dataset("captioned_shapes", split, 32) for split in ("train", "test")}


class Still:
    """A generator whose wobble is nothing."""

    def uniform(self, low, high, count):
        return np.zeros(count)


def test_there_is_enough_to_tell_apart():
    fewest = {"colour": 4, "shape": 3, "place": 4, "size": 2, "background": 2}
    assert list(ATTRIBUTES) == list(fewest)
    for name, least in fewest.items():
        assert len(set(ATTRIBUTES[name])) == len(ATTRIBUTES[name]) >= least


def test_whole_combinations_are_held_out():
    train, test = ({tuple(each.items()) for each in combinations(split)} for split in ("train", "test"))
    assert not train & test
    assert len(train | test) == np.prod([len(values) for values in ATTRIBUTES.values()])
    assert 0.15 <= len(test) / len(train | test) <= 0.3


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_pair_of_values_occurs_in_training(pair):
    seen = {tuple(each[name] for name in pair) for each in combinations("train")}
    assert seen == set(itertools.product(*(ATTRIBUTES[name] for name in pair)))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_value_is_held_out_somewhere(name):
    assert {each[name] for each in combinations("test")} == set(ATTRIBUTES[name])


def test_no_two_held_out_combinations_differ_in_their_shape_alone():
    others = [tuple(value for name, value in each.items() if name != "shape") for each in combinations("test")]
    assert len(set(others)) == len(others)


def test_pictures_are_of_their_split(splits):
    for split, dataset in splits.items():
        assert dataset.name == f"captioned_shapes/{split}"
        assert dataset.images.dtype == np.uint8 and dataset.images.shape == (len(dataset), 32, 32, 3)
        assert len(dataset.captions) == len(dataset.labels) == len(dataset.attributes) == len(dataset)
        known = combinations(split)
        assert all(known[label] == shown for label, shown in zip(dataset.labels, dataset.attributes, strict=True))
        assert set(dataset.labels) == set(range(len(known)))
        assert [" ".join(each.values()) for each in known] == list(dataset.label_names)
    pictures = [{image.tobytes() for image in dataset.images} for dataset in splits.values()]
    assert not pictures[0] & pictures[1]
    assert len(pictures[0]) == len(splits["train"])


def test_every_caption_names_its_attributes_and_no_other(splits):
    for dataset in splits.values():
        for captions, shown in zip(dataset.captions, dataset.attributes, strict=True):
            assert len(set(captions)) == len(captions) >= 2
            for caption in captions:
                for name, value in shown.items():
                    assert re.search(rf"\b{value}\b", caption), (caption, name)
                    for other in set(ATTRIBUTES[name]) - {value}:
                        assert not re.search(rf"\b{other}\b", caption), (caption, other)


def test_there_are_several_phrasings(splits):
    texts = set()
    for captions, shown in zip(splits["train"].captions, splits["train"].attributes, strict=True):
        for caption in captions:
            for name, value in shown.items():
                caption = caption.replace(value, f"<{name}>")
            texts.add(caption)
    assert len(texts) >= 4


@pytest.mark.parametrize("split", GOLDEN)
def test_it_is_the_same_everywhere(splits, split):
    dataset = splits[split]
    found = hashlib.sha256(dataset.images.tobytes() + "\n".join(dataset.all_captions).encode()).hexdigest()
    assert found == GOLDEN[split]


def test_a_large_square_is_where_and_what_it_should_be():
    shown = {"colour": "red", "shape": "square", "place": "top left", "size": "large", "background": "white"}
    picture = draw(shown, 100, Still())
    # Centre (30, 30), half side 26: columns and rows 4 to 55 are red.
    assert (picture[6:54, 6:54] == COLOURS["red"]).all()
    assert (picture[58:] == BACKGROUNDS["white"]).all() and (picture[:, 58:] == BACKGROUNDS["white"]).all()
    assert (picture[:3] == BACKGROUNDS["white"]).all() and (picture[:, :3] == BACKGROUNDS["white"]).all()


@pytest.mark.parametrize(
    "place", [("top left", 30, 30), ("top right", 70, 30), ("bottom left", 30, 70), ("bottom right", 70, 70)]
)
@pytest.mark.parametrize(("size", "half"), [("small", 17), ("large", 26)])
# A cross is two bars of a third of the width, which share a ninth of the square.
@pytest.mark.parametrize(
    ("shape", "share"), [("circle", np.pi / 4), ("square", 1.0), ("triangle", 0.5), ("cross", 2 / 3 - 1 / 9)]
)
def test_shapes_have_their_colour_place_and_area(place, size, half, shape, share):
    name, x, y = place
    shown = {"colour": "blue", "shape": shape, "place": name, "size": size, "background": "black"}
    picture = draw(shown, 100, Still()).astype(int)
    assert tuple(picture[y, x]) == COLOURS["blue"]
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert tuple(picture[row, column]) == BACKGROUNDS["black"]
    # Blue goes from 20 on the background to 220 in the shape.
    covered = (picture[..., 2] - 20) / 200
    assert covered.sum() == pytest.approx(share * (2 * half) ** 2, rel=0.05)
    rows, columns = np.nonzero(covered > 0.5)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(x, abs=1)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(y, abs=1)


def test_the_resolution_only_resamples():
    shown = combinations("train")[3]
    large = draw(shown, 64, np.random.default_rng(1)).astype(float)
    small = draw(shown, 32, np.random.default_rng(1)).astype(float)
    assert np.abs(large.reshape(32, 2, 32, 2, 3).mean((1, 3)) - small).mean() < 1.5


def test_an_unknown_split_is_named():
    with pytest.raises(UserError, match="no split 'validation'"):
        captioned_shapes.load("validation", 32)
