"""The two forms of the tokenizer agree on every string, and follow the documented rules."""

import json
import random
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.data import captioned_shapes
from t2i_kd.errors import UserError
from t2i_kd.text.tokenizer import REED_ALPHABET, Tokenizer

WORDS = Tokenizer("words", ("a", "red", "bird's", "größe", "\u30c6\u30b9\u30c8"), 6)
CHARACTERS = Tokenizer.from_captions([], "characters", 201)
TOKENIZERS = (WORDS, CHARACTERS)
SHARED_ZIPS = (
    "oxford_flowers102_64px.zip",
    "cub200_crops_100classes_227px.zip",
    "cub200_reed_captions_10classes_256px.zip",
)


def assert_forms_agree(tokenizer, captions):
    raw = [caption if isinstance(caption, bytes) else caption.encode("utf-8") for caption in captions]
    plain = tokenizer(captions)
    np.testing.assert_array_equal(plain, tf.function(tokenizer.in_graph)(tf.constant(raw, tf.string, [len(raw)])))
    assert plain.dtype == np.int32
    assert plain.shape == (len(captions), tokenizer.length)


def test_words_are_runs_of_letters_digits_apostrophes_and_all_that_is_not_ascii():
    ids = WORDS(["A red, RED bird's größe!", "GRÖSSE größe-x", "", " \t\n", "a" * 9 + " a a a a a a a"])
    expected = [[2, 3, 3, 4, 5, 0], [1, 5, 1, 0, 0, 0], [0] * 6, [0] * 6, [1, 2, 2, 2, 2, 2]]
    np.testing.assert_array_equal(ids, expected)


def test_only_ascii_is_lower_cased_and_nothing_is_normalised():
    composed, decomposed = "\u00e9", "e\u0301"
    tokenizer = Tokenizer("words", (composed, "\u212a"), 2)
    np.testing.assert_array_equal(tokenizer([composed + " \u00c9", decomposed + " \u212a"]), [[2, 1], [1, 3]])


def test_characters_are_reeds_seventy_with_the_second_hyphen_and_a_space():
    assert len(REED_ALPHABET) == 70
    ids = CHARACTERS(["Ab9 -\n\u00e9"])[0]
    # id = 2 + column; of the two hyphens the last counts; a newline is unknown, and so are both bytes of the accent.
    np.testing.assert_array_equal(ids[:8], [2, 3, 37, 71, 2 + REED_ALPHABET.rindex("-"), 1, 1, 1])
    assert not ids[8:].any()


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_forms_agree_on_awkward_strings(tokenizer):
    assert_forms_agree(
        tokenizer,
        [
            *("", " ", "\t\n\r\x0b\x0c", "\u00a0\u2003\u3000", "a\x00red\x00", "\x00", "--a--red--", "A RED\nbird's"),
            *("e\u0301 \u0130 \u00df", "\U0001f469\u200d\U0001f680 red", "\u202ered\u202c", "\ufeffa", "a " * 5000),
            *("z" * 10000, "red" * 300, "x" * 200 + "\u00e9", "[PAD] [UNK] a"),
            *(b"\xff\xfe a \xe2\x80", b"\xc3", b"\x80red\x80 red", bytes(range(256)), bytes(reversed(range(256)))),
        ],
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_forms_agree_on_random_text_and_random_bytes(tokenizer):
    draw = random.Random(0)
    kinds = (
        lambda: chr(draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)))),
        lambda: chr(draw.randrange(128)),
        lambda: draw.choice(("a", "red", "RED", "bird's", " ", "größe", "\u0301", "\u200d", "'", "-", "\x00")),
    )
    text = ["".join(draw.choice(kinds)() for _ in range(draw.randrange(40))) for _ in range(1500)]
    raw = [bytes(draw.choice(b"aRED '-\x00\n\x7f\x80\xc3\xa9\xe2\xff[`{@") for _ in range(20)) for _ in range(1500)]
    noise = [draw.randbytes(draw.randrange(40)) for _ in range(1500)]
    assert_forms_agree(tokenizer, text + raw + noise)


