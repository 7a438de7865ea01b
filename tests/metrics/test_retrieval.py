import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.errors import UserError
from t2i_kd.metrics import image_classifier, resampling, retrieval

from .flowers import COLOURS, Painter, context_of, flowers


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    defaults = image_classifier.train_image_classifier.__defaults__
    monkeypatch.setattr(image_classifier.train_image_classifier, "__defaults__", (defaults[0], 10, *defaults[2:]))
    monkeypatch.setattr(retrieval, "STEPS", 150)


def value(measurement):
    ((name, rows),) = resampling.resampled(measurement, 2, 0).items()
    return name, rows[0]


def test_first_among_by_hand():
    texts = np.array([[1.0, 0], [0, 1], [0.9, 0]])
    images = np.array([[2.0, 1], [0, 3], [-1, 0]])
    candidates = np.array([[0, 1, 2], [0, 1, 2], [1, 0, 2]])
    assert retrieval.first_among(images, texts, candidates).tolist() == [1, 0, 1]
    # A tie is no hit.
    assert retrieval.first_among(np.zeros((1, 2)), texts, candidates[:1]).tolist() == [0]


@pytest.mark.parametrize(
    ("images", "texts"), [(np.full((2, 2), np.nan), np.ones((3, 2))), (np.ones((2, 3)), np.ones((3, 2)))]
)
def test_bad_vectors_are_refused(images, texts):
    with pytest.raises(ValueError, match=r"NaN|pictures"):
        retrieval.first_among(images, texts, np.zeros((2, 3), int))


def test_candidates_are_the_own_caption_and_99_of_other_pictures():
    captions = flowers("test", 160).captions
    pairs = [(i, captions[i][i % 2]) for i in range(160)]
    texts, candidates = retrieval.draw_candidates(captions, pairs, 0)
    assert len(texts) == len(set(texts)) == 164
    for (picture, caption), row in zip(pairs, candidates, strict=True):
        assert texts[row[0]] == caption
        assert len(set(row)) == 100
        assert not {texts[i] for i in row[1:]} & set(captions[picture])
    again = retrieval.draw_candidates(captions, pairs, 1)[1]
    assert (again[:, 0] == candidates[:, 0]).all() and not np.array_equal(again, candidates)


def test_what_says_the_same_of_the_picture_is_no_wrong_caption():
    """Other letters' cases and punctuation, and captions of pictures with the same attributes."""
    captions = [["A red cat.", "one cat"], ["a red cat"], ["a cat that is red"], ["a dog"], ["a bird"]]
    attributes = [{"kind": "cat", "colour": "red"}] * 3 + [{"kind": "dog"}, {"kind": "bird"}]
    for given, expected in (((), ["a bird", "a cat that is red", "a dog"]), (attributes, ["a bird", "a dog"])):
        texts, others = retrieval.other_texts(captions, given)
        assert [texts[row] for row in others(0)] == expected
    texts, candidates = retrieval.draw_candidates(captions, [(0, "one cat"), (3, "a dog")], 0, 2, attributes)
    assert [texts[row] for row in candidates[0]][:1] == ["one cat"]
    assert {texts[row] for row in candidates[0][1:]} == {"a bird", "a dog"}


def test_too_few_captions_name_the_data_set():
    with pytest.raises(UserError, match="--dataset: r_precision needs 9 captions of other pictures, there are 8"):
        retrieval.measure(context_of(Painter(), test=6))


def test_few_captions_make_a_measure_of_another_name():
    """40 pictures have 44 texts, of which two are their own; those of 160 are cut to 99."""
    assert retrieval.other_captions(context_of(Painter(), test=40)) == 42
    assert retrieval.other_captions(context_of(Painter(), test=160)) == 99
    captions = flowers("test", 40).captions
    pairs = [(i, captions[i][0]) for i in range(40)]
    texts, candidates = retrieval.draw_candidates(captions, pairs, 0, 42)
    assert candidates.shape == (40, 43) and all(len(set(row)) == 43 for row in candidates)
    assert all(texts[row[0]] == caption for row, (_, caption) in zip(candidates, pairs, strict=True))


@pytest.mark.slow
def test_a_picture_of_the_wrong_class_finds_its_caption_less_often(tmp_path):
    right, wrong = (value(retrieval.measure(context_of(Painter(w), cache_dir=str(tmp_path)))) for w in (False, True))
    assert right[0] == "r_precision_ds_sje_own_32_n160_of100"
    # 25 of the 100 captions name the right colour, and nothing tells them apart.
    assert right[1] > 2 * wrong[1] + 0.01
    kept = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert kept == ["classifier", "reference", "retrieval", "train"]


class NamedColour(tf.Module):
    """The unit vector of the colour that a caption names, three numbers."""

    def __init__(self):
        super().__init__()
        colours = np.array([COLOURS[name] for name in ("red", "green", "blue", "grey")], "float32") / 255
        self.colours = tf.Variable(colours)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def __call__(self, text):
        named = [tf.strings.regex_full_match(text, f".*{name}.*") for name in ("red", "green", "blue", "grey")]
        return tf.cast(tf.stack(named, 1), tf.float32) @ self.colours


class MeanColour(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), tf.float32)])
    def __call__(self, pictures):
        return tf.reduce_mean(pictures, (1, 2))


def test_a_hub_pair_compares_by_cosine(tmp_path):
    for name, module in (("text", NamedColour()), ("image", MeanColour())):
        tf.saved_model.save(module, str(tmp_path / name), signatures=module.__call__)
    options = {
        "extractor": "hub",
        "extractor_handle": str(tmp_path / "image"),
        "retrieval_handle": str(tmp_path / "text"),
    }

    def one_of_a_kind(context):
        """A test split in which only one picture has its colour, so that its caption can be first."""
        test = context.split("test")
        captions = (("a red flower",), *((f"blue {i}", f"a blue {i}") for i in range(len(test) - 1)))
        images = np.stack([test.images[0], *[test.images[2]] * (len(test) - 1)])
        context.cache["split", "test", 32, 32] = dataclasses.replace(test, images=images, captions=captions)
        return context

    measurement = retrieval.measure(one_of_a_kind(context_of(Painter(), **options)))
    (name, hits) = next(iter(measurement.samples.items()))
    assert name == "r_precision_hub_hub_32_n160_of100"
    red = [caption == "a red flower" for _, caption in measurement.pairs]
    assert hits[red].tolist() == [1]
    assert hits[np.logical_not(red)].sum() == 0
    # Real pictures go with their own captions: that of the only red one is first, all others are alike.
    share = np.mean([picture == 0 for picture, _ in measurement.pairs])
    assert share > 0 and measurement.baselines["real pictures"][name] == pytest.approx(share)
    with pytest.raises(UserError, match="--retrieval_handle: needs --extractor=hub"):
        retrieval.measure(context_of(Painter(), retrieval_handle=str(tmp_path / "text")))
    with pytest.raises(UserError, match=r"--retrieval_handle: .*is no encoder"):
        retrieval.measure(context_of(Painter(), **(options | {"retrieval_handle": str(tmp_path / "image")})))
