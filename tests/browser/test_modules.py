"""The page's own tokenizer, noise and rounding against the Python ones, in Chromium."""

import contextlib
import json
import random

import numpy as np
import pytest

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.conditions.resizing import resize_square
from t2i_kd.data.captioned_images import check_caption
from t2i_kd.errors import UserError
from t2i_kd.imaging import to_uint8
from t2i_kd.noise import noise_from_seeds
from t2i_kd.text.front_end import TokenFrontEnd
from t2i_kd.text.tokenizer import Tokenizer
from tests.browser.conftest import PIPELINE

WORDS = Tokenizer("words", ("a", "red", "bird's", "größe", "\u30c6\u30b9\u30c8", "\u212a", "0", "'"), 6)
CHARACTERS = Tokenizer.from_captions([], "characters", 201)
AWKWARD = [
    *("", " ", "\t\n\r\x0b\x0c", "\u00a0\u2003\u3000", "a\x00red\x00", "\x00", "--a--red--", "A RED\nbird's"),
    *("e\u0301 \u0130 \u00df", "\U0001f469\u200d\U0001f680 red", "\u202ered\u202c", "\ufeffa", "\u212a k K \u017f s S"),
    *("a " * 3000, "z" * 10000, "red" * 300, "x" * 200 + "\u00e9", "[PAD] [UNK] a", "GRÖSSE größe-x GRÖßE", "0 00 0."),
    *("\x7f\x80\x85\xa0", "BIRD'S 'a' a's", "constructor __proto__ toString", "\U0010ffff\ufffe a", "\ud7ff\ue000"),
]


def random_texts(count):
    draw = random.Random(0)
    kinds = (
        lambda: chr(draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)))),
        lambda: chr(draw.randrange(128)),
        lambda: draw.choice(("a", "red", "RED", "bird's", " ", "größe", "\u0301", "\u200d", "'", "-", "\x00")),
    )
    return ["".join(draw.choice(kinds)() for _ in range(draw.randrange(40))) for _ in range(count)]


@pytest.fixture(scope="module")
def call(browser, served):
    """Evaluates a JavaScript function of one JSON value, which sees the modules by their names."""
    imports = "".join(
        f"const {name} = await import('/{name}.js');"
        for name in ("tokenizer", "noise", "resizing", "student", "manifest")
    )

    def evaluate(function, value):
        # Texts in ASCII: lone surrogates get through too, and long lists fast.
        called = f"async (value) => {{ {imports} return JSON.stringify(({function})(JSON.parse(value))); }}"
        return json.loads(page.evaluate(called, json.dumps(value)))

    with served(PIPELINE) as address, contextlib.closing(browser.new_page()) as page:
        page.goto(address + "package.json")
        yield evaluate


ENCODE = """({kind, length, vocabulary, captions}) => {
    const made = new tokenizer.Tokenizer(kind, vocabulary, length);
    return [made.size, ...made.encode(captions)];
}"""


def vocabulary_text(made, folder):
    made.save(folder / "vocabulary.txt")
    return (folder / "vocabulary.txt").read_bytes().decode("utf-8")


@pytest.mark.parametrize("made", [WORDS, CHARACTERS], ids=lambda made: made.kind)
def test_tokenizer_equals_pythons(call, made, tmp_path):
    captions = AWKWARD + random_texts(1500)
    vocabulary = vocabulary_text(made, tmp_path)
    size, *ids = call(
        ENCODE, {"kind": made.kind, "length": made.length, "vocabulary": vocabulary, "captions": captions}
    )
    assert size == made.size
    expected = made(captions)
    np.testing.assert_array_equal(np.reshape(ids, expected.shape), expected)
    # Known and unknown tokens, padding, and captions that are cut all occur.
    assert set(range(4)) <= set(expected.ravel().tolist()) and expected[:, -1].any()


UNREAD = """({kind, length, vocabulary, captions}) => {
    const made = new tokenizer.Tokenizer(kind, vocabulary, length);
    return captions.map((caption) => made.unread(caption));
}"""


@pytest.mark.parametrize("made", [WORDS, CHARACTERS], ids=lambda made: made.kind)
def test_what_is_not_read_is_said_as_python_says_it(call, made, tmp_path):
    captions = [*AWKWARD, *random_texts(300), "a red boat " * 40, "\u00e9" * 150]
    given = {"kind": made.kind, "length": made.length, "captions": captions}
    found = call(UNREAD, given | {"vocabulary": vocabulary_text(made, tmp_path)})
    condition = CaptionCondition(TokenFrontEnd("gru" if made.kind == "words" else "char_cnn_rnn", made))
    assert found == [condition.unread(caption) for caption in captions]
    assert [] in found and any("does not know" in line for lines in found for line in lines)
    assert any(f"reads {made.length} {made.kind}, not " in line for lines in found for line in lines)


