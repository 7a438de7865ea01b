"""The recipe's text encoder as an object: built, saved, loaded, and refused when something is wrong."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.conditions.catalogue import load_condition
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.options import TextOptions
from t2i_kd.text.front_end import build_front_end, load_front_end

CAPTIONS = (("a red bird", "the Bird is red"), ("a blue flower",))
DATASET = CaptionedImages("tiny/train", (), CAPTIONS, np.arange(2, dtype=np.int32), ("bird", "flower"))
RECIPES = {
    "gru": TextOptions(text_encoder="gru", text_dim=8, text_length=5, word_dim=4),
    "char_cnn_rnn": TextOptions(text_encoder="char_cnn_rnn", text_dim=8, text_length=48),
}


@pytest.mark.parametrize("name", RECIPES)
def test_features_fit_the_encoder_and_equal_the_graphs(name):
    front_end = build_front_end(RECIPES[name], DATASET)
    captions = ["a red flower", "", "unheard größe"]
    features = front_end.features(captions)
    assert features.shape == (3, *front_end.input_shape)
    assert features.dtype == front_end.input_dtype
    np.testing.assert_array_equal(front_end.in_graph(tf.constant(captions)), features)
    vectors = front_end.build_encoder(RECIPES[name])({front_end.input_name: features})
    assert vectors.shape == (3, 8)
    assert front_end.reads_any_text
    assert front_end.covering(DATASET) is front_end


@pytest.mark.parametrize(("name", "length"), [("gru", 32), ("char_cnn_rnn", 201)])
def test_default_lengths(name, length):
    assert build_front_end(TextOptions(text_encoder=name), DATASET).input_shape == (length,)


@pytest.mark.parametrize(("words", "length"), [(3, 32), (40, 40), (500, 128)])
def test_the_default_length_of_words_fits_the_longest_caption(words, length):
    data = dataclasses.replace(DATASET, captions=(("red",), (" ".join(["word"] * words),)))
    assert build_front_end(TextOptions(), data).input_shape == (length,)
    assert build_front_end(TextOptions(text_length=7), data).input_shape == (7,)


@pytest.mark.parametrize("name", RECIPES)
def test_saved_front_end_loads_and_does_not_ask_for_pretrained_weights(name, tmp_path):
    options = dataclasses.replace(RECIPES[name], text_weights="gone.weights.h5")
    front_end = build_front_end(options, DATASET)
    front_end.save(tmp_path)
    loaded = load_front_end(tmp_path, json.loads(json.dumps(front_end.describe())))
    assert loaded == front_end
    loaded.build_encoder(RECIPES[name])


def test_encoder_starts_from_text_weights(tmp_path):
    front_end = build_front_end(RECIPES["gru"], DATASET)
    trained = front_end.build_encoder(RECIPES["gru"])
    path = str(tmp_path / "text.weights.h5")
    trained.save_weights(path)
    pretrained = front_end.build_encoder(dataclasses.replace(RECIPES["gru"], text_weights=path))
    for ours, theirs in zip(pretrained.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def write_other_encoder(path):
    build_front_end(RECIPES["char_cnn_rnn"], DATASET).build_encoder(RECIPES["char_cnn_rnn"]).save_weights(path)


def write_other_vocabulary(path):
    other = CaptionedImages("other/train", (), (("one two three",),), np.zeros(1), ("x",))
    build_front_end(RECIPES["gru"], other).build_encoder(RECIPES["gru"]).save_weights(path)


@pytest.mark.parametrize(
    "write",
    [lambda path: None, lambda path: path.write_bytes(b"no HDF5"), write_other_encoder, write_other_vocabulary],
    ids=["missing", "not_hdf5", "other_encoder", "other_vocabulary"],
)
def test_wrong_text_weights_name_the_flag(write, tmp_path):
    path = tmp_path / "text.weights.h5"
    write(path)
    options = dataclasses.replace(RECIPES["gru"], text_weights=str(path))
    with pytest.raises(UserError, match=r"^--text_weights: [^\n]*text\.weights\.h5[^\n]*$"):
        build_front_end(options, DATASET).build_encoder(options)


def test_text_weights_of_another_vocabulary_of_the_same_size_are_noticed(tmp_path):
    other = CaptionedImages("other/train", (), (("one two three four five six seven",),), np.zeros(1), ("x",))
    theirs = build_front_end(RECIPES["gru"], other)
    ours = build_front_end(RECIPES["gru"], DATASET)
    assert theirs.tokenizer.size == ours.tokenizer.size
    assert theirs.tokenizer.vocabulary != ours.tokenizer.vocabulary
    path = tmp_path / "text.weights.h5"
    theirs.build_encoder(RECIPES["gru"]).save_weights(path)
    theirs.save(tmp_path)
    with pytest.raises(UserError, match=r"^--text_weights: .*vocabulary\.txt"):
        ours.build_encoder(dataclasses.replace(RECIPES["gru"], text_weights=str(path)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text_encoder": "telepathy"}, "--text_encoder"),
        ({"text_dim": 0}, "--text_dim"),
        ({"text_length": -1}, "--text_length"),
        ({"text_encoder": "char_cnn_rnn", "text_length": 47}, "--text_length"),
        ({"text_encoder": "precomputed"}, "--embeddings_dir"),
        ({"text_encoder": "hub"}, "--hub_handle"),
        ({"text_encoder": "hub", "text_weights": "x.weights.h5"}, "--text_weights"),
    ],
)
def test_wrong_recipe_names_the_flag(fields, message):
    with pytest.raises(UserError, match=f"^{message}"):
        build_front_end(TextOptions(**fields), DATASET)


def test_empty_folder_is_refused(tmp_path):
    described = build_front_end(RECIPES["gru"], DATASET).describe()
    with pytest.raises(UserError, match=r"vocabulary\.txt"):
        load_front_end(tmp_path, described)


def test_vocabulary_of_another_size_is_refused(tmp_path):
    front_end = build_front_end(RECIPES["gru"], DATASET)
    front_end.save(tmp_path)
    with pytest.raises(UserError, match=r"vocabulary\.txt: holds \d+ lines, not 3"):
        load_front_end(tmp_path, front_end.describe() | {"vocabulary_size": 3})


def test_unknown_encoder_is_refused(tmp_path):
    with pytest.raises(UserError, match="encoder 'telepathy' is none of gru, char_cnn_rnn, precomputed, hub"):
        load_front_end(tmp_path, {"encoder": "telepathy"})


@pytest.mark.parametrize("name", ["gru", "precomputed", "hub"])
def test_incomplete_description_is_refused(name, tmp_path):
    described = {"kind": "caption", "format_version": 1, "encoder": name}
    (tmp_path / "condition.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"condition\.json: wrong or incomplete"):
        load_condition(tmp_path)
