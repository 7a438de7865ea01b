"""The noise of a training image follows what its caption does not say of it."""

import dataclasses

import numpy as np
import pytest

from t2i_kd.data import from_arrays
from t2i_kd.data.batches import Batches, caption_pairs
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.options import DataOptions, NoiseOptions, StudentOptions, TeacherOptions
from t2i_kd.sdn import SDNRecipe, SDNStage
from t2i_kd.sdn import image_codes as module
from t2i_kd.sdn.image_codes import (
    PENALTIES,
    Code,
    ImageCodes,
    check_codes,
    image_codes,
    principal_directions,
    ridge,
    word_counts,
)
from t2i_kd.sdn.trainer import SDN

RNG = np.random.default_rng(0)
SLIM = TeacherOptions(teacher="vgg19_slim")
CLOSE = {"noise_correlation": 0.5}


def test_ridge_takes_the_penalty_of_the_least_cross_validated_error():
    """By the hat matrix of each penalty, written out."""
    inputs = RNG.standard_normal((30, 6)) * [3, 2, 1, 1, 0.5, 0.1]
    outputs = inputs @ RNG.standard_normal((6, 4)) + 2 * RNG.standard_normal((30, 4))
    inputs, outputs = inputs - inputs.mean(0), outputs - outputs.mean(0)
    largest, found = np.linalg.eigvalsh(inputs.T @ inputs)[-1], []
    for penalty in PENALTIES * largest:
        solved = np.linalg.solve(inputs.T @ inputs + penalty * np.eye(6), inputs.T)
        left = outputs - inputs @ solved @ outputs
        found.append(((left**2).sum() / (29 - np.trace(inputs @ solved)) ** 2, solved @ outputs))
    best = min(found, key=lambda each: each[0])
    assert 0 < [error for error, _ in found].index(best[0]) < len(PENALTIES) - 1
    np.testing.assert_allclose(ridge(inputs, outputs), best[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rows", [1, 3])
def test_words_that_say_nothing_or_are_too_many_explain_nothing_exactly(rows):
    """All captions alike; and as many words as images, which would explain everything."""
    assert not ridge(np.zeros((rows, 2)), RNG.standard_normal((rows, 3))).any()
    assert np.isfinite(ridge(RNG.standard_normal((rows, 5)), RNG.standard_normal((rows, 3)))).all()


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_principal_directions_are_those_of_the_singular_values(shape):
    rows = RNG.standard_normal(shape) @ np.diag(0.7 ** np.arange(shape[1]))
    directions, spreads = principal_directions(rows, 5)
    _, sizes, right = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(spreads, sizes[:5] / shape[0] ** 0.5, rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(directions * right[:5].T, axis=0)), 1, rtol=1e-6)
    assert (np.take_along_axis(directions, np.abs(directions).argmax(0)[None], 0) > 0).all()


def test_frequent_words_are_counted_as_the_mean_of_an_images_captions(monkeypatch):
    captions = [["A red red cat", "a dog"], ["a cat"]]
    counts = word_counts(captions)
    assert sorted(counts[0].tolist()) == [0.5, 0.5, 1.0, 1.0] and sorted(counts[1].tolist()) == [0, 0, 1.0, 1.0]
    monkeypatch.setattr(module, "MOST_WORDS", 1)
    assert word_counts(captions).tolist() == [[1.0], [1.0]]


def test_codes_are_uncorrelated_and_do_not_tell_the_class():
    """Two classes far apart, each with a word of its own."""
    labels = np.arange(60) % 2
    features = RNG.standard_normal((60, 2, 8)) * (2.0 ** -np.arange(8)) + 50.0 * labels[:, None, None]
    words = word_counts([[("rose", "daisy")[label]] for label in labels])
    found = Code(features.astype("float32"), words, 4)(features, words)
    assert found.shape == (60, 2, 4)
    rows = found.reshape(-1, 4)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(4), atol=1e-2)
    # Without the words the first code would be the class, of 1 and -1.
    assert np.abs(found[labels == 0].mean((0, 1))).max() < 0.05
    told = Code(features.astype("float32"), np.zeros((60, 1)), 4)(features, np.zeros((60, 1)))
    assert np.abs(told[labels == 0].mean((0, 1))).max() == pytest.approx(1, abs=0.05)


def test_noise_is_code_and_drawn_noise_in_the_shares_that_keep_its_variance():
    values = np.arange(12, dtype="float32").reshape(3, 2, 2)
    drawn = np.array([[1.0, -1], [0, 2]], "float32")
    found = ImageCodes(values, 0.6).noise([2, 0], np.array([True, False]), drawn)
    np.testing.assert_allclose(found, [[0.6 * 10 + 0.8, 0.6 * 11 - 0.8], [0, 0.6 + 1.6]], rtol=1e-6)
    assert found.dtype == np.float32


def few_images(count=12):
    pixels = RNG.integers(0, 255, (count, 64, 64, 3), np.uint8)
    return CaptionedImages("train", pixels, [["a cat", "one cat"]] * count, np.zeros(count, int), ["cat"])


