"""Networks of keras.applications as teachers, against the same networks built by Keras alone."""

import importlib
import re

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.applications import APPLICATIONS, build_application, stable_names
from t2i_kd.teachers.catalogue import load_teacher, teacher_taps

# One of each of the preprocessings of Keras, small: scaled to -1 to 1; BGR minus the mean; inside the network.
NETWORKS = {"MobileNetV2": "mobilenet_v2", "VGG16": "vgg16", "MobileNetV3Small": "mobilenet_v3"}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    """(Name, the network without its classifier, the file of its weights, the same with its classifier's weights)."""
    name, folder, rng = request.param, tmp_path_factory.mktemp("weights"), np.random.default_rng(1)
    whole = getattr(keras.applications, name)(weights=None, classes=3, input_shape=(32, 32, 3))
    for variable in whole.trainable_variables:
        if len(variable.shape) > 1:
            scale = np.sqrt(2 / np.prod(variable.shape[:-1]))
            variable.assign(scale * rng.standard_normal(variable.shape, np.float32))
    bare = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(32, 32, 3))
    bare.set_weights(whole.get_weights()[: len(bare.weights)])
    for model, file in ((bare, "bare"), (whole, "whole")):
        model.save_weights(folder / f"{file}.weights.h5")
    return name, bare, folder / "bare.weights.h5", folder / "whole.weights.h5"


@pytest.mark.parametrize("with_classifier", [False, True])
def test_the_taps_are_the_layers_maps(network, images, with_classifier):
    name, bare, *files = network
    teacher = load_teacher(TeacherOptions(teacher=name, teacher_weights=str(files[with_classifier])), 32)
    assert teacher.input_shape == (None, 32, 32, 3) and not teacher.trainable_variables
    layers = [layer for layer in bare.layers[1:] if len(layer.output.shape) == 4]
    preprocess = importlib.import_module(f"keras.applications.{NETWORKS[name]}").preprocess_input
    expected = keras.Model(bare.input, [layer.output for layer in layers])(preprocess(images.copy()))
    taps = {tap: np.asarray(values) for tap, values in teacher(images).items()}
    assert list(taps) == ["image", *list(stable_names(layers).values())]
    np.testing.assert_array_equal(taps.pop("image"), images)
    for found, values in zip(taps.values(), expected, strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-4)
    assert np.std(found) > 0


def test_names_do_not_depend_on_what_was_built_before():
    options = TeacherOptions(teacher="MobileNetV3Small")
    first = teacher_taps(options, 32)
    assert {"image", "conv", "activation", "activation_1", "re_lu"} <= set(first)
    # Keras counts on: its own names are others now.
    keras.layers.Conv2D(1, 1), keras.layers.Activation("relu"), keras.layers.ReLU()
    assert tuple(build_application("MobileNetV3Small", 32).output) == first


def test_every_network_of_keras_is_known():
    assert len(APPLICATIONS) >= 38 and set(NETWORKS) < set(APPLICATIONS)
    assert all(re.match("[A-Z]", name) and callable(getattr(keras.applications, name)) for name in APPLICATIONS)


def test_too_small_an_image_is_named():
    with pytest.raises(UserError, match=r"^--resolution: InceptionV3 does not take 32 px: .*75x75.*$"):
        teacher_taps(TeacherOptions(teacher="InceptionV3"), 32)


def test_another_networks_weights_are_named(tmp_path):
    file = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(file)
    with pytest.raises(UserError, match=r"^--teacher_weights: .*does not fit keras.applications.MobileNet\("):
        load_teacher(TeacherOptions(teacher="MobileNet", teacher_weights=str(file)), 32)
