import dataclasses

import numpy as np
import pytest

from t2i_kd.data import captioned_shapes
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.metrics import attribute_classifier as judge


@pytest.fixture(scope="module")
def few_shapes():
    shapes = captioned_shapes.load("test", 32)
    chosen = range(0, len(shapes), 9)
    return dataclasses.replace(
        shapes,
        images=shapes.images[::9],
        captions=tuple(shapes.captions[i] for i in chosen),
        attributes=tuple(shapes.attributes[i] for i in chosen),
    )


def two_coloured(ink, paper, coverage):
    return np.array(paper, "float32") + coverage[..., None] * (np.array(ink, "float32") - np.array(paper, "float32"))


def test_matte_is_the_coverage_of_a_hard_edged_shape():
    coverage = np.zeros((32, 32), "float32")
    coverage[8:16, 10:20] = 1
    image = two_coloured((200, 30, 40), (20, 30, 200), coverage)
    np.testing.assert_allclose(judge.matte(image[None])[0, ..., 0], coverage, atol=1e-5)


def test_matte_is_the_same_for_every_pair_of_colours():
    coverage = np.zeros((32, 32), "float32")
    coverage[8:16, 10:20] = np.random.default_rng(0).random((8, 10))
    pairs = [((240, 205, 40), (245, 245, 245)), ((45, 80, 220), (15, 15, 20)), ((10, 10, 10), (130, 130, 135))]
    mattes = judge.matte(np.stack([two_coloured(ink, paper, coverage) for ink, paper in pairs]))
    np.testing.assert_allclose(mattes[1:], mattes[:2], atol=1e-4)


def test_matte_of_an_empty_picture_is_zero():
    assert not judge.matte(np.full((1, 32, 32, 3), 77, "float32")).any()


def test_shrink_averages():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    small = judge.shrink(images)
    assert small.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(small[1, 3, 5], images[1, 6:8, 10:12].astype(float).mean((0, 1)), rtol=1e-6)


def test_soften_is_a_function_of_the_generator_and_stays_in_range():
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    first, second = (judge.soften(images, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 255
    assert np.abs(first - images).max() > 1


def test_the_same_seed_trains_the_same_judge(few_shapes):
    first, second = (judge.train_attribute_classifier(few_shapes, seed=3, steps=3) for _ in range(2))
    other = judge.build_attribute_classifier(first.values, seed=4)
    for mine, again in zip(first.network.get_weights(), second.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, again)
    assert np.abs(first.network.get_weights()[0] - other.get_weights()[0]).max() > 1e-3


def test_predictions_name_every_attribute(few_shapes):
    trained = judge.train_attribute_classifier(few_shapes, steps=1)
    predicted = trained.predict(few_shapes.images)
    assert len(predicted) == len(few_shapes.images)
    for row in predicted:
        assert all(row[name] in trained.values[name] for name in captioned_shapes.ATTRIBUTES)


def test_an_empty_data_set_is_refused():
    empty = CaptionedImages("none/train", np.zeros((0, 32, 32, 3), np.uint8), (), np.zeros(0, int), ())
    with pytest.raises(UserError, match="none/train"):
        judge.train_attribute_classifier(empty)
