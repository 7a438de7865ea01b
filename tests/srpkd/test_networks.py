"""SRPKD's networks against the field's published counts, and one layer at a time against hand-worked values."""

import keras
import numpy as np
import pytest

from t2i_kd.conditions.image import ImageCondition
from t2i_kd.errors import UserError
from t2i_kd.exporting.exporter import export_student
from t2i_kd.loading import load_artifact
from t2i_kd.srpkd.networks import (
    InstanceNormalization,
    ReflectionPadding,
    build_discriminator,
    build_generator,
    default_tap,
    multiply_adds,
)
from t2i_kd.student import Student, load_network, save_network
from tests.exporting.tiny_student import make_photos

tf = pytest.importorskip("tensorflow")

# Parameters, and billions of multiply-adds at 256 px with transposed convolutions counted at their input and at their
# output, as the field publishes them.
PUBLISHED = {
    ("resnet", 64): (11_378_179, 49.55, 56.80),
    ("resnet", 32): (2_850_563, 12.70, 14.51),
    ("resnet", 16): (715_651, 3.33, 3.78),
}
U_NETS = {64: 54.41, 32: 13.61, 16: 3.405}


def trainable(network):
    return sum(int(np.prod(weights.shape)) for weights in network.trainable_weights)


@pytest.mark.parametrize(
    ("kind", "channels"),
    [("resnet", 64), *(pytest.param("resnet", width, marks=pytest.mark.slow) for width in (32, 16))],
)
def test_the_residual_generators_have_the_published_counts(kind, channels):
    network = build_generator(kind, 256, channels)
    parameters, at_input, at_output = PUBLISHED[kind, channels]
    assert trainable(network) == network.count_params() == parameters
    assert multiply_adds(network) / 1e9 == pytest.approx(at_input, abs=0.005)
    assert multiply_adds(network, "output") / 1e9 == pytest.approx(at_output, abs=0.005)


@pytest.mark.parametrize("channels", [*(pytest.param(width, marks=pytest.mark.slow) for width in (64, 32)), 16])
def test_the_u_nets_have_the_published_counts(channels):
    network = build_generator("unet", 256, channels, norm="batch", dropout=0.5)
    assert trainable(network) / 1e6 == pytest.approx(U_NETS[channels], abs=0.005)
    # By hand: 16 C D for each place of a convolution's output, and of a transposed one's input.
    down = [3, *(channels * growth for growth in (1, 2, 4, 8, 8, 8, 8, 8))]
    up = [(down[level + 1] * (1 if level == 7 else 2), down[level]) for level in range(8)]
    places = [(256 >> (level + 1)) ** 2 for level in range(8)]
    convolutions = sum(16 * down[level] * down[level + 1] * places[level] for level in range(8))
    transposed = sum(16 * one * other * places[level] for level, (one, other) in enumerate(up))
    assert multiply_adds(network) == convolutions + transposed
    assert multiply_adds(network, "output") == convolutions + 4 * transposed
    dropouts = [layer.name for layer in network.layers if isinstance(layer, keras.layers.Dropout)]
    assert dropouts == ["up6_dropout", "up5_dropout", "up4_dropout"]


def test_a_u_net_at_128_pixels_has_a_halving_less():
    network = build_generator("unet", 128, 8, norm="batch", dropout=0.5)
    assert network.get_layer("down7").output.shape[1:3] == (1, 1)
    assert not any(layer.name == "down8" for layer in network.layers)
    assert [layer.name for layer in network.layers if "dropout" in layer.name] == ["up5_dropout", "up4_dropout"]


def test_the_style_network_has_the_published_count():
    assert build_generator("style", 128, 32).count_params() == 1_677_638
    assert build_generator("style", 128, 8, depth=4).count_params() <= 100_000


@pytest.mark.parametrize("kind", ["resnet", "style"])
def test_upsampling_has_the_parameters_of_transposed_convolutions_at_the_larger_side(kind):
    network = build_generator(kind, 32, 4, 1, upsampling="nearest")
    other = build_generator(kind, 32, 4, 1)
    assert network.count_params() == other.count_params()
    assert network.output["image"].shape == (None, 32, 32, 3)
    # By hand: 3x3 windows from 16 to 8 channels at 16 px and from 8 to 4 at 32 px; transposed ones count a quarter.
    enlarging = 9 * (16 * 8 * 16**2 + 8 * 4 * 32**2)
    assert multiply_adds(network) - multiply_adds(other) == enlarging - enlarging // 4
    assert multiply_adds(network) == multiply_adds(other, "output")