def test_a_batchs_noise_is_that_of_its_images(monkeypatch):
    """Also where most images come after those that the codes are fitted to; mirrored ones have codes of their own."""
    data = few_images()
    codes = image_codes(data, 3, SLIM, flip=True, seed=0)
    assert codes.shape == (12, 2, 3) and codes.dtype == np.float32
    np.testing.assert_allclose((codes.reshape(-1, 3) ** 2).mean(0), 1, rtol=1e-4)
    monkeypatch.setattr(module, "FITTED_IMAGES", 8)
    fitted = image_codes(data, 3, SLIM, flip=True, seed=0)
    rows = np.random.default_rng([0, 12]).permutation(12)[:8]
    np.testing.assert_allclose((fitted[rows].reshape(-1, 3) ** 2).mean(0), 1, rtol=1e-4)
    assert np.abs(fitted).max() < 20 and not np.allclose(fitted, codes)

    inputs = {"tokens": np.zeros((24, 2), "int32")}
    plain = Batches(data, inputs, 4, 5, 0, 2, flip=True, noise_dim=3)[1]
    batch = Batches(data, inputs, 4, 5, 0, 2, flip=True, noise_dim=3, codes=ImageCodes(codes, 0.8))[1]
    np.testing.assert_array_equal(plain["image"], batch["image"])
    both = np.stack([data.images, data.images[:, :, ::-1]], axis=1)
    for image, drawn, noise in zip(batch["image"], plain["noise"], batch["noise"], strict=True):
        ((index, mirrored),) = np.argwhere((both == image).all((2, 3, 4)))
        np.testing.assert_allclose(noise, 0.8 * codes[index, mirrored] + 0.6 * drawn, rtol=1e-5, atol=1e-6)


def test_the_noise_of_a_runs_batches_follows_the_images_and_no_held_out_loss_is_measured():
    """Of held-out images it is not known which noise means them, so that their loss would be another function."""
    images = few_images(24).images
    dataset = from_arrays(images, ["a"] * 24, images[:4], ["a"] * 4)
    system = SDN(recipe_of(CLOSE, stages=(PERCEPTUAL,)), dataset=dataset)
    (plan,) = system.plans
    batch = system.batches(plan, 0, 1)[0]
    drawn = dataclasses.replace(system.recipe, noise=NoiseOptions())
    plain = SDN(drawn, dataset=dataset).batches(plan, 0, 1)[0]
    np.testing.assert_array_equal(batch["image"], plain["image"])
    chosen = system.batches(plan, 0, 1).chosen(0)
    expected = system.codes.noise(caption_pairs(system.dataset)[chosen, 0], np.zeros(len(chosen), bool), plain["noise"])
    np.testing.assert_allclose(batch["noise"], expected, rtol=1e-6)
    assert not np.allclose(batch["noise"], plain["noise"])
    assert "held_out_loss" not in system.measure(system.own_trainer(plan), 1)


def test_images_that_differ_in_too_few_directions_are_refused():
    with pytest.raises(UserError, match=r"--noise_dim: 30 is too wide .* 12 images differ in 11 directions"):
        image_codes(few_images(), 30, SLIM, flip=False, seed=0)
    same = few_images()
    same = dataclasses.replace(same, images=np.repeat(same.images[:1], 12, axis=0))
    with pytest.raises(UserError, match="differ in 0 directions"):
        image_codes(same, 2, SLIM, flip=False, seed=0)


PERCEPTUAL = SDNStage("stage2", "perceptual", 1)
ADVERSARIAL = SDNStage("gan", "adversarial", 1)


def recipe_of(noise, noise_dim=4, teacher="vgg19_slim", stages=(PERCEPTUAL, ADVERSARIAL)):
    return SDNRecipe(
        data=DataOptions(resolution=64),
        teacher=TeacherOptions(teacher=teacher),
        student=StudentOptions(noise_dim=noise_dim),
        noise=NoiseOptions(**noise),
        stages=stages,
    )


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ((CLOSE, 0), "--noise_correlation: there is no noise"),
        (({"noise_teacher": "vgg19_slim"},), "--noise_teacher: only a --noise_correlation above 0 reads it"),
        ((CLOSE, 4, "none"), "--noise_correlation: needs a network"),
        ((CLOSE, 4, "vgg19_slim", (ADVERSARIAL,)), "--noise_correlation: no stage compares"),
    ],
)
def test_recipes_whose_noise_cannot_follow_images_are_refused(recipe, told):
    with pytest.raises(UserError, match=told):
        check_codes(recipe_of(*recipe))


def test_recipes_whose_noise_can_follow_images_are_not():
    check_codes(recipe_of(CLOSE))
    check_codes(recipe_of(CLOSE | {"noise_teacher": "efficientnet_lite0"}, teacher="none"))
    check_codes(recipe_of(CLOSE, stages=(dataclasses.replace(ADVERSARIAL, distance_weight=1.0),)))
    check_codes(recipe_of({}, noise_dim=0))


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_correlation_out_of_its_range_is_refused(value):
    with pytest.raises(UserError, match="--noise_correlation"):
        NoiseOptions(noise_correlation=value)
