"""The networks that look at pictures for a metric."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.errors import UserError
from t2i_kd.metrics import extractors, image_classifier
from t2i_kd.metrics.extractors import keras_extractor
from t2i_kd.options import TeacherOptions

from .flowers import Painter, context_of


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """InceptionV3 as Keras has it, with random weights, and its files with and without the classifier."""
    folder = tmp_path_factory.mktemp("inception")
    keras.utils.set_random_seed(0)
    whole = keras.applications.InceptionV3(weights=None)
    whole.save_weights(folder / "whole.weights.h5")
    features = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=None)
    features.set_weights(whole.get_weights()[:-2])
    features.save_weights(folder / "features.weights.h5")
    return whole, features, folder


@pytest.mark.slow
def test_inception_gives_what_keras_applications_gives(inception):
    whole, features, folder = inception
    images = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3)).astype("float32")
    prepared = keras.applications.inception_v3.preprocess_input(images.copy())

    def forward(file, images):
        return keras_extractor("inception", {}, extractors.load_inception(str(folder / file))).forward(images)

    found = forward("whole.weights.h5", images)
    np.testing.assert_allclose(found["features"], features(prepared), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], whole(prepared), rtol=1e-3, atol=1e-6)
    without = forward("features.weights.h5", images)
    assert set(without) == {"features"}
    np.testing.assert_allclose(without["features"], features(prepared), rtol=1e-3, atol=1e-5)
    assert forward("features.weights.h5", images[:, :32, :32])["features"].shape == (2, 2048)


def test_without_a_network_nothing_is_measured(tmp_path):
    def activations(**options):
        return context_of(Painter(), **options).activations("reference")

    with pytest.raises(UserError, match="--teacher: none"):
        activations(extractor="teacher", teacher=TeacherOptions(teacher="none"))
    with pytest.raises(UserError, match="--inception_weights: no file"):
        activations(extractor="inception", inception_weights=str(tmp_path / "absent.weights.h5"))
    (tmp_path / "wrong.weights.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"--inception_weights: .*does not fit"):
        extractors.load_inception(str(tmp_path / "wrong.weights.h5"))
    with pytest.raises(UserError, match="--extractor_handle: --extractor=hub needs"):
        activations(extractor="hub")
    with pytest.raises(UserError, match="--extractor_handle: cannot load /nowhere"):
        activations(extractor="hub", extractor_handle="/nowhere")
    with pytest.raises(UserError, match="--extractor: teacher gives no class probabilities"):
        context_of(Painter(), extractor="teacher", teacher=TeacherOptions(teacher="vgg19_slim")).probabilities(
            "generated"
        )


class MeanColour(tf.Module):
    """A stand-in for a TF-Hub image feature vector of 48 px pictures."""

    @tf.function(input_signature=[tf.TensorSpec((None, 48, 48, 3), tf.float32)])
    def __call__(self, pictures):
        return tf.reduce_mean(pictures, (1, 2))


def test_a_hub_module_gets_pictures_in_0_to_1_at_its_own_side(tmp_path):
    module = MeanColour()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    context = context_of(Painter(), extractor="hub", extractor_handle=str(tmp_path))
    test = context.split("test")
    np.testing.assert_allclose(context.activations("reference"), test.images.mean((1, 2)) / 255, atol=2e-3)
    assert context.extractor_network.protocol["resize"] == "48, bilinear"
    assert context.features_name == "hub48_32"
    assert context.extractor_protocol()["extractor_sha256"] == context.extractor_network.fingerprint


@pytest.mark.parametrize(
    ("network", "own_side", "side", "name"),
    [("inception", 299, 32, "inception299_32"), ("own", 64, 64, "own_64"), ("vgg19_pool4", 0, 224, "vgg19_pool4_224")],
)
def test_a_name_says_where_pictures_were_resized(network, own_side, side, name):
    assert extractors.features_name(network, own_side, side) == name


def test_a_hub_module_that_takes_no_pictures_is_refused(tmp_path):
    class Words(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
        def __call__(self, text):
            return tf.zeros((tf.shape(text)[0], 2))

    tf.saved_model.save(Words(), str(tmp_path))
    with pytest.raises(UserError, match=r"--extractor_handle: .* takes no batch of pictures"):
        context_of(Painter(), extractor="hub", extractor_handle=str(tmp_path)).activations("reference")


def test_activations_come_batch_by_batch_in_order_and_are_cached(tmp_path, monkeypatch):
    batches = []

    def load(context):
        image = keras.Input((32, 32, 3))
        network = keras.Model(image, {"features": keras.layers.GlobalAveragePooling2D()(image)})
        plain = keras_extractor("mean", {}, network)
        return extractors.Extractor(
            "mean", {}, lambda images: batches.append(len(images)) or plain.forward(images), False, plain.fingerprint
        )

    monkeypatch.setattr("t2i_kd.metrics.context.load_extractor", load)
    first = context_of(Painter(), test=100, cache_dir=str(tmp_path))
    means = first.split("test").images.mean((1, 2))
    np.testing.assert_allclose(first.activations("reference"), means, rtol=1e-5)
    assert batches == [32, 32, 32, 4]
    np.testing.assert_allclose(context_of(Painter(), test=100, cache_dir=str(tmp_path)).activations("reference"), means)
    assert len(batches) == 4
    # Other pictures, other activations.
    context_of(Painter(), test=64, cache_dir=str(tmp_path)).activations("reference")
    assert len(batches) == 6


def test_nan_activations_are_refused():
    image = keras.Input((32, 32, 3))
    broken = keras.Model(image, {"features": keras.layers.Rescaling(float("nan"))(image)[:, 0, 0]})
    with pytest.raises(UserError, match="--extractor: broken: features hold NaN"):
        list(keras_extractor("broken", {}, broken).batches(np.ones((2, 32, 32, 3), np.uint8)))


def test_the_same_weights_have_the_same_fingerprint_and_others_another():
    def fingerprint(seed):
        network = image_classifier.build_image_classifier(32, {"label": 3}, seed)
        return image_classifier.ImageClassifier(network).extractor().fingerprint

    assert fingerprint(0) == fingerprint(0) != fingerprint(1)
