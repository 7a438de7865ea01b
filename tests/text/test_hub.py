"""Any TF-Hub sentence encoder: a small SavedModel made here stands for one."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.options import TextOptions
from t2i_kd.text.front_end import build_front_end, load_front_end
from t2i_kd.trust import trust_handle

CAPTIONS = (("a red bird", "a bird"), ("größe",))
DATASET = CaptionedImages("tiny/train", (), CAPTIONS, np.arange(2, dtype=np.int32), ("bird", "flower"))
TEXT = [tf.TensorSpec([None], tf.string)]


class Encoder(tf.Module):
    """Length in bytes and in code points through a table and a variable, as a sentence encoder has them."""

    def __init__(self):
        super().__init__()
        keys = tf.lookup.KeyValueTensorInitializer(["a bird"], tf.constant([7], tf.int64))
        self.table = tf.lookup.StaticHashTable(keys, 0)
        self.scale = tf.Variable(0.5)

    @tf.function(input_signature=TEXT)
    def __call__(self, text):
        lengths = tf.stack([tf.strings.length(text), tf.strings.length(text, unit="UTF8_CHAR")], axis=1)
        known = tf.cast(self.table.lookup(text), tf.float32)[:, None]
        return tf.concat([tf.cast(lengths, tf.float32) * self.scale, known], axis=1)


def expected(captions):
    return [[len(text.encode()) / 2, len(text) / 2, 7 * (text == "a bird")] for text in captions]


@pytest.fixture
def handle(tmp_path):
    tf.saved_model.save(Encoder(), tmp_path / "encoder")
    return str(tmp_path / "encoder")


def recipe(handle, text_dim=3):
    return TextOptions(text_encoder="hub", hub_handle=handle, text_dim=text_dim)


def test_features_are_the_modules_and_training_captions_are_embedded_once(handle, monkeypatch):
    front_end = build_front_end(recipe(handle), DATASET)
    assert set(front_end.vectors) == set(DATASET.all_captions)
    np.testing.assert_allclose(front_end.features(["a bird", "a bird", "new"]), expected(["a bird", "a bird", "new"]))
    monkeypatch.setitem(front_end.__dict__, "_module", None)
    np.testing.assert_allclose(front_end.features(DATASET.all_captions), expected(DATASET.all_captions))
    assert front_end.features([]).shape == (0, 3)


def test_graph_form_survives_an_export(handle, tmp_path):
    options = recipe(handle, text_dim=5)
    front_end = build_front_end(options, DATASET)
    encoder = front_end.build_encoder(options)
    archive = keras.export.ExportArchive()
    archive.track(encoder)
    archive.track(front_end.in_graph_module())
    archive.add_endpoint(
        "serving_default",
        lambda text: {"vector": encoder({"embedding": front_end.in_graph(text)})},
        input_signature=[tf.TensorSpec([None], tf.string, name="text")],
    )
    archive.write_out(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    captions = ["a bird", "größe", ""]
    vectors = loaded.signatures["serving_default"](text=tf.constant(captions))["vector"]
    np.testing.assert_allclose(vectors, encoder({"embedding": front_end.features(captions)}), atol=1e-6)


def test_loaded_front_end_needs_the_module_only_when_it_reads(handle, tmp_path):
    described = build_front_end(recipe(handle), DATASET).describe()
    away = load_front_end(tmp_path, described | {"source": "/nowhere/encoder"})
    assert away.build_encoder(recipe(handle))({"embedding": np.ones((2, 3), np.float32)}).shape == (2, 3)
    trust_handle("/nowhere/encoder")
    with pytest.raises(UserError, match=r"^--hub_handle: cannot load /nowhere/encoder"):
        away.features(["a bird"])
    loaded = load_front_end(tmp_path, described)
    np.testing.assert_allclose(loaded.features(["a bird"]), expected(["a bird"]))


def test_a_handle_that_only_a_file_names_is_not_contacted(tmp_path, monkeypatch):
    import tensorflow_hub

    contacted = []
    monkeypatch.setattr(tensorflow_hub, "load", contacted.append)
    described = {"encoder": "hub", "source": "https://stranger.example/encoder", "embedding_dim": 3}
    loaded = load_front_end(tmp_path, described)
    with pytest.raises(UserError, match=r"^--hub_handle: .*condition\.json names .*https://stranger\.example/encoder"):
        loaded.features(["a bird"])
    assert not contacted
    trust_handle(described["source"])
    with pytest.raises(UserError, match="no encoder"):
        loaded.features(["a bird"])
    assert contacted == [described["source"]]


def test_module_that_answers_by_a_signature_is_read(tmp_path):
    module = tf.Module()
    module.embed = tf.function(lambda text: {"default": tf.ones([tf.size(text), 4])}, input_signature=TEXT)
    tf.saved_model.save(module, tmp_path / "encoder", signatures={"default": module.embed})
    front_end = build_front_end(recipe(str(tmp_path / "encoder")), DATASET)
    np.testing.assert_array_equal(front_end.features(["new"]), np.ones((1, 4)))


def test_module_that_is_no_sentence_encoder_is_refused(tmp_path):
    module = tf.Module()
    module.__call__ = tf.function(lambda text: tf.strings.lower(text), input_signature=TEXT)
    tf.saved_model.save(module, tmp_path / "encoder")
    with pytest.raises(UserError, match=r"^--hub_handle: .*no encoder"):
        build_front_end(recipe(str(tmp_path / "encoder")), DATASET)


def test_module_of_another_width_is_refused(handle, tmp_path):
    described = {"encoder": "hub", "source": handle, "embedding_dim": 4}
    trust_handle(handle)
    with pytest.raises(UserError, match=r"^--hub_handle: .*vectors of 3, not 4"):
        load_front_end(tmp_path, described).features(["a bird"])


@pytest.mark.parametrize("width", [0, -1, 2.5, "3", None, True])
def test_wrong_width_is_named(width, handle, tmp_path):
    with pytest.raises(UserError, match=r"condition\.json: embedding_dim is no width from 1 to 65,536: "):
        load_front_end(tmp_path, {"encoder": "hub", "source": handle, "embedding_dim": width})


def test_missing_tensorflow_hub_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_hub", None)
    with pytest.raises(UserError, match="setuptools<82"):
        build_front_end(recipe("another/handle"), DATASET)


def test_unreachable_handle_says_what_to_put_where(monkeypatch):
    import tensorflow_hub

    def offline(handle):
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(tensorflow_hub, "load", offline)
    with pytest.raises(UserError, match=r"^--hub_handle: cannot load [^\n]*saved_model\.pb$"):
        build_front_end(recipe("https://tfhub.dev/google/universal-sentence-encoder/4"), DATASET)
