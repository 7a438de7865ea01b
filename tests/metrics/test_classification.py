import dataclasses

import numpy as np
import pytest

from t2i_kd.data.arrays import from_arrays
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.metrics import classification, image_classifier, resampling
from t2i_kd.metrics.context import EvaluationContext

from .flowers import Painter, context_of, flowers


@pytest.fixture(scope="module")
def shared():
    return {}


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    defaults = image_classifier.train_image_classifier.__defaults__
    monkeypatch.setattr(image_classifier.train_image_classifier, "__defaults__", (defaults[0], 20, *defaults[2:]))
    monkeypatch.setattr(classification, "REVERSE_STEPS", 20)


def values(measurement):
    return {line: rows[0] for line, rows in resampling.resampled(measurement, 5, 0).items()}


def test_hits_by_hand():
    assert classification.hits(np.array([[1.0, 2], [3, 0], [0, 1]]), [1, 1, 1]).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="NaN"):
        classification.hits(np.array([[np.nan, 1]]), [0])
    with pytest.raises(ValueError, match="2 predictions for 1"):
        classification.hits(np.zeros((2, 2)), [0])


def test_what_a_student_draws_is_named_by_a_classifier_of_real_pictures(shared):
    right, wrong = (classification.measure(context_of(Painter(wrong), shared=shared)) for wrong in (False, True))
    name = "classification_own_32_n160"
    assert values(right) == {name: pytest.approx(1, abs=0.02)}
    assert values(wrong) == {name: pytest.approx(0, abs=0.02)}
    assert right.baselines["real test pictures"][name] >= 0.98
    assert right.baselines["chance"][name] == 0.25
    assert right.samples[name].shape == (160,) and len(right.pairs) == len(right.pictures) == 160


@pytest.mark.slow
def test_a_classifier_of_generated_pictures_learns_what_they_show(shared):
    right, wrong = (
        classification.measure_reverse(context_of(Painter(wrong), shared=shared)) for wrong in (False, True)
    )
    name = "classification_reverse_own_32_n240_n160"
    assert values(right)[name] >= 0.95
    assert values(wrong)[name] <= 0.05
    assert right.baselines["trained on real"][name] >= 0.95
    assert (right.generated, right.reference) == (0, 160)


def test_sets_without_shared_classes_are_refused():
    shapes = {("split", split, 32, 32): load_dataset("captioned_shapes", split, 32) for split in ("train", "test")}
    for measure in (classification.measure, classification.measure_reverse):
        with pytest.raises(UserError, match="--dataset: captioned_shapes has attributes, not classes"):
            measure(EvaluationContext(Painter(), "captioned_shapes", cache=shapes))
        context = context_of(Painter())
        test = context.split("test")
        context.cache["split", "test", 32, 32] = dataclasses.replace(test, labels=test.labels + 4)
        with pytest.raises(UserError, match="--dataset: flowers has no classes that"):
            measure(context)


@pytest.mark.slow
def test_the_classifier_is_kept_and_a_function_of_its_seed(tmp_path):
    context = context_of(Painter(), cache_dir=str(tmp_path))
    images = context.split("test").images[:8]
    first = context.own_classifier.logits(images)
    (kept,) = tmp_path.iterdir()
    before = kept.stat().st_mtime_ns
    again = context_of(Painter(), cache_dir=str(tmp_path)).own_classifier.logits(images)
    np.testing.assert_array_equal(first, again)
    assert kept.stat().st_mtime_ns == before and len(list(tmp_path.iterdir())) == 1
    other = context_of(Painter(), cache_dir=str(tmp_path), seed=1).own_classifier.logits(images)
    assert not np.allclose(first, other)


@pytest.mark.slow
def test_own_features_of_a_set_with_attributes_learn_every_attribute():
    shapes = load_dataset("captioned_shapes", "test", 32)
    classifier = image_classifier.train_image_classifier(shapes, steps=2)
    assert set(classifier.network.output) == {"features", *shapes.attributes[0]}
    extractor = classifier.extractor()
    assert not extractor.has_probabilities
    (found,) = extractor.batches(shapes.images[:3])
    assert found["features"].shape == (3, 64)


def test_one_class_teaches_nothing():
    one = flowers("train", 8)
    with pytest.raises(UserError, match="--dataset: flowers/train has no two classes"):
        image_classifier.train_image_classifier(dataclasses.replace(one, labels=np.zeros(8, int)))


@pytest.mark.slow
def test_a_set_without_classes_has_features_that_tell_how_a_picture_is_turned():
    """Pictures that are dark at the top: turned by a quarter they are dark at the left, and so on."""
    rng, ramp = np.random.default_rng(0), np.linspace(0, 255, 16)[:, None, None]
    images = np.clip(ramp + rng.normal(0, 20, (40, 16, 16, 3)), 0, 255).astype(np.uint8)
    turned = image_classifier.Turned(images)
    assert len(turned) == 160
    assert [np.argmin(edges(turned[index])) for index in range(8)] == [0, 1, 2, 3] * 2
    plain = from_arrays(images, ["a"] * 40, images, ["a"] * 40).load("train", 16)
    assert not image_classifier.has_classes(plain)
    classifier = image_classifier.train_without_labels(plain, steps=40)
    found = classifier.logits([turned[index] for index in range(40)], image_classifier.TURNS).argmax(1)
    assert (found == np.arange(40) % 4).mean() > 0.9
    extractor = classifier.extractor()
    assert extractor.name == "own_turns" and not extractor.has_probabilities
    assert extractor.features(images[:3]).shape == (3, 64)


def edges(image):
    """The mean brightness of the top, left, bottom and right edge."""
    return [edge.mean() for edge in (image[0], image[:, 0], image[-1], image[:, -1])]


def test_large_pictures_are_averaged_down():
    network = image_classifier.build_image_classifier(128, {"label": 2}, 0)
    assert network.get_layer("conv0").output.shape == (None, 64, 64, 32)
    for side in (32, 64, 100, 128, 224):
        network = image_classifier.build_image_classifier(side, {"label": 2}, 0)
        read, reduced = image_classifier.ImageClassifier(network).sides
        assert (read, reduced) == (side, network.get_layer("conv0").output.shape[1])
