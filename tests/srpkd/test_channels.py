"""Narrower networks: which channels belong together in the generators of every system, and which are kept."""

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.icsd_gan import networks as icsd_gan
from t2i_kd.kd_dlgan import networks as kd_dlgan
from t2i_kd.srpkd.channels import channels_of, narrowed
from t2i_kd.training import mirrored_generator

# Layers whose channels are not free: an image's, and those that the condition's noise is added to.
WHOLE = ("image_linear", "rgb", "stage_16_rgb", "stage_32_rgb", "condition")


def mirrored(**options):
    return mirrored_generator.build_generator(32, 6, 1 / 32, 2, "he", "centred", **options)


def in_parts():
    """A stranger's: channels sliced and gated, then split unevenly and put together in another order."""
    keras.utils.set_random_seed(0)
    given = {"text": keras.Input((6,)), "noise": keras.Input((2,))}
    features = keras.layers.Dense(8 * 8 * 8, name="first")(keras.layers.Concatenate()(list(given.values())))
    features = keras.layers.Conv2D(16, 3, padding="same", name="wide")(keras.layers.Reshape((8, 8, 8))(features))
    features = features[..., :8] * keras.ops.sigmoid(features[..., 8:])
    features = keras.layers.Conv2D(24, 3, padding="same", name="uneven")(features)
    first, second, third = keras.ops.split(features, [8, 18], axis=-1)
    features = keras.layers.Concatenate()([third, first, second])
    image = keras.layers.Conv2D(3, 3, padding="same", name="image_linear")(features)
    return keras.Model(given, {"image": keras.layers.Rescaling([50.0] * 3)(image)})


GENERATORS = {
    "in_parts": in_parts,
    "mirrored": mirrored,
    "modulated": lambda: mirrored(modulation=True),
    "factored": lambda: mirrored(head_rank=8),
    "icsd_gan": lambda: icsd_gan.build_generator(32, 2, 6, 2, 3, 8),
    "kd_dlgan": lambda: kd_dlgan.build_generator(32, 6, 2, 4),
}


MORE = ("mirrored", "factored", "kd_dlgan")


def numbers(network):
    """A caption's vector and noise for a generator."""
    rng = np.random.default_rng(3)
    return {name: rng.standard_normal((2, *each.shape[1:])).astype("float32") for name, each in network.input.items()}


@pytest.mark.parametrize(
    "name", ["in_parts", "modulated", "icsd_gan", *(pytest.param(each, marks=pytest.mark.slow) for each in MORE)]
)
def test_channels_that_do_nothing_are_left_out(name):
    """Of a generator whose every second channel is zero everywhere, half the channels give the same images."""
    network, rng = GENERATORS[name](), np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            kernel, *bias = (rng.normal(0, 0.3, each.shape).astype("float32") for each in layer.weights)
            if layer.name not in WHOLE:
                for values in (kernel, *bias):
                    values[..., 1::2] = 0
            layer.set_weights([kernel, *bias])
    small, given = narrowed(network, 0.5), numbers(network)
    images = {output: np.asarray(values) for output, values in network(given).items() if output in small.output}
    assert {"image"} <= set(images) == set(small.output) and images["image"].std() > 1
    for output, values in small(given).items():
        np.testing.assert_allclose(values, images[output], rtol=1e-3, atol=0.02)
    for layer in small.layers:
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            share = 1 if layer.name in WHOLE else 2
            assert layer.kernel.shape[-1] * share == network.get_layer(layer.name).kernel.shape[-1], layer.name


