"""SDN's generator against the paper's table."""

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.teachers.vgg19 import TAPS, build_vgg19
from t2i_kd.training.mirrored_generator import LooksLinear, build_generator

TABLE_224 = {
    "image": (224, 3),
    "conv1_1": (224, 64),
    "conv1_2": (224, 64),
    "pool1": (112, 64),
    "conv2_1": (112, 128),
    "conv2_2": (112, 128),
    "pool2": (56, 128),
    "conv3_1": (56, 256),
    "conv3_2": (56, 256),
    "conv3_3": (56, 256),
    "conv3_4": (56, 256),
    "pool3": (28, 256),
    "conv4_1": (28, 512),
    "conv4_2": (28, 512),
    "conv4_3": (28, 512),
    "conv4_4": (28, 512),
    "pool4": (14, 512),
    "conv5_1": (14, 512),
    "conv5_2": (14, 512),
    "conv5_3": (14, 512),
    "conv5_4": (14, 512),
    "pool5": (7, 512),
}


@pytest.fixture(scope="module")
def paper_generator():
    return build_generator(224, 1024)


def test_the_papers_size_and_shapes(paper_generator):
    assert paper_generator.count_params() == 143_789_123
    shapes = {name: (tensor.shape[1], tensor.shape[3]) for name, tensor in paper_generator.output.items()}
    assert shapes == TABLE_224
    assert tuple(shapes) == TAPS


def test_the_papers_initial_weights(paper_generator):
    for name, deviation in (("fc7", 0.1), ("fc6", 0.1), ("conv4_2", 0.02), ("image_linear", 0.02)):
        kernel, bias = paper_generator.get_layer(name).get_weights()
        assert abs(kernel.std() / deviation - 1) < 0.05
        assert not bias.any()


@pytest.mark.parametrize(("resolution", "width"), [(32, 1 / 64), (96, 1 / 32)])
def test_student_tensors_have_the_teachers_names_and_shapes(resolution, width):
    student = build_generator(resolution, 8, width).output
    teacher = build_vgg19(resolution, width).output
    assert {k: v.shape for k, v in student.items()} == {k: v.shape for k, v in teacher.items()}


def test_the_last_convolution_is_linear_and_centred_on_demand():
    text = np.random.default_rng(0).normal(size=(2, 8)).astype("float32")
    raw, centred = (
        np.asarray(build_generator(32, 8, 1 / 64, initializer="he", image_output=kind)({"text": text})["image"])
        for kind in ("paper", "centred")
    )
    assert (raw < 0).any()
    np.testing.assert_allclose(centred, 127.5 * (1 + raw), atol=1e-3)


def test_noise_changes_the_picture():
    generator = build_generator(32, 8, 1 / 64, noise_dim=4, initializer="he")
    text = np.ones((2, 8), "float32")
    noise = np.eye(2, 4, dtype="float32")
    first, second = np.asarray(generator({"text": text, "noise": noise})["image"])
    assert np.abs(first - second).max() > 1e-4


def test_looks_linear_starts_as_a_linear_map():
    generator = build_generator(64, 16, 1 / 16, initializer="looks_linear")
    a, b = np.random.default_rng(0).normal(size=(2, 1, 16)).astype("float32")

    def image(text):
        return np.asarray(generator({"text": text})["image"])

    np.testing.assert_allclose(image(2 * a - b), 2 * image(a) - image(b), atol=1e-4)
    assert 0.2 < image(a).std() < 5


def test_looks_linear_keeps_texts_apart_where_he_does_not():
    texts = np.random.default_rng(1).normal(size=(2, 16)).astype("float32")

    def correlation(initializer):
        images = np.asarray(build_generator(32, 16, 1 / 8, initializer=initializer)({"text": texts})["image"])
        return np.corrcoef(images.reshape(2, -1))[0, 1]

    assert abs(correlation("looks_linear")) < 0.6 < correlation("he")


def test_looks_linear_survives_serialisation():
    first = LooksLinear(False, True, places=4, seed=3)
    second = keras.initializers.deserialize(keras.initializers.serialize(first))
    np.testing.assert_array_equal(first((6, 16)), second((6, 16)))


@pytest.mark.parametrize("resolution", [0, 33, -32])
def test_a_resolution_that_is_no_multiple_of_32_is_refused(resolution):
    with pytest.raises(UserError, match="--resolution"):
        build_generator(resolution, 8)


def test_a_width_without_whole_channels_is_refused():
    with pytest.raises(UserError, match="--width"):
        build_generator(32, 8, 0.3)


def test_a_factored_head_has_the_weights_of_two_thin_layers():
    full, thin = (build_generator(64, 16, 1 / 8, head_rank=rank) for rank in (0, 20))
    # fc6: 512 x 512; pool5_flat: 512 x (4 places x 64 channels).
    saved = 512 * 512 - 20 * (512 + 512) + 512 * 256 - 20 * (512 + 256)
    assert full.count_params() - thin.count_params() == saved
    kernels = [thin.get_layer(name).kernel.shape for name in ("fc6_factor", "fc6", "pool5_flat_factor", "pool5_flat")]
    assert kernels == [(512, 20), (20, 512), (512, 20), (20, 256)]
    assert thin.get_layer("fc6_factor").bias is None
    # 200 would save nothing in pool5_flat and something in fc6.
    names = [layer.name for layer in build_generator(64, 16, 1 / 8, head_rank=200).layers]
    assert "fc6_factor" in names and "pool5_flat_factor" not in names


@pytest.mark.parametrize("initializer", ["he", "looks_linear"])
def test_a_factored_head_keeps_the_size_of_activations(initializer):
    text = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")

    def size(rank):
        generator = build_generator(64, 16, 1 / 4, initializer=initializer, head_rank=rank)
        return np.sqrt(np.mean(np.square(generator({"text": text})["pool5"])))

    assert 0.6 < size(64) / size(0) < 1.6


def test_looks_linear_with_a_factored_head_starts_as_a_linear_map():
    generator = build_generator(64, 16, 1 / 16, initializer="looks_linear", head_rank=12)
    a, b = np.random.default_rng(0).normal(size=(2, 1, 16)).astype("float32")
    image, other, between = (np.asarray(generator({"text": t})["image"]) for t in (a, b, 2 * a - b))
    np.testing.assert_allclose(between, 2 * image - other, atol=1e-4)


def test_a_negative_rank_is_refused():
    with pytest.raises(UserError, match="--head_rank: -1 is negative"):
        build_generator(32, 8, head_rank=-1)
