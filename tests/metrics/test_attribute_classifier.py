import dataclasses

import numpy as np
import pytest

from t2i_kd.data import captioned_shapes
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.metrics import attribute_classifier as evaluator
from t2i_kd.metrics.cache import ArrayCache

pytestmark = pytest.mark.usefixtures("uncompiled")


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
    np.testing.assert_allclose(evaluator.matte(image[None])[0, ..., 0], coverage, atol=1e-5)


def test_matte_is_the_same_for_every_pair_of_colours():
    coverage = np.zeros((32, 32), "float32")
    coverage[8:16, 10:20] = np.random.default_rng(0).random((8, 10))
    pairs = [((240, 205, 40), (245, 245, 245)), ((45, 80, 220), (15, 15, 20)), ((10, 10, 10), (130, 130, 135))]
    mattes = evaluator.matte(np.stack([two_coloured(ink, paper, coverage) for ink, paper in pairs]))
    np.testing.assert_allclose(mattes[1:], mattes[:2], atol=1e-4)


def test_matte_of_an_empty_picture_is_zero():
    assert not evaluator.matte(np.full((1, 32, 32, 3), 77, "float32")).any()


def test_shrink_averages():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    small = evaluator.shrink(images)
    assert small.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(small[1, 3, 5], images[1, 6:8, 10:12].astype(float).mean((0, 1)), rtol=1e-6)


@pytest.mark.parametrize("side", [8, 24, 32, 48, 96, 100])
def test_shrink_means_over_the_area_of_a_pixel(side):
    """Every pixel as a square of 32 x 32 of its colour, averaged over squares of `side` x `side`."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype("float32")
    fine = image.repeat(32, 0).repeat(32, 1).reshape(32, side, 32, side, 3)
    np.testing.assert_allclose(evaluator.shrink([image])[0], fine.mean((1, 3), np.float64), rtol=1e-5)
    if side == 32:
        np.testing.assert_array_equal(evaluator.shrink([image])[0], image)


@pytest.mark.slow
def test_the_evaluator_is_kept_and_read_again(few_shapes, tmp_path, monkeypatch):
    def weights(**changes):
        trained = evaluator.train_attribute_classifier(
            few_shapes, cache=ArrayCache(tmp_path), **{"steps": 2, "key": "a"} | changes
        )
        return trained.fingerprint

    first = weights()
    (kept,) = tmp_path.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(evaluator.keras.Model, "fit", lambda *given, **more: pytest.fail("trained again"))
        assert weights() == first
    assert len({first, weights(seed=1), weights(steps=3)}) == 3
    assert weights(key="b") == first
    assert kept.name.startswith("attributes-") and len(list(tmp_path.iterdir())) == 4


def test_a_evaluator_that_gives_nan_is_named(few_shapes):
    trained = evaluator.train_attribute_classifier(few_shapes, steps=1)
    trained.network.get_layer("shape").set_weights(
        [np.full(each.shape, np.nan) for each in trained.network.get_layer("shape").get_weights()]
    )
    with pytest.raises(UserError, match="attribute_accuracy: its classifier's logits of shape hold NaN"):
        trained.predict(few_shapes.images[:3])


@pytest.mark.slow
def test_the_same_seed_trains_the_same_evaluator(few_shapes):
    first, second = (evaluator.train_attribute_classifier(few_shapes, seed=3, steps=3) for _ in range(2))
    other = evaluator.build_attribute_classifier(first.values, seed=4)
    for mine, again in zip(first.network.get_weights(), second.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, again)
    assert np.abs(first.network.get_weights()[0] - other.get_weights()[0]).max() > 1e-3


def test_predictions_name_every_attribute(few_shapes):
    trained = evaluator.train_attribute_classifier(few_shapes, steps=1)
    predicted = trained.predict(few_shapes.images)
    assert len(predicted) == len(few_shapes.images)
    for row in predicted:
        assert all(row[name] in trained.values[name] for name in captioned_shapes.ATTRIBUTES)


def test_an_empty_data_set_is_refused():
    empty = CaptionedImages("none/train", np.zeros((0, 32, 32, 3), np.uint8), (), np.zeros(0, int), ())
    with pytest.raises(UserError, match="none/train"):
        evaluator.train_attribute_classifier(empty)
