"""A student as it is kept in a run directory."""

import dataclasses

import keras
import numpy as np
import pytest

from t2i_kd.data import captioned_shapes
from t2i_kd.errors import UserError
from t2i_kd.recipe import Recipe
from t2i_kd.student import build_student, freeze, load_student, save_network, whiten_text
from t2i_kd.text.front_end import build_front_end

CAPTIONS = ["a small red circle in the top left on a white background", "grey"]


def small_recipe():
    recipe = Recipe()
    return dataclasses.replace(
        recipe,
        text=dataclasses.replace(recipe.text, text_dim=16, text_length=12, word_dim=4),
        student=dataclasses.replace(recipe.student, width=1 / 32, initializer="he", whiten_text=True),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run directory with an untrained student, and that student's pictures."""
    folder = tmp_path_factory.mktemp("run")
    recipe = small_recipe()
    front_end = build_front_end(recipe.text, captioned_shapes.load("test", 32))
    network = build_student(recipe, front_end)
    (folder / "recipe.json").write_text(recipe.to_json())
    front_end.save(folder)
    save_network(network, folder / "student.keras")
    return folder, np.asarray(network({"tokens": front_end.features(CAPTIONS)})["image"])


def test_a_loaded_student_draws_the_same(saved):
    folder, expected = saved
    student = load_student(folder)
    made = student.network({"tokens": student.front_end.features(CAPTIONS)})["image"]
    np.testing.assert_array_equal(made, expected)
    assert (student.resolution, student.noise_dim) == (32, 0)


def test_a_loaded_student_is_float32_whatever_the_policy(saved):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student = load_student(saved[0])
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in student.network.get_layer("generator").layers} == {"float32"}


def test_keras_itself_can_load_the_file(saved):
    folder, expected = saved
    network = keras.saving.load_model(folder / "student.keras")
    features = load_student(folder).front_end.features(CAPTIONS)
    np.testing.assert_allclose(network({"tokens": features})["image"], expected, atol=1e-4)


@pytest.mark.parametrize("content", [None, b"not a zip"])
def test_an_unreadable_student_is_named(saved, tmp_path, content):
    for name in ("recipe.json", "vocabulary.txt"):
        (tmp_path / name).write_bytes((saved[0] / name).read_bytes())
    if content:
        (tmp_path / "student.keras").write_bytes(content)
    with pytest.raises(UserError, match=r"student\.keras"):
        load_student(tmp_path)


def test_whitening_makes_the_training_captions_white(saved):
    student = load_student(saved[0])
    captions = captioned_shapes.load("train", 32).all_captions[:1500]
    features = student.front_end.features(captions)
    whiten_text(student.network, features)
    layers = student.network.get_layer
    vectors = np.asarray(layers("text_whitening")(layers("text_encoder")({"tokens": features})))
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-3)
    assert np.linalg.eigvalsh(np.cov(vectors, rowvar=False)).max() == pytest.approx(1, abs=0.01)


def test_frozen_layers_are_those_that_the_patterns_name(saved):
    network = load_student(saved[0]).network
    freeze(network, ("text_*", "fc*", "pool5*", "conv5_?", "conv4_*", "pool?"))
    names = {variable.path.split("/")[-2] for variable in network.trainable_variables}
    assert names == {"conv3_1", "conv3_2", "conv3_3", "conv2_1", "conv1_1", "image_linear"}
    freeze(network, ())
    assert len(network.trainable_variables) == len(network.variables)


@pytest.mark.parametrize(("patterns", "named"), [(("conv9_*",), "conv9"), (("*",), "nothing is left")])
def test_wrong_patterns_of_frozen_layers_are_named(saved, patterns, named):
    with pytest.raises(UserError, match=named):
        freeze(load_student(saved[0]).network, patterns)