def test_discriminators_have_the_published_counts_and_field():
    """2.765 M and 2.769 M parameters, 30 x 30 scores at 256 px; one score sees 70 x 70 pixels."""
    plain, conditional = build_discriminator(256), build_discriminator(256, norm="batch", conditional=True)
    assert (trainable(plain), trainable(conditional)) == (2_764_737, 2_768_705)
    assert plain.output.shape[1] == 900
    small = build_discriminator(128, channels=4)
    image = np.random.default_rng(0).uniform(0, 255, (1, 128, 128, 3)).astype("float32")
    # Without the norm, which looks at the whole map, a place sees its patch alone.
    bare = without_norms(small)
    middle = (14 // 2) * 14 + 7
    variable = tf.Variable(image)
    with tf.GradientTape() as tape:
        score = bare(variable)[0, middle]
    seen = np.flatnonzero(np.any(tape.gradient(score, variable)[0], axis=(0, 2)))
    assert len(seen) == 70 and np.ptp(seen) == 69


def without_norms(network):
    """The network with instance norms left out."""
    return keras.models.clone_model(
        network,
        clone_function=lambda layer: (
            keras.layers.Identity()
            if isinstance(layer, InstanceNormalization)
            else type(layer).from_config(layer.get_config())
        ),
    )


def test_instance_norm_is_that_of_the_definition():
    x = np.random.default_rng(0).normal(3, 2, (2, 5, 4, 3)).astype("float32")
    layer = InstanceNormalization(epsilon=0.1, affine=True)
    layer.build(x.shape)
    layer.gamma.assign([1.0, 2.0, -1.0])
    layer.beta.assign([0.0, 0.5, 1.0])
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 0.1) * [1, 2, -1] + [0, 0.5, 1]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_an_image_of_one_colour_is_no_noise():
    """Whatever the colour, and however a runtime rounds, next to nothing leaves the norm."""
    x = np.full((1, 37, 41, 1), 0.1, "float32")
    x[0, ::2, ::3] = np.nextafter(np.float32(0.1), np.float32(1))
    assert np.abs(InstanceNormalization()(x)).max() < 1e-9
    images = np.asarray(tiny("resnet").network(np.full((1, 32, 32, 3), 200.0, "float32"))["image"])
    assert np.ptp(images, axis=(1, 2)).max() < 1e-3


def test_reflection_is_numpys():
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype("float32")
    expected = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(ReflectionPadding(3)(x), expected)


@pytest.mark.parametrize(
    ("kind", "resolution", "depth", "tap", "side"),
    [
        ("resnet", 32, 2, "encoder", 8),
        ("style", 32, 1, "encoder", 8),
        ("unet", 256, 0, "down4", 16),
        ("unet", 8, 0, "down2", 2),
    ],
)
def test_the_map_that_is_compared_where_none_is_named(kind, resolution, depth, tap, side):
    assert default_tap(kind, resolution, depth) == tap
    network = build_generator(kind, resolution, 4, depth)
    assert network.get_layer(tap).output.shape[1:3] == (side, side)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet", 30), "--resolution: 30 is not a multiple of 4"),
        (("unet", 48), "--resolution: 48 is not a multiple of 32"),
        (("unet", 32, 4, 6), "--resolution: 32 is not a multiple of 64"),
        (("resnet", 4), "--resolution: 4"),
        (("resnet", 32, 0), "--generator_channels: 0"),
        (("resnet", 32, 4, -1), "--generator_depth: -1"),
        (("style", 32, 4, 1, "batch"), "--generator_norm: --generator=style has no batch"),
        (("style", 32, 4, 1, "instance", 0.5), "--generator_dropout: --generator=style has no 0.5"),
        (("unet", 32, 4, 0, "batch", 0.0, "nearest"), "--generator_upsampling: --generator=unet has no nearest"),
    ],
)
def test_what_does_not_fit_is_named(arguments, words):
    with pytest.raises(UserError, match=words):
        build_generator(*arguments)


def test_a_discriminator_needs_places():
    with pytest.raises(UserError, match="--discriminator_layers: 4 leave no map of --resolution=32"):
        build_discriminator(32, layers=4)


def tiny(kind, resolution=32):
    keras.utils.set_random_seed(2)
    norm = "batch" if kind == "unet" else "instance"
    network = build_generator(kind, resolution, 4, 0 if kind == "unet" else 1, norm)
    rng = np.random.default_rng(0)
    # As initial weights leave it, its images are next to grey.
    rgb = network.get_layer("rgb")
    rgb.set_weights([rng.normal(0, 0.2, weights.shape) for weights in rgb.get_weights()])
    return Student(network, ImageCondition(resolution))


@pytest.mark.parametrize("kind", ["resnet", "unet", "style"])
def test_a_saved_network_gives_the_same_image(kind, tmp_path):
    student = tiny(kind)
    source = student.condition.arrays(make_photos(2, 40, 36))
    expected = np.asarray(student.network(source)["image"])
    assert expected.shape == (2, 32, 32, 3) and expected.std() > 4
    save_network(student.network, tmp_path / "student.keras")
    np.testing.assert_array_equal(load_network(tmp_path / "student.keras")(source)["image"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "unet", "style"])
def test_every_exported_file_gives_the_same_image(kind, tmp_path):
    """SavedModel, LiteRT and ONNX; where there are instance norms, 8 bits are those of the weights alone."""
    student, photos = tiny(kind), make_photos(6, 40, 36)
    artifacts = ("litert", "litert_int8", "onnx")
    version = export_student(student, tmp_path / kind, photos, artifacts=artifacts)
    expected = np.clip(np.rint(student.network(student.condition.arrays(photos))["image"]), 0, 255)
    for file in ("", "assets.extra/student.tflite", "assets.extra/student.onnx"):
        found = load_artifact(version / file).generate(photos)
        assert np.abs(found - expected).max() <= 1, file
    coarse = load_artifact(version / "assets.extra" / "student_int8.tflite").generate(photos)
    assert np.abs(coarse - expected).mean() < 8
