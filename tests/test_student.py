"""A student as it is kept in a run directory: its network as a whole, and the condition that it is asked with."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.data import captioned_shapes
from t2i_kd.errors import UserError
from t2i_kd.loading import load_artifact
from t2i_kd.options import StudentOptions, TextOptions
from t2i_kd.sdn import SDNOptions, SDNRecipe
from t2i_kd.student import Student, load_student, save_network
from t2i_kd.text.front_end import build_front_end
from t2i_kd.training.text_to_image import freeze, whiten_text
from tests.exporting.tiny_student import build_sdn_network

CAPTIONS = ["a small red circle in the top left on a white background", "grey"]
RECIPE = SDNRecipe(
    text=TextOptions(text_dim=16, text_length=12, word_dim=4),
    student=StudentOptions(whiten_text=True),
    sdn=SDNOptions(width=1 / 32, initializer="he"),
)


def make_network():
    """A new network with initial weights, and its condition."""
    condition = CaptionCondition(build_front_end(RECIPE.text, captioned_shapes.load("test", 32)))
    return build_sdn_network(condition, RECIPE, whiten=True), condition


def save(network, condition, folder):
    condition.save(folder)
    save_network(network, folder / "student.keras")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run directory with an untrained student, and that student's network."""
    folder = tmp_path_factory.mktemp("run")
    network, condition = make_network()
    save(network, condition, folder)
    return folder, network


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the run directory's condition, without its network."""
    for name in ("condition.json", "vocabulary.txt"):
        (tmp_path / name).write_bytes((saved[0] / name).read_bytes())
    return tmp_path


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_loaded_student_is_the_network_that_was_saved(saved):
    folder, network = saved
    student = load_student(folder)
    inputs = student.condition.arrays(CAPTIONS)
    expected, found = network(inputs), student.network(inputs)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert (student.resolution, student.noise_dim) == (32, 0)


def test_any_network_that_fits_a_condition_is_a_student(tmp_path):
    condition = ImageCondition(16)
    source = keras.Input((16, 16, 3), name="source")
    network = keras.Model({"source": source}, {"image": keras.layers.UpSampling2D(2)(255 - source)})
    save(network, condition, tmp_path)
    student = load_student(tmp_path)
    assert (student.resolution, student.condition) == (32, condition)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    found = load_artifact(tmp_path).generate([image])
    np.testing.assert_array_equal(found[0], np.repeat(np.repeat(255 - image, 2, 0), 2, 1))


def test_a_loaded_student_is_float32_whatever_the_policy(saved):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student = load_student(saved[0])
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in student.network.get_layer("generator").layers} == {"float32"}


def test_a_student_of_mixed_precision_is_loaded_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network, condition = make_network()
        save(network, condition, tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    student = load_student(tmp_path)
    layers = [layer for layer in student.network._flatten_layers() if isinstance(layer, keras.Layer)]
    assert {layer.compute_dtype for layer in layers} == {"float32"}
    for found, expected in zip(student.network.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    image = student.network(condition.arrays(CAPTIONS))["image"]
    assert keras.backend.standardize_dtype(image.dtype) == "float32"
    # What the same weights give in a network that was never anything but float32.
    plain, _ = make_network()
    plain.set_weights(network.get_weights())
    np.testing.assert_array_equal(image, plain(condition.arrays(CAPTIONS))["image"])


@pytest.mark.slow
def test_keras_itself_can_load_the_file(saved):
    folder, network = saved
    inputs = load_student(folder).condition.arrays(CAPTIONS)
    loaded = keras.saving.load_model(folder / "student.keras")
    np.testing.assert_allclose(loaded(inputs)["image"], network(inputs)["image"], atol=1e-4)


@pytest.mark.parametrize("content", [None, b"not a zip"])
def test_an_unreadable_student_is_named(copy, content):
    if content:
        (copy / "student.keras").write_bytes(content)
    with pytest.raises(UserError, match=r"student\.keras"):
        load_student(copy)


def save_translator(layer, folder):
    """A run directory whose network is one layer on the source image."""
    source = keras.Input((8, 8, 3), name="source")
    save(keras.Model({"source": source}, {"image": layer(source)}), ImageCondition(8), folder)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    touched = tmp_path / "touched"
    touch = eval(f"lambda image: (open({str(touched)!r}, 'w').close(), image)[1]")
    (tmp_path / "run").mkdir()
    save_translator(keras.layers.Lambda(touch, output_shape=(8, 8, 3)), tmp_path / "run")
    # With safe mode off, the file's code is run.
    keras.models.load_model(tmp_path / "run" / "student.keras", safe_mode=False)({"source": np.zeros((1, 8, 8, 3))})
    touched.unlink()
    with pytest.raises(UserError, match=r"student\.keras: not a network that can be read: .*[Ll]ambda") as caught:
        load_student(tmp_path / "run")
    one_line(caught)
    assert not touched.exists()


def test_a_layer_that_nobody_imported_is_named(tmp_path):
    @keras.saving.register_keras_serializable(package="theirs")
    class Brighter(keras.layers.Layer):
        def call(self, image):
            return image + 1

    save_translator(Brighter(), tmp_path)
    assert load_student(tmp_path).resolution == 8
    keras.saving.get_custom_objects().pop("theirs>Brighter")
    with pytest.raises(UserError, match=r"student\.keras: .*'Brighter'.*--import_module=MODULE") as caught:
        load_student(tmp_path)
    one_line(caught)


@pytest.mark.parametrize("load", [load_student, load_artifact])
def test_a_run_of_the_format_before_is_named(load, saved, tmp_path):
    """It had its recipe and its vocabulary, and no condition.json."""
    for name in ("student.keras", "vocabulary.txt"):
        (tmp_path / name).write_bytes((saved[0] / name).read_bytes())
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(UserError, match=r"condition\.json: missing; .*older student.*train and export") as caught:
        load(tmp_path)
    one_line(caught)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a condition of format 1"),
        ('{"format_version": 2, "kind": "caption"}', "not a condition of format 1"),
        ('{"format_version": 1, "kind": "smell"}', "kind 'smell' is none of caption, image"),
        ('{"format_version": 1, "kind": ["image"]}', "kind"),
        ('{"format_version": 1, "kind": "image"}', "wrong or incomplete"),
        ('{"format_version": 1, "kind": "image", "inputs": {"source": {"shape": [8, 9, 3]}}}', "not a square"),
    ],
)
def test_a_wrong_condition_is_named(content, message, saved, tmp_path):
    (tmp_path / "student.keras").write_bytes((saved[0] / "student.keras").read_bytes())
    (tmp_path / "condition.json").write_text(content)
    with pytest.raises(UserError, match=rf"condition\.json: .*{message}") as caught:
        load_student(tmp_path)
    one_line(caught)


