"""Upsampling and convolution in one: the same numbers and gradients as one after the other."""

import keras
import numpy as np
import pytest

from t2i_kd.sdn.networks import build_generator
from t2i_kd.sdn.upsampling import UpsampledConvolution, pays, with_direct_upsampling


def upsampled_convolution(x, kernel, bias):
    """relu(conv3x3(nearest upsampling of x)), zero padding, by hand in float64."""
    x = np.pad(x.astype("float64").repeat(2, 1).repeat(2, 2), [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1] - 2, x.shape[2] - 2
    made = sum(x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    return np.maximum(made + bias, 0)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 2)])
def test_it_is_a_convolution_of_the_repeated_input(shape):
    rng = np.random.default_rng(0)
    convolution = keras.layers.Conv2D(6, 3, padding="same", activation="relu")
    convolution.build((None, None, None, shape[-1]))
    weights = rng.standard_normal((3, 3, shape[-1], 6)).astype("float32"), rng.standard_normal(6).astype("float32")
    convolution.set_weights(weights)
    x = rng.standard_normal(shape).astype("float32")
    made = keras.ops.convert_to_numpy(UpsampledConvolution(convolution)(x))
    assert made == pytest.approx(upsampled_convolution(x, *weights), abs=1e-4)


@pytest.fixture(scope="module")
def generators():
    """A generator and its direct form."""
    generator = build_generator(64, 5, width=1 / 16, initializer="he")
    return generator, with_direct_upsampling(generator)


def test_a_generator_draws_the_same_with_the_same_weights(generators):
    generator, direct = generators
    direct_layers = [layer.name for layer in direct.layers if isinstance(layer, UpsampledConvolution)]
    assert direct_layers == ["conv3_3_upsampled", "conv2_1_upsampled", "conv1_1_upsampled"]
    assert {id(v) for v in direct.variables} == {id(v) for v in generator.variables}
    text = np.random.default_rng(1).standard_normal((3, 5)).astype("float32")
    ours, theirs = direct({"text": text}), generator({"text": text})
    assert list(ours) == list(theirs)
    for name in theirs:
        expected = keras.ops.convert_to_numpy(theirs[name])
        largest = float(np.abs(expected).max())
        assert keras.ops.convert_to_numpy(ours[name]) == pytest.approx(expected, abs=1e-5 * largest), name


def test_the_gradients_are_the_same(generators):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes its gradient with TensorFlow")
    text = np.random.default_rng(2).standard_normal((3, 5)).astype("float32")
    found = []
    for network in generators:
        with tf.GradientTape() as tape:
            loss = sum(keras.ops.mean(keras.ops.square(made)) for made in network({"text": text}).values())
        variables = generators[0].trainable_variables
        found.append([g.numpy() for g in tape.gradient(loss, [v.value for v in variables])])
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5 * float(np.abs(theirs).max()))


def test_a_student_is_followed_into_its_generator(generators):
    text = keras.Input((5,), name="text")
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)], name="text_encoder")
    student = keras.Model({"text": text}, generators[0]({"text": encoder(text)}))
    direct = with_direct_upsampling(student)
    assert direct.get_layer("text_encoder") is encoder
    assert any(isinstance(layer, UpsampledConvolution) for layer in direct.layers[-1].layers)
    given = {"text": np.ones((1, 5), "float32")}
    expected = keras.ops.convert_to_numpy(student(given)["image"])
    made = keras.ops.convert_to_numpy(direct(given)["image"])
    assert made == pytest.approx(expected, abs=1e-5 * float(np.abs(expected).max()))


def test_it_is_left_alone_where_xla_compiles():
    assert not pays(jit_compile=True)
