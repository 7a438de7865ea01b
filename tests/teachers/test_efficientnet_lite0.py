"""EfficientNet-Lite0's taps, against the same arrays without folding, operation by operation."""

import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher, teacher_shapes
from t2i_kd.teachers.efficientnet_lite0 import WEIGHTS

tf = pytest.importorskip("tensorflow")
OPTIONS = TeacherOptions(teacher="efficientnet_lite0")
# (window, stride, group) of the eleven blocks.
BLOCKS = [(3, 1, 1), (3, 2, 2), (3, 1, 2), (5, 2, 3), (5, 1, 3), (3, 2, 4), (3, 1, 4), (3, 1, 4)]
BLOCKS += [(5, 1, 5), (5, 1, 5), (5, 1, 5)]


def reference(images):
    """{tap: map} in float64."""
    stored = np.load(WEIGHTS)

    def array(name):
        return stored[name].astype("float64")

    def normalised(values, name):
        gamma, beta, mean, variance = (
            array(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (values - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def relu6(values):
        return tf.clip_by_value(values, 0.0, 6.0)

    values = tf.nn.conv2d((images.astype("float64") - 127) / 128, array("_conv_stem.weight"), 2, "SAME")
    values = relu6(normalised(values, "_bn0"))
    taps = {"stem": values}
    for index, (window, stride, group) in enumerate(BLOCKS):
        name, before = f"_blocks.{index}", values
        if f"{name}._expand_conv.weight" in stored.files:
            values = tf.nn.conv2d(values, array(f"{name}._expand_conv.weight"), 1, "SAME")
            values = relu6(normalised(values, f"{name}._bn0"))
        kernel = array(f"{name}._depthwise_conv.weight")
        assert kernel.shape[:2] == (window, window)
        values = tf.nn.depthwise_conv2d(values, kernel, (1, stride, stride, 1), "SAME")
        values = relu6(normalised(values, f"{name}._bn1"))
        values = normalised(tf.nn.conv2d(values, array(f"{name}._project_conv.weight"), 1, "SAME"), f"{name}._bn2")
        if values.shape == before.shape:
            values = values + before
        taps[f"block{group}"] = values
    return taps


def test_the_taps_are_the_networks():
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    model = load_teacher(OPTIONS, 64)
    found, expected = model(images), reference(images)
    assert list(found) == ["image", *expected] and not model.trainable_variables
    np.testing.assert_array_equal(found["image"], images)
    for tap, values in expected.items():
        np.testing.assert_allclose(found[tap], values, atol=2e-4 * np.abs(values).max(), err_msg=tap)
    shapes = {tap: tuple(values.shape[1:]) for tap, values in found.items()}
    assert teacher_shapes(OPTIONS, 64) == shapes
    assert shapes["block1"] == (32, 32, 16) and shapes["block5"] == (4, 4, 112)


def test_other_files_and_sides_are_refused(tmp_path):
    with pytest.raises(UserError, match="--resolution: 40 is not a positive multiple of 16"):
        load_teacher(OPTIONS, 40)
    other = tmp_path / "other.npz"
    with np.load(WEIGHTS) as stored:
        arrays = dict(stored)
    np.savez(other, **arrays | {"_conv_stem.weight": np.zeros((3, 3, 3, 24))})
    options = TeacherOptions(teacher="efficientnet_lite0", teacher_weights=str(other))
    with pytest.raises(UserError, match=r"--teacher_weights: _conv_stem has shape \(3, 3, 3, 24\)"):
        load_teacher(options, 32)
    arrays.pop("_blocks.3._bn1.bias")
    np.savez(other, **arrays)
    with pytest.raises(UserError, match=r"--teacher_weights: .*other.npz is not a .npz of EfficientNet-Lite0"):
        load_teacher(options, 32)