def test_a_condition_of_another_student_is_named(saved, tmp_path):
    (tmp_path / "student.keras").write_bytes((saved[0] / "student.keras").read_bytes())
    ImageCondition(32).save(tmp_path)
    with pytest.raises(
        UserError, match=r"student\.keras: student: the network reads .*tokens.*condition gives .*source"
    ):
        load_student(tmp_path)


def described_differently(folder, **changes):
    path = folder / "condition.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_vocabulary_of_another_size_is_named(saved, copy):
    (copy / "student.keras").write_bytes((saved[0] / "student.keras").read_bytes())
    described_differently(copy, vocabulary_size=3)
    with pytest.raises(UserError, match=r"vocabulary\.txt: holds \d+ lines, not 3"):
        load_student(copy)


def network_of(inputs, outputs):
    given = {name: keras.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in inputs.items()}
    image = keras.ops.cast(next(iter(given.values())), "float32")
    return keras.Model(given, dict.fromkeys(outputs, image))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"source": ((9, 9, 3), "float32")}, ["image"], "reads .*9, 9, 3.*gives .*8, 8, 3"),
        ({"source": ((8, 8, 3), "uint8")}, ["image"], "reads .*uint8.*gives .*float32"),
        ({"photo": ((8, 8, 3), "float32")}, ["image"], "reads .*photo.*gives .*source"),
        ({"source": ((8, 8, 3), "float32"), "more": ((2,), "float32")}, ["image"], "reads .*more"),
        ({"source": ((8, 8, 3), "float32")}, ["picture"], "outputs picture hold no image"),
    ],
)
def test_a_network_that_does_not_fit_its_condition_is_refused(inputs, outputs, message):
    with pytest.raises(UserError, match=message) as caught:
        Student(network_of(inputs, outputs), ImageCondition(8))
    one_line(caught)


def test_noise_stands_beside_a_conditions_inputs():
    inputs = {"source": ((8, 8, 3), "float32"), "noise": ((5,), "float32")}
    assert Student(network_of(inputs, ["image"]), ImageCondition(8)).noise_dim == 5


def test_a_network_without_names_is_refused():
    image = keras.Input((8, 8, 3))
    with pytest.raises(UserError, match="student: the network reads"):
        Student(keras.Model(image, image + 1), ImageCondition(8))


def test_whitening_makes_captions_white(saved):
    student = load_student(saved[0])
    features = student.condition.arrays(captioned_shapes.load("test", 32).all_captions[:1500])
    whiten_text(student.network, features)
    layers = student.network.get_layer
    vectors = np.asarray(layers("text_whitening")(layers("text_encoder")(features)))
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


def test_truncation_multiplies_the_noise():
    noise, source = keras.Input((3,), name="noise"), keras.Input((8, 8, 3), name="source")
    image = source + keras.ops.reshape(noise, (-1, 1, 1, 3))
    student = Student(keras.Model({"noise": noise, "source": source}, {"image": image}), ImageCondition(8))
    zeros, ones = np.zeros((1, 8, 8, 3), np.float32), np.ones((1, 3), np.float32)
    found = student.truncated(0.25).network({"source": zeros, "noise": ones})["image"]
    np.testing.assert_array_equal(found, np.full((1, 8, 8, 3), 0.25))
    assert student.truncated(1) is student
    with pytest.raises(UserError, match="--truncation: 2 is not in 0 to 1"):
        student.truncated(2)
    with pytest.raises(UserError, match="--truncation: this student takes no noise"):
        dataclasses.replace(student, network=network_of({"source": ((8, 8, 3), "float32")}, ["image"])).truncated(0.5)
