"""VGG19 as a teacher, against keras.applications and NumPy."""

import hashlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher
from t2i_kd.teachers.vgg19 import CONVOLUTIONS, SLIM_WEIGHTS, TAPS, build_vgg19, fold_batch_normalization


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A random VGG19 of keras.applications and the file of its weights."""
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG19(include_top=False, weights=None)
    path = tmp_path_factory.mktemp("weights") / "vgg19.weights.h5"
    model.save_weights(path)
    return model, path


def test_max_pooling_gives_keras_applications_features(published, images):
    model, path = published
    teacher = load_teacher(TeacherOptions(teacher_weights=str(path), teacher_pooling="max"), 32)
    theirs = keras.Model(
        model.input, [model.get_layer(name).output for name in ("block1_conv2", "block3_conv4", "block5_pool")]
    )(keras.applications.vgg19.preprocess_input(images.copy()))
    ours = teacher(images)
    for name, expected in zip(("conv1_2", "conv3_4", "pool5"), theirs, strict=True):
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-4)


def test_22_taps_with_average_pooling(published, images):
    teacher = load_teacher(TeacherOptions(teacher_weights=str(published[1])), 32)
    taps = {name: np.asarray(value) for name, value in teacher(images).items()}
    assert tuple(taps) == TAPS
    assert len(taps) == 22
    np.testing.assert_array_equal(taps["image"], images)
    blocks = taps["conv2_2"].reshape(2, 8, 2, 8, 2, 128)
    np.testing.assert_allclose(taps["pool2"], blocks.mean((2, 4)), rtol=1e-5, atol=1e-5)
    assert not teacher.trainable_variables


def test_preprocessings(images):
    outputs = {}
    for mode in ("caffe", "none"):
        model = build_vgg19(32, 1 / 64, preprocessing=mode)
        outputs[mode] = np.asarray(keras.Model(model.input, model.get_layer("preprocessing").output)(images))
    np.testing.assert_array_equal(outputs["none"], images[..., ::-1])
    np.testing.assert_allclose(
        outputs["caffe"], keras.applications.vgg19.preprocess_input(images.copy()), rtol=1e-5, atol=1e-4
    )


def test_folding_normalisation_changes_nothing(images):
    model = build_vgg19(32, 1 / 16, batch_normalization=True)
    rng = np.random.default_rng(1)
    for name in CONVOLUTIONS:
        layer = model.get_layer(f"{name}_bn")
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    expected = model(images, training=False)
    for name, value in fold_batch_normalization(model, 32)(images).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-3, atol=2e-3)


def test_the_shipped_slim_teacher_is_small_and_frozen(images):
    assert SLIM_WEIGHTS.stat().st_size <= 3e6
    teacher = load_teacher(TeacherOptions(teacher="vgg19_slim"), 32)
    assert teacher.output["pool5"].shape == (None, 1, 1, 128)
    assert all(np.isfinite(value).all() and np.asarray(value).std() > 0 for value in teacher(images).values())
    assert not teacher.trainable_variables


@pytest.mark.parametrize("teacher", ["vgg19", "vgg19_slim"])
def test_missing_weights_are_an_error(teacher, tmp_path):
    with pytest.raises(UserError, match="--teacher_weights: no file"):
        load_teacher(TeacherOptions(teacher=teacher, teacher_weights=str(tmp_path / "none.weights.h5")), 32)


def test_a_wrong_checksum_is_an_error(published):
    with pytest.raises(UserError, match="SHA-256"):
        load_teacher(TeacherOptions(teacher_weights=str(published[1]), teacher_weights_sha256="0" * 64), 32)


def test_a_checksum_of_what_keras_downloads_is_an_error():
    with pytest.raises(UserError, match=r"--teacher_weights_sha256: .*--teacher_weights"):
        load_teacher(TeacherOptions(teacher_weights_sha256="0" * 64), 32)


def test_the_right_checksum_passes(published):
    digest = hashlib.sha256(published[1].read_bytes()).hexdigest()
    load_teacher(TeacherOptions(teacher_weights=str(published[1]), teacher_weights_sha256=digest), 32)


def test_another_networks_weights_are_an_error(tmp_path):
    path = tmp_path / "vgg16.weights.h5"
    keras.applications.VGG16(include_top=False, weights=None).save_weights(path)
    with pytest.raises(UserError, match="does not fit"):
        load_teacher(TeacherOptions(teacher_weights=str(path)), 32)


def test_garbage_and_wrong_shapes_are_errors_for_slim(tmp_path):
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"not weights")
    with pytest.raises(UserError, match="is not a"):
        load_teacher(TeacherOptions(teacher="vgg19_slim", teacher_weights=str(garbage)), 32)
    narrow = tmp_path / "narrow.npz"
    model = build_vgg19(32, 1 / 64)
    np.savez(
        narrow,
        **{
            f"{name}/{part}": weights
            for name in CONVOLUTIONS
            for part, weights in zip(("kernel", "bias"), model.get_layer(name).get_weights(), strict=True)
        },
    )
    with pytest.raises(UserError, match="conv1_1 has shape"):
        load_teacher(TeacherOptions(teacher="vgg19_slim", teacher_weights=str(narrow)), 32)


@pytest.mark.slow
def test_imagenet_offline_says_what_to_put_where(tmp_path):
    code = (
        "from t2i_kd.teachers.catalogue import load_teacher; from t2i_kd.options import TeacherOptions\n"
        "import keras.src.utils.file_utils as f\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "f.urlretrieve = refuse\n"
        "load_teacher(TeacherOptions(), 32)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_HOME": str(tmp_path)},
    )
    assert "UserError" in done.stderr
    assert "~/.keras/models" in done.stderr
