"""ICSD-GAN's generator and discriminators: shapes, names, and what depends on what."""

import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.icsd_gan.networks import Discriminator, build_generator, sides

RNG = np.random.default_rng(0)


def inputs(rows, text_dim=6, noise=7):
    return {
        "text": RNG.standard_normal((rows, text_dim)).astype("float32"),
        "noise": RNG.standard_normal((rows, noise)).astype("float32"),
    }


@pytest.fixture(scope="module")
def generator():
    return build_generator(32, 3, text_dim=6, noise_dim=3, condition_dim=4, channels=8)


def test_sides():
    assert sides(256, 3) == [64, 128, 256]
    assert sides(64, 3) == [16, 32, 64]
    assert sides(32, 1) == [32]


@pytest.mark.parametrize(("resolution", "stages"), [(32, 0), (32, 4), (96, 3), (48, 2), (30, 1)])
def test_sides_that_cannot_be_reached_are_refused(resolution, stages):
    with pytest.raises(UserError, match=r"--image_stages|--resolution"):
        sides(resolution, stages)


def test_every_stage_has_its_image_and_its_features(generator):
    generated = generator(inputs(2), training=False)
    shapes = {name: tuple(value.shape) for name, value in generated.items()}
    assert shapes == {
        "image_8": (2, 8, 8, 3),
        "image_16": (2, 16, 16, 3),
        "image": (2, 32, 32, 3),
        "features_8": (2, 8),
        "features_16": (2, 4),
        "features_32": (2, 2),
        "text": (2, 6),
        "mean": (2, 4),
        "log_sigma": (2, 4),
    }
    for name in ("image_8", "image_16", "image"):
        pixels = np.asarray(generated[name])
        assert pixels.dtype == np.float32 and pixels.min() >= 0 and pixels.max() <= 255


def test_the_condition_is_mean_plus_sigma_times_noise(generator):
    """Noise of the condition acts through sigma alone: where sigma is next to 0, it changes nothing."""
    given = inputs(2)
    layer = generator.get_layer("condition")
    before = layer.get_weights()
    other = {**given, "noise": given["noise"] + np.array([0, 0, 0, 1, 1, 1, 1], "float32")}
    assert not np.allclose(generator(given)["image"], generator(other)["image"], atol=1e-3)
    kernel, bias = np.zeros_like(before[0]), np.concatenate([np.ones(4), np.full(4, -1e4)]).astype("float32")
    layer.set_weights([kernel, bias])
    try:
        generated = generator(given)
        np.testing.assert_allclose(generated["mean"], 1.0)
        # LeakyReLU of -1e4 with slope 0.2.
        np.testing.assert_allclose(generated["log_sigma"], -2e3)
        np.testing.assert_array_equal(generated["image"], generator(other)["image"])
    finally:
        layer.set_weights(before)


def test_an_answer_does_not_depend_on_who_shares_the_batch(generator):
    given = inputs(3)
    alone = {name: values[1:2] for name, values in given.items()}
    np.testing.assert_allclose(generator(given)["image"][1:2], generator(alone)["image"], atol=1e-3)


def test_later_stages_do_not_reach_back(generator):
    """A coarse image depends on no weight of a later stage."""
    given = inputs(2)
    before = np.asarray(generator(given)["image_16"])
    later = [layer for layer in generator.layers if layer.name.startswith("stage_32") and layer.weights]
    weights = [layer.get_weights() for layer in later]
    for layer, values in zip(later, weights, strict=True):
        layer.set_weights([value + 1 for value in values])
    try:
        np.testing.assert_array_equal(generator(given)["image_16"], before)
    finally:
        for layer, values in zip(later, weights, strict=True):
            layer.set_weights(values)


@pytest.mark.parametrize(("channels", "condition", "named"), [(6, 4, "channels"), (8, 0, "condition_dim")])
def test_widths_that_do_not_fit_are_named(channels, condition, named):
    with pytest.raises(UserError, match=named):
        build_generator(32, 3, 6, 3, condition, channels)


def test_a_discriminators_conditional_head_alone_reads_the_text():
    discriminator = Discriminator(16, text_dim=6, channels=4)
    images = RNG.uniform(0, 255, (3, 16, 16, 3)).astype("float32")
    texts = RNG.standard_normal((2, 3, 6)).astype("float32")
    (free, bound), (other_free, other_bound) = (discriminator(images, each) for each in texts)
    assert free.shape == bound.shape == (3,)
    np.testing.assert_array_equal(free, other_free)
    assert np.all(np.abs(np.asarray(bound) - np.asarray(other_bound)) > 0)
    # 16 -> 8 -> 4.
    assert discriminator.trunk.output.shape[1:] == (4, 4, 8)