def test_of_each_group_the_largest_norms_are_kept():
    network = mirrored(modulation=True)
    rng = np.random.default_rng(1)
    network.set_weights([rng.normal(0, 1, each.shape).astype("float32") for each in network.get_weights()])
    small, channels = narrowed(network, 0.25), 512 // 32
    names = ("pool5_flat", "conv5_4_scale", "conv5_4_shift")
    assert list(names) in channels_of(network).groups()
    norms = sum(np.abs(network.get_layer(name).get_weights()[0]).sum(0).reshape(-1, channels).sum(0) for name in names)
    kept = np.sort(np.argsort(-norms)[: channels // 4])
    for name in names:
        bias = network.get_layer(name).get_weights()[1].reshape(-1, channels)[:, kept].ravel()
        np.testing.assert_array_equal(small.get_layer(name).get_weights()[1], bias)
    kernel = network.get_layer("conv5_3").get_weights()[0]
    own = np.sort(np.argsort(-np.abs(kernel).sum((0, 1, 2)))[: channels // 4])
    np.testing.assert_array_equal(small.get_layer("conv5_3").get_weights()[0], kernel[:, :, kept][..., own])


@pytest.mark.slow
def test_random_weights_are_drawn_anew_and_zeros_stay():
    network = mirrored(modulation=True)
    keras.utils.set_random_seed(5)
    small = narrowed(network, 0.5, starts_from_it=False)
    kernel = small.get_layer("conv3_2").get_weights()[0]
    assert kernel.std() == pytest.approx((2 / np.prod(kernel.shape[:3])) ** 0.5, rel=0.2)
    assert not np.isin(kernel, network.get_layer("conv3_2").get_weights()[0]).any()
    assert not any(each.any() for each in small.get_layer("conv3_4_scale").get_weights())


def saved(network, path):
    network.save(path)
    return keras.models.load_model(path)


@pytest.mark.parametrize("name", ["in_parts", pytest.param("icsd_gan", marks=pytest.mark.slow)])
def test_a_saved_and_narrowed_network_can_be_narrowed_again(name, tmp_path):
    """Slices of channels are those of students that earlier versions saved."""
    whole = saved(GENERATORS[name](), tmp_path / "whole.keras")
    small = saved(narrowed(whole, 0.5), tmp_path / "small.keras")
    smaller = narrowed(small, 0.5)
    assert smaller.count_params() < small.count_params() / 1.5 < whole.count_params() / 2
    assert smaller(numbers(smaller))["image"].shape == whole(numbers(whole))["image"].shape


def test_equal_parts_stay_a_count_and_no_part_becomes_empty():
    parts = [each.indices_or_sections for each in narrowed(GENERATORS["icsd_gan"](), 0.5).operations if is_split(each)]
    assert parts and set(parts) == {2}
    network = in_parts()
    kernel, bias = network.get_layer("uneven").get_weights()
    kernel[..., :8] = 0
    network.get_layer("uneven").set_weights([kernel, bias])
    with pytest.raises(UserError, match=r"--channel_share: 0\.25 leaves no channel of a part that split"):
        narrowed(network, 0.25)


def is_split(operation):
    return type(operation).__name__ == "Split"


def test_a_strangers_layer_named_split_stays_whole():
    class Split(keras.layers.Layer):
        def call(self, inputs):
            return inputs[..., ::-1]

    text = keras.Input((4,), name="text")
    hidden = Split()(keras.layers.Dense(8, name="free")(text))
    image = keras.layers.Reshape((2, 2, 3), name="image")(keras.layers.Dense(12, name="pixels")(hidden))
    channels = channels_of(keras.Model({"text": text}, {"image": image}))
    assert not channels.cut and set(channels.gives["free"].tolist()) <= channels.whole


def test_layers_within_layers_of_a_frozen_network_are_trainable():
    text = keras.Input((4,), name="text")
    wrapped = keras.layers.SpectralNormalization(keras.layers.Dense(6, name="inner"), name="wrapped")
    hidden = keras.layers.Dense(8, name="whole")(keras.layers.Dense(8, name="free")(text))
    hidden = wrapped(hidden)
    image = keras.layers.Reshape((2, 2, 3), name="image")(keras.layers.Dense(12, name="pixels")(hidden))
    network = keras.Model({"text": text}, {"image": image})
    network.trainable = False
    small = narrowed(network, 0.5)
    kernels = [each.path for each in small.trainable_variables if each.path.endswith("kernel")]
    assert len(kernels) == 4 and any("inner" in path for path in kernels)


def test_what_no_rule_knows_stays_whole():
    text = keras.Input((4,), name="text")
    hidden = keras.layers.Dense(8, name="free")(text)
    hidden = keras.layers.Dense(8, name="normalised")(hidden)
    hidden = keras.layers.LayerNormalization(name="unknown")(hidden)
    image = keras.layers.Reshape((2, 2, 3), name="image")(keras.layers.Dense(12, name="pixels")(hidden))
    network = keras.Model({"text": text}, {"image": image})
    small = narrowed(network, 0.5)
    widths = {layer.name: layer.units for layer in small.layers if isinstance(layer, keras.layers.Dense)}
    assert widths == {"free": 4, "normalised": 8, "pixels": 12}
    np.testing.assert_array_equal(*(each.get_layer("pixels").kernel for each in (small, network)))


def test_what_cannot_be_narrowed_is_named():
    text = keras.Input((4,), name="text")
    image = keras.layers.Reshape((2, 2, 3))(keras.layers.Dense(12)(text))
    with pytest.raises(UserError, match=r"^--channel_share: 0.5 leaves the teacher's generator as it is, with 60 par"):
        narrowed(keras.Model({"text": text}, {"image": image}), 0.5)
    twice = keras.layers.Dense(4, name="twice")
    image = keras.layers.Reshape((2, 2, 3))(keras.layers.Dense(12, name="after")(twice(twice(text))))
    with pytest.raises(UserError, match=r"^--teacher: its channels cannot be followed to after: a layer is used"):
        narrowed(keras.Model({"text": text}, {"image": image}), 0.5)
