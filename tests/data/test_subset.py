"""A part of the training images: how many, whose classes, the same for the same seed, and how a run knows it."""

import numpy as np
import pytest

from t2i_kd.data.arrays import from_arrays
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.data.subset import subset_indices, training_subset
from t2i_kd.errors import UserError
from t2i_kd.options import DataOptions
from t2i_kd.training.inputs import data_differences, example_digests

LABELS = np.array([0] * 60 + [1] * 30 + [2] * 6, "int32")


def dataset():
    count = len(LABELS)
    images = np.arange(count, dtype="uint8")[:, None, None, None] * np.ones((1, 2, 2, 3), "uint8")
    captions = tuple((f"picture {index}",) for index in range(count))
    names = tuple(f"{index}.png" for index in range(count))
    return CaptionedImages("set/train", images, captions, LABELS, ("many", "some", "few"), file_names=names)


def test_what_belongs_to_an_image_stays_with_it():
    part = training_subset(dataset(), DataOptions(data_fraction=0.25), 3)
    assert len(part) == len(part.images) == len(part.labels) == len(part.file_names) == 24
    for index in range(24):
        number = int(part.images[index][0, 0, 0])
        assert part.captions[index] == (f"picture {number}",) and part.file_names[index] == f"{number}.png"
        assert part.labels[index] == LABELS[number]
    assert list(part.images.indices) == sorted(set(part.images.indices))


def test_the_seed_alone_decides():
    first, again, other = (subset_indices(LABELS, 20, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    # A larger part holds the smaller one: a curve over the number of images adds some each time.
    assert set(first) < set(subset_indices(LABELS, 40, 1))


def test_balanced_parts_have_as_many_of_each_class_as_it_has():
    counts = np.bincount(LABELS[subset_indices(LABELS, 9, 0, balanced=True)])
    assert list(counts) == [3, 3, 3]
    counts = np.bincount(LABELS[subset_indices(LABELS, 40, 0, balanced=True)])
    assert list(counts) == [17, 17, 6]
    counts = np.bincount(LABELS[subset_indices(LABELS, 10, 0, balanced=True)])
    assert sorted(counts) == [3, 3, 4]


def test_other_parts_are_as_the_whole_is():
    counts = sum(np.bincount(LABELS[subset_indices(LABELS, 32, seed)], minlength=3) for seed in range(300)) / 300
    # Three standard errors of the mean number of images of each class.
    np.testing.assert_allclose(counts, [20, 10, 2], atol=0.45)


def test_all_of_it_is_the_set_itself():
    whole = dataset()
    assert training_subset(whole, DataOptions(), 0) is whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_fraction": 0.0}, "--data_fraction: 0.0 is not above 0"),
        ({"data_fraction": 1.5}, "--data_fraction: 1.5 is not above 0"),
        ({"data_fraction": 0.001}, "--data_fraction: 0 of 96 images of set/train"),
        ({"max_examples": 97}, "--max_examples: 97 of 96 images of set/train"),
        ({"max_examples": -1}, "--max_examples: -1 is negative"),
        ({"max_examples": 5, "data_fraction": 0.5}, "--data_fraction: give it or --max_examples"),
        ({"balance_classes": True}, "--balance_classes: only"),
        ({"max_examples": 2, "balance_classes": True}, "--max_examples: 2 of 96 .* leave 1 of its classes empty"),
        ({"max_examples": 1}, "leave 2 of its classes empty, the first .*; --balance_classes draws as many of each"),
    ],
)
def test_a_part_that_cannot_be_is_named(options, message):
    with pytest.raises(UserError, match=message):
        training_subset(dataset(), DataOptions(**options), 0)


def test_a_run_is_known_by_the_part_alone():
    part = training_subset(dataset(), DataOptions(max_examples=30), 5)
    assert list(example_digests([part])) == list(part.file_names) and len(part) == 30
    other = training_subset(dataset(), DataOptions(max_examples=30), 6)
    assert data_differences(example_digests([part]), example_digests([other]))


def test_arrays_have_parts_and_their_held_out_images_stay():
    from t2i_kd.sdn import SDNRecipe, SDNStage
    from t2i_kd.sdn.trainer import SDN

    images = np.zeros((10, 32, 32, 3), "uint8")
    arrays = from_arrays(images, ["a cat"] * 10, images[:4], ["a cat"] * 4)
    stages = (SDNStage("one", "mirrored", steps=1, tap_weights=(("image", 1.0),)),)
    system = SDN(SDNRecipe(data=DataOptions(max_examples=3), stages=stages), dataset=arrays)
    assert len(system.dataset) == system.examples == 3 and len(system.held_out) == 4
    assert [name for name, _ in system.dataset.described()] == [str(index) for index in system.dataset.images.indices]