def check_caption_set(captions, kind, length):
    tokenizer = Tokenizer.from_captions(captions, kind, length)
    assert_forms_agree(tokenizer, captions)
    return tokenizer


@pytest.mark.parametrize(("kind", "length"), [("words", 32), ("characters", 201)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_forms_agree_on_captioned_shapes(split, kind, length):
    captions = sorted(set(captioned_shapes.load(split, 32).all_captions))
    tokenizer = check_caption_set(captions, kind, length)
    assert (tokenizer(captions) != 1).all()


@pytest.mark.shared
@pytest.mark.parametrize(("kind", "length"), [("words", 32), ("characters", 201)])
@pytest.mark.parametrize("name", SHARED_ZIPS)
def test_forms_agree_on_shared_captions(shared_data, name, kind, length):
    with zipfile.ZipFile(shared_data / name) as archive:
        lines = archive.read("metadata.jsonl").decode("utf-8").splitlines()
    captions = sorted({caption for line in lines for caption in json.loads(line)["captions"]})
    tokenizer = check_caption_set(captions, kind, length)
    if kind == "words":
        assert (tokenizer(captions) != 1).all()


def test_vocabulary_is_ordered_by_frequency_then_bytes():
    tokenizer = Tokenizer.from_captions(["b a c", "A b", "é"], "words", 4)
    assert tokenizer.vocabulary == ("a", "b", "c", "é")


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_vocabulary_file_has_a_token_a_line_and_its_id_is_its_line(tokenizer, tmp_path):
    path = tmp_path / "vocabulary.txt"
    tokenizer.save(path)
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines[:2] == ["[PAD]", "[UNK]"]
    assert [lines[number] for number in range(2, tokenizer.size)] == list(tokenizer.vocabulary)
    assert Tokenizer.load(path, tokenizer.kind, tokenizer.length) == tokenizer
    assert [file.name for file in tmp_path.iterdir()] == ["vocabulary.txt"]


@pytest.mark.parametrize(
    "content",
    [b"", b"a\nb\n", b"[PAD]\n[UNK]\na", b"[PAD]\n[UNK]\na\na\n", b"[PAD]\n[UNK]\na b\n", b"[PAD]\n[UNK]\n\xff\n"],
)
def test_wrong_vocabulary_file_is_named(content, tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"vocabulary\.txt"):
        Tokenizer.load(path, "words", 4)


def test_missing_vocabulary_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"vocabulary\.txt"):
        Tokenizer.load(tmp_path / "vocabulary.txt", "words", 4)


def test_lone_surrogate_is_refused():
    with pytest.raises(UserError, match="UTF-8"):
        WORDS(["\udc80"])


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_graph_form_survives_a_saved_model(tokenizer, tmp_path):
    module = tf.Module()
    module.tokenizer = tokenizer.in_graph_module()
    signature = [tf.TensorSpec([None], tf.string, name="text")]
    module.tokens = tf.function(lambda text: {"tokens": tokenizer.in_graph(text)}, input_signature=signature)
    tf.saved_model.save(module, tmp_path / "model", signatures={"serving_default": module.tokens})
    loaded = tf.saved_model.load(tmp_path / "model")
    captions = ["A red bird's größe", "", "\x00 a"]
    tokens = loaded.signatures["serving_default"](text=tf.constant(captions))["tokens"]
    np.testing.assert_array_equal(tokens, tokenizer(captions))


def test_what_is_not_read_is_named():
    tokenizer = Tokenizer("words", ("a", "red", "circle"), 4)
    assert tokenizer.unread("A red circle") == [[], []]
    assert tokenizer.unread("a XYZZY circle plugh red navy") == [["xyzzy", "plugh"], ["red", "navy"]]
    characters = Tokenizer.from_captions([], "characters", 48)
    assert characters.unread("café" + "x" * 50) == (["é"], ["xxxxxxx"])
