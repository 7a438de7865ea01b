"""BigGAN's networks: shapes, what depends on what, and that nothing depends on who shares the batch."""

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.kd_dlgan.networks import Discriminator, FeatureHead, build_generator, width
from t2i_kd.student import load_network, save_network

RNG = np.random.default_rng(0)
TEXT, NOISE = 5, 3


def inputs(rows):
    return {
        "text": RNG.standard_normal((rows, TEXT)).astype("float32"),
        "noise": RNG.standard_normal((rows, NOISE)).astype("float32"),
    }


@pytest.fixture(scope="module")
def generator():
    keras.utils.set_random_seed(0)
    return build_generator(32, TEXT, NOISE, channels=2)


@pytest.fixture(scope="module")
def discriminator():
    keras.utils.set_random_seed(0)
    discriminator = Discriminator(32, TEXT, channels=2)
    discriminator.normalise()
    return discriminator


def test_widths_are_the_papers_up_to_32_pixels():
    assert [width(64, side) for side in (4, 8, 16, 32, 64, 128)] == [256, 256, 256, 256, 128, 64]


def test_it_has_as_many_weights_as_biggan():
    """By hand: the dense layer, three blocks of two 3x3 and a 1x1 with two affine maps each, and the image."""
    found = build_generator(32, TEXT, NOISE, channels=1)
    block = 2 * (9 * 16 + 4) + (16 + 4) + 2 * 2 * (TEXT * 4 + 4)
    last = 2 * 4 + 9 * 4 * 3 + 3
    assert sum(int(np.prod(v.shape)) for v in found.trainable_variables) == NOISE * 64 + 64 + 3 * block + last


@pytest.mark.parametrize("side", [16, 64])
def test_other_sides(side):
    image = build_generator(side, TEXT, NOISE, channels=1)(inputs(2), training=False)["image"]
    assert tuple(image.shape) == (2, side, side, 3)
    discriminator = Discriminator(side, TEXT, channels=1)
    assert tuple(discriminator.scores(discriminator.trunk(image), inputs(2)["text"]).shape) == (2, 1)


def test_images_are_pixels_and_depend_on_text_and_noise(generator):
    given = inputs(2)
    image = np.asarray(generator(given, training=False)["image"])
    assert image.shape == (2, 32, 32, 3) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 255
    for name in given:
        other = np.asarray(generator({**given, name: given[name][::-1]}, training=False)["image"])
        assert np.abs(other - image).max() > 0


def test_an_answer_does_not_depend_on_who_shares_the_batch(generator):
    given = inputs(3)
    alone = {name: values[1:2] for name, values in given.items()}
    np.testing.assert_allclose(
        generator(given, training=False)["image"][1:2], generator(alone, training=False)["image"], atol=1e-3
    )


def test_the_file_of_a_generator_gives_the_same_images(generator, tmp_path):
    statistics = [each for each in generator.non_trainable_variables if "moving" in each.path]
    kept = [np.array(each) for each in statistics]
    for each in statistics:
        each.assign(RNG.uniform(0.5, 2, each.shape))
    save_network(generator, tmp_path / "generator.keras")
    given = inputs(2)
    np.testing.assert_array_equal(
        load_network(tmp_path / "generator.keras")(given, training=False)["image"],
        generator(given, training=False)["image"],
    )
    assert statistics
    for each, value in zip(statistics, kept, strict=True):
        each.assign(value)


def test_the_score_is_a_projection(discriminator):
    """S = w h + b + <W t, h>, h the sum of what is positive in the last map."""
    images, text = RNG.uniform(0, 255, (2, 32, 32, 3)).astype("float32"), inputs(2)["text"]
    h = np.asarray(discriminator.trunk(images))
    assert h.shape == (2, 8) and h.min() >= 0 and np.abs(h).max() > 0
    weights = {layer.name: layer.get_weights() for layer in discriminator.normalised}
    w, b = weights["discriminator_score"]
    (projection,) = weights["discriminator_text"]
    expected = h @ w + b + ((text @ projection) * h).sum(1, keepdims=True)
    np.testing.assert_allclose(discriminator.scores(h, text), expected, rtol=1e-4, atol=1e-5)


def test_the_head_is_two_dense_layers():
    head, features = FeatureHead(4, 6, 3), RNG.standard_normal((2, 4)).astype("float32")
    first, second = (layer.get_weights() for layer in head.normalised)
    np.testing.assert_allclose(
        head(features), (features @ first[0] + first[1]) @ second[0] + second[1], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("side", [8, 24, 48, 0])
def test_sides_that_do_not_fit_are_named(side):
    with pytest.raises(UserError, match="--resolution"):
        build_generator(side, TEXT, NOISE, 1)
    with pytest.raises(UserError, match="--resolution"):
        Discriminator(side, TEXT, 1)
