"""Discriminators through a teacher's taps: what is fixed, what is trained, and what reaches the pixels."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax

from t2i_kd.errors import UserError
from t2i_kd.options import GanOptions, ProjectionOptions, TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher
from t2i_kd.teachers.vgg19 import build_vgg19, tap_shapes
from t2i_kd.training.batch_captions import BatchCaptions
from t2i_kd.training.projected import (
    ProjectedDiscriminators,
    Shrunk,
    build_projection,
    check_projection,
    choose_taps,
    contrastive_loss,
    default_taps,
    mixed_channels,
    orthogonal,
    projection_at,
    readable_side,
)

tf = pytest.importorskip("tensorflow")
SIDE, WIDTH, TEXT = 32, 1 / 16, 6
SCALES = {"conv1_2": 3.0, "conv3_4": 0.5}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    model = build_vgg19(SIDE, WIDTH)
    model.trainable = False
    return model


@pytest.fixture(scope="module")
def images():
    return RNG.uniform(0, 255, (4, SIDE, SIDE, 3)).astype("float32")


def test_one_tap_a_side_is_the_default():
    assert default_taps(tap_shapes(64, 0.25)) == ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")
    assert choose_taps("", tap_shapes(SIDE, WIDTH)) == ("conv1_2", "conv2_2", "conv3_4", "conv4_4")
    assert choose_taps("conv3_4, conv1_2", tap_shapes(SIDE, WIDTH)) == ("conv3_4", "conv1_2")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("conv9_9", "'conv9_9' is none of the teacher's: image, conv1_1"),
        ("conv1_2,conv1_2", "conv1_2 is given twice"),
        ("pool5", "pool5 has 1 x 1 places"),
    ],
)
def test_other_taps_are_refused(named, message):
    with pytest.raises(UserError, match="--discriminator_taps") as error:
        choose_taps(named, tap_shapes(SIDE, WIDTH))
    assert message in str(error.value)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (5, 5)])
def test_the_mixing_keeps_lengths(inputs, outputs):
    kernel = orthogonal(inputs, outputs, np.random.default_rng(1))[0, 0].astype(float)
    product = kernel @ kernel.T if outputs >= inputs else kernel.T @ kernel
    np.testing.assert_allclose(product, np.eye(min(inputs, outputs)), atol=1e-6)


def test_maps_are_scaled_mixed_and_added_as_the_formula_says(teacher, images):
    network = build_projection(teacher, SCALES, "scales", seed=5)
    taps = {tap: np.asarray(value, float) for tap, value in teacher(images).items()}
    kernels = {layer.name: layer.get_weights()[0][0, 0] for layer in network.layers if "mixed" in layer.name}
    kernels |= {layer.name: layer.get_weights()[0][0, 0] for layer in network.layers if "coarser" in layer.name}
    coarse = taps["conv3_4"] / 0.5 @ kernels["conv3_4_mixed"]
    fine = taps["conv1_2"] / 3.0 @ kernels["conv1_2_mixed"]
    fine += (coarse @ kernels["conv1_2_from_coarser"]).repeat(4, axis=1).repeat(4, axis=2)
    found = network(images)
    assert list(found) == ["conv1_2", "conv3_4"]
    np.testing.assert_allclose(found["conv3_4"], coarse, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["conv1_2"], fine, rtol=1e-4, atol=1e-3)
    assert found["conv1_2"].shape[-1] == mixed_channels(4) == 32


def test_images_that_the_teacher_does_not_read_are_enlarged():
    slim = TeacherOptions(teacher="vgg19_slim")
    assert [readable_side(slim, side) for side in (8, 16, 32, 64)] == [32, 32, 32, 64]
    assert readable_side(TeacherOptions(teacher="efficientnet_lite0"), 16) == 16
    with pytest.raises(UserError, match="--resolution"):
        readable_side(slim, 7)
    training = RNG.integers(0, 256, (6, 32, 32, 3), np.uint8)
    network = projection_at(16, ProjectionOptions(discriminator_mixing="none"), slim, training, seed=0)
    assert network.input.shape == (None, 16, 16, 3) and not network.trainable_variables
    images = RNG.uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    enlarged = keras.layers.UpSampling2D(2, interpolation="bilinear")(images)
    taps = load_teacher(slim, 32)(enlarged)
    shrunk = keras.layers.UpSampling2D(2, interpolation="bilinear")(
        training.reshape(6, 16, 2, 16, 2, 3).mean((2, 4)).astype("float32")
    )
    seen = load_teacher(slim, 32)(shrunk)
    for tap, values in network(images).items():
        real = np.asarray(seen[tap], float)
        scale = np.sqrt(np.square(real - real.mean((0, 1, 2))).mean())
        np.testing.assert_allclose(values, taps[tap] / scale, rtol=1e-3, atol=1e-3)


def test_images_are_enlarged_to_the_side_that_is_asked_for():
    slim, training = TeacherOptions(teacher="vgg19_slim"), RNG.integers(0, 256, (6, 32, 32, 3), np.uint8)
    options = ProjectionOptions(discriminator_mixing="none", discriminator_side=64)
    network = projection_at(32, options, slim, training, seed=0)
    assert [output.shape[1] for output in network.output.values()] == [64, 32, 16, 8, 4]
    twice = projection_at(64, options, slim, training.repeat(2, axis=1).repeat(2, axis=2), seed=0)
    images = RNG.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    enlarged = twice(keras.layers.UpSampling2D(2, interpolation="bilinear")(images))
    for tap, values in network(images).items():
        # Both are the same maps over scales of their own.
        ratio = np.asarray(values) / np.where(np.asarray(enlarged[tap]), enlarged[tap], np.nan)
        np.testing.assert_allclose(ratio[~np.isnan(ratio)], np.nanmedian(ratio), rtol=1e-2)


@pytest.mark.parametrize(("asked", "side"), [(96, 64), (32, 64)])
def test_sides_that_do_not_fit_are_refused(asked, side):
    options, gan = ProjectionOptions(discriminator_side=asked), GanOptions()
    with pytest.raises(UserError, match=f"--discriminator_side: {asked} is no multiple of the images' 64"):
        check_projection(options, gan, TeacherOptions(teacher="vgg19_slim"), side)


def test_shrunk_images_are_means_of_squares():
    images = RNG.integers(0, 256, (2, 8, 8, 3), np.uint8)
    found = Shrunk(images, 4)
    assert len(found) == 2
    by_hand = images[1].astype(float)
    np.testing.assert_allclose(found[1][2, 3], by_hand[4:6, 6:8].mean((0, 1)))
    np.testing.assert_array_equal(Shrunk(images, 8)[0], images[0])


def test_the_seed_alone_fixes_the_mixing(teacher, images):
    def maps(seed, mixing="channels"):
        return np.asarray(build_projection(teacher, SCALES, mixing, seed)(images)["conv1_2"])

    np.testing.assert_array_equal(maps(5), maps(5))
    assert np.abs(maps(5) - maps(6)).max() > 1
    plain = np.asarray(build_projection(teacher, SCALES, "none", 5)(images)["conv1_2"])
    np.testing.assert_allclose(plain, np.asarray(teacher(images)["conv1_2"]) / 3, rtol=1e-6)


def test_gradients_reach_heads_and_pixels_and_nothing_else(teacher, images):
    projection = build_projection(teacher, SCALES, "scales", seed=5)
    discriminators = ProjectedDiscriminators(projection, TEXT, channels=4)
    texts = RNG.standard_normal((4, TEXT)).astype("float32")
    pixels = tf.Variable(images)
    with tf.GradientTape() as tape:
        loss, _ = discriminators.generator_loss("hinge", discriminators.view(discriminators.features(pixels)), texts)
    heads = [variable for head in discriminators.heads for variable in head.trainable_variables]
    frozen = [*teacher.variables, *projection.variables]
    assert not projection.trainable_variables and heads
    assert not {id(variable) for variable in heads} & {id(variable) for variable in frozen}
    slope = tape.gradient(loss, pixels)
    assert np.abs(slope).max() > 0 and np.isfinite(slope).all()


def test_the_loss_is_its_formula(teacher, images):
    discriminators = ProjectedDiscriminators(build_projection(teacher, SCALES, "channels", 5), TEXT, channels=4)
    real, fake = (discriminators.features(each) for each in (images, images[::-1] / 2))
    texts = RNG.standard_normal((4, TEXT)).astype("float32")
    discriminators.normalise()
    differs = np.array([1, 0, 1, 1], "float32")
    loss, terms = discriminators.discriminator_loss("hinge", *discriminators.views(real, fake), texts, differs)
    expected, generator = 0.0, 0.0
    for tap, head in zip(SCALES, discriminators.heads, strict=True):
        seen, drawn = (
            {name: np.asarray(value, float) for name, value in head.trunk(each[tap]).items()} for each in (real, fake)
        )
        projected = np.asarray(head.text(texts), float)

        def scores(maps, projected):
            return maps["places"] + (maps["mean"] * projected).sum(1, keepdims=True)

        right, wrong = scores(seen, projected), scores(seen, np.roll(projected, -1, axis=0))
        fakes = scores(drawn, projected)
        part = np.maximum(0, 1 - right).mean()
        half = differs / 2
        part += ((1 - half) * np.maximum(0, 1 + fakes).mean(1) + half * np.maximum(0, 1 + wrong).mean(1)).mean()
        assert float(terms[f"discriminator_{tap}"]) == pytest.approx(part, rel=1e-3)
        assert float(terms[f"real_for_real_{tap}"]) == pytest.approx((right > 0).mean())
        expected, generator = expected + part, generator - fakes.mean()
    assert float(loss) == pytest.approx(expected, rel=1e-3)
    found, _ = discriminators.generator_loss("hinge", discriminators.view(fake), texts)
    assert float(found) == pytest.approx(generator, rel=1e-3, abs=1e-4)


def test_the_contrastive_loss_is_its_formula():
    """Rows 0 and 3 have one caption, and image 1 has row 2's too: none is another text of the other's image."""
    images, projected = RNG.standard_normal((2, 4, 5)).astype("float32")
    read, numbers = np.array([[1, 2], [3, 4], [1, 4], [1, 2]]), np.array([0, 1, 2, 0])
    captions = BatchCaptions(read, numbers, np.array([[0, -1], [1, 2], [2, -1], [0, -1]]))
    expected = []
    for index, others in enumerate([(1, 2), (0, 3), (0, 1, 3), (1, 2)]):
        expected.append(-log_softmax((projected @ images[index])[[index, *others]])[0])
    found = contrastive_loss(images, projected, captions)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)
    alike = BatchCaptions(np.ones((4, 1)), numbers, numbers[:, None])
    assert float(contrastive_loss(images, projected, alike)) == 0


def test_the_heads_contrastive_losses_are_added(teacher, images):
    discriminators = ProjectedDiscriminators(build_projection(teacher, SCALES, "channels", 5), TEXT, channels=4)
    view = discriminators.view(discriminators.features(images))
    texts, rows = RNG.standard_normal((4, TEXT)).astype("float32"), np.arange(4)[:, None]
    captions = BatchCaptions(rows, rows[:, 0], rows)
    parts = [
        contrastive_loss(seen["mean"], head.text(texts), captions)
        for seen, head in zip(view, discriminators.heads, strict=True)
    ]
    assert len(parts) == 2
    assert float(discriminators.caption_loss(view, texts, captions)) == pytest.approx(np.sum(parts), rel=1e-6)


def test_kernels_have_spectral_norm_one(teacher):
    discriminators = ProjectedDiscriminators(build_projection(teacher, SCALES, "channels", 5), TEXT, channels=4)
    step = tf.function(discriminators.normalise)
    for _ in range(200):
        step()
    for head in discriminators.heads:
        assert len(head.normalised) == (6 if "conv1_2" in head.name else 4)
        for layer in head.normalised:
            kernel = ops.convert_to_numpy(layer.kernel)
            assert np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2) == pytest.approx(1, rel=0.01)


def test_one_step_of_the_power_iteration_is_its_formula(teacher):
    discriminators = ProjectedDiscriminators(build_projection(teacher, SCALES, "channels", 5), TEXT, channels=4)
    head = discriminators.heads[1]
    layer, u = head.normalised[0], np.array(head.vectors[0], float)
    kernel = np.array(layer.kernel, float)
    matrix = kernel.reshape(-1, kernel.shape[-1])
    v = matrix @ u / np.linalg.norm(matrix @ u)
    after = matrix.T @ v / np.linalg.norm(matrix.T @ v)
    discriminators.normalise()
    np.testing.assert_allclose(head.vectors[0], after, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.kernel, kernel / (v @ matrix @ after), rtol=1e-4)