def test_what_is_no_vocabulary_is_refused(call):
    told = "(text) => { try { new tokenizer.Tokenizer('words', text, 4) } catch (error) { return error.message } }"
    for vocabulary in ("", "a\nb\n", "[PAD]\n[UNK]\na", "[PAD]\n[UNK] \na\n"):
        assert "not a vocabulary" in call(told, vocabulary)


CAPTIONS = ["", " \n\u3000", "\x1c\x1d\x85", "\ufeff", "\u200b", "\u180e", "a" * 2000, "a" * 2001, "🟥" * 2000]
CAPTIONS += ["🟥" * 2001, "\ud800", "a\udc00", "\ud83d\udfe5", "a"]


def test_the_same_strings_are_captions(call):
    told = """(texts) => texts.map((text) => {
        try { tokenizer.checkCaption(text); return null } catch (error) { return error.message }
    })"""
    expected = []
    for caption in CAPTIONS:
        try:
            # JSON joins the halves of a surrogate pair.
            check_caption(json.loads(json.dumps(caption)))
            expected.append(None)
        except UserError as error:
            expected.append(str(error))
    assert call(told, CAPTIONS) == expected
    assert sum(message is None for message in expected) == 7


@pytest.mark.parametrize("dim", [1, 7, 32])
def test_noise_equals_numpys(call, dim):
    draw = random.Random(dim)
    seeds = [0, 1, -1, 2**31, 2**32, 2**32 - 1, 2**53 + 1, 2**63 - 1, -(2**63)]
    seeds += [draw.randrange(-(2**63), 2**63) for _ in range(500)]
    made = call(
        "({seeds, dim}) => [...noise.noiseFromSeeds(seeds.map(BigInt), dim)]", {"seeds": [*map(str, seeds)], "dim": dim}
    )
    expected = noise_from_seeds(seeds, dim)
    np.testing.assert_allclose(np.reshape(made, expected.shape), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dim", [2, 3, 64])
def test_noise_between_two_lies_on_their_arc(call, dim):
    fractions = np.linspace(0, 1, 11)

    def between(*ends):
        given = {"ends": [end.tolist() for end in ends], "fractions": fractions.tolist()}
        function = "fractions.map((t) => [...noise.slerp(...ends.map((end) => Float32Array.from(end)), t)])"
        return np.array(call(f"({{ends, fractions}}) => {function}", given), np.float32)

    first, second = ends = noise_from_seeds([3, -(2**60)], dim)
    made = between(*ends)
    np.testing.assert_array_equal(made[[0, -1]], ends)
    # Gram-Schmidt: the plane of the two, where the second is length * (cos angle, sin angle).
    along = first.astype(np.float64) / np.linalg.norm(first)
    across = second - along * (second @ along)
    across /= np.linalg.norm(across)
    angle, length = np.arctan2(second @ across, second @ along), np.linalg.norm(second)
    shares = np.sin(fractions * angle) / np.sin(angle) * length / np.linalg.norm(first)
    rest = np.sin((1 - fractions) * angle) / np.sin(angle)
    norms = np.linalg.norm(first) * np.sqrt(rest**2 + shares**2 + 2 * rest * shares * np.cos(angle))
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), norms, rtol=1e-6)
    # Of one length they turn at one speed, and stay as long.
    turned = np.outer(np.cos(fractions * angle), along) + np.outer(np.sin(fractions * angle), across)
    np.testing.assert_allclose(between(along, second / length), turned, atol=1e-6)
    np.testing.assert_array_equal(between(first, first), np.tile(first, (11, 1)))
    np.testing.assert_allclose(between(first, -2 * first), np.outer(1 - 3 * fractions, first), atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (45, 61), (200, 133), (20, 17), (1, 9)])
def test_resizing_equals_numpys(call, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    rgba = np.concatenate([picture, np.full((*size, 1), 255, np.uint8)], -1)
    given = {"data": rgba.ravel().tolist(), "height": size[0], "width": size[1]}
    made = call("(picture) => [...resizing.resizeSquare(picture, 32)]", given)
    found, expected = np.reshape(made, (32, 32, 3)), resize_square(picture, 32)
    # The last bit of a sum decides how a value in the middle between two numbers is rounded.
    assert np.abs(found - expected).max() <= 1 and (found != expected).mean() < 1e-3


def test_rounding_equals_numpys(call):
    values = [-3.0, -0.5, -0.0, *np.arange(0, 256, 0.25).tolist(), 255.4, 255.5, 256.0, 1e30]
    values += np.random.default_rng(0).uniform(-2, 258, 2000).astype(np.float32).tolist()
    made = call("(values) => [...student.toUint8(Float32Array.from([...values, NaN, Infinity, -Infinity]))]", values)
    assert made == to_uint8(np.array([*values, np.nan, np.inf, -np.inf], np.float32)).tolist()
