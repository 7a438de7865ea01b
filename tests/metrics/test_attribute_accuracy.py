from pathlib import Path

import numpy as np
import pytest

from t2i_kd.data import captioned_shapes
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.loading import load_artifact
from t2i_kd.metrics import attribute_accuracy as metric
from t2i_kd.metrics import resampling
from t2i_kd.metrics.context import EvaluationContext


class LookUp:
    """A student that answers a caption with a real test picture of what it says, changed by `change`."""

    def __init__(self, test, change=lambda image: image):
        self.resolution = self.data_resolution = len(test.images[0])
        self.change = change
        self.pictures = {text: image for image, texts in zip(test.images, test.captions, strict=True) for text in texts}

    def generate(self, captions, seeds):
        assert len(seeds) == len(captions)
        return np.stack([self.change(self.pictures[caption]) for caption in captions])


@pytest.fixture(scope="module")
def shapes_cache():
    """Both splits at 32 px; the evaluator joins them when the first test asks for it."""
    return {("split", split, 32, 32): captioned_shapes.load(split, 32) for split in ("train", "test")}


def values_of(measurement):
    return by_attribute(measurement, {line: rows[0] for line, rows in resampling.resampled(measurement, 0, 0).items()})


def by_attribute(measurement, values):
    """Without what all names end in."""
    suffix = f"_classifier_32_n{measurement.generated}"
    assert all(name.startswith("attribute_") and name.endswith(suffix) for name in values)
    return {name.removeprefix("attribute_").removesuffix(suffix): value for name, value in values.items()}


def test_hits_worked_by_hand():
    wanted = [{"colour": "red", "size": "small"}, {"colour": "blue", "size": "small"}] * 2
    predicted = [{"colour": "red", "size": size} for size in ("small", "large", "small", "small")]
    hits = {name: values.tolist() for name, values in metric.attribute_hits(predicted, wanted).items()}
    assert hits == {"colour": [1, 0, 1, 0], "size": [1, 0, 1, 1], "mean": [1, 0, 1, 0.5]}


@pytest.mark.parametrize(("predicted", "wanted"), [([], []), ([{"size": "small"}], [])])
def test_accuracy_needs_as_many_predictions_as_pictures(predicted, wanted):
    with pytest.raises(ValueError, match="predictions"):
        metric.attribute_hits(predicted, wanted)


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.8, 10, 0.4902, 0.9433), (1.0, 300, 0.98736, 1.0), (0.0, 300, 0.0, 0.01264), (0.5, 300, 0.44374, 0.55626)],
)
def test_wilson_interval(share, count, low, high):
    assert metric.wilson_interval(share, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.slow
def test_real_pictures_of_unseen_combinations_are_classified_right(shapes_cache):
    test = shapes_cache["split", "test", 32, 32]
    result = metric.measure(EvaluationContext(LookUp(test), "captioned_shapes", cache=shapes_cache))
    assert min(result.baselines["classifier on real"].values()) >= metric.REQUIRED_OF_CLASSIFIER
    values = values_of(result)
    assert min(values.values()) >= 0.98
    assert by_attribute(result, result.baselines["chance"])["colour"] == 1 / len(captioned_shapes.COLOURS)
    assert by_attribute(result, result.samples)["mean"].mean() == pytest.approx(values["mean"])
    assert len(result.pairs) == len(result.pictures) == result.generated == 300
    protocol = result.protocol
    assert (protocol["captions"], protocol["seed"], protocol["resolution"]) == (300, 0, 32)
    assert protocol["combinations"] == len(captioned_shapes.combinations("test"))
    assert set(by_attribute(result, result.intervals)) == set(captioned_shapes.ATTRIBUTES)
    assert len(protocol["extractor_sha256"]) == len(protocol["reference_sha256"]) == 64


@pytest.mark.slow
def test_wilsons_intervals_do_not_count_a_caption_twice(shapes_cache):
    """The split has 1,024 pictures, three captions each, and 768 texts."""
    student = LookUp(shapes_cache["split", "test", 32, 32])
    once, again = (
        metric.measure(EvaluationContext(student, "captioned_shapes", num_captions=count, cache=shapes_cache))
        for count in (768, 3072)
    )
    trials = once.protocol["trials"]
    assert again.generated == 3072 and trials == again.protocol["trials"] <= 768
    for measured in (once, again):
        low, high = by_attribute(measured, measured.intervals)["colour"]
        assert (low, high) == metric.wilson_interval(values_of(measured)["colour"], trials)


@pytest.mark.slow
def test_a_student_that_mirrors_its_pictures_fails_in_place_alone(shapes_cache):
    student = LookUp(shapes_cache["split", "test", 32, 32], lambda image: image[:, ::-1])
    values = values_of(metric.measure(EvaluationContext(student, "captioned_shapes", cache=shapes_cache)))
    assert values["place"] <= 0.02
    assert min(values[name] for name in ("colour", "shape", "size", "background")) >= 0.95


@pytest.mark.slow
def test_a_grey_picture_is_right_no_more_often_than_chance(shapes_cache):
    student = LookUp(shapes_cache["split", "test", 32, 32], lambda image: np.full_like(image, 128))
    result = metric.measure(EvaluationContext(student, "captioned_shapes", cache=shapes_cache))
    for name in captioned_shapes.ATTRIBUTES:
        assert values_of(result)[name] <= by_attribute(result, result.baselines["chance"])[name] + 0.1


@pytest.mark.slow
def test_a_bad_classifier_refuses_to_evaluate(monkeypatch, shapes_cache):
    class Blind:
        values = captioned_shapes.ATTRIBUTES

        def predict(self, images):
            return [{name: choices[0] for name, choices in self.values.items()}] * len(images)

    monkeypatch.setattr(metric, "train_attribute_classifier", lambda dataset, seed, **kept: Blind())
    splits = {key: value for key, value in shapes_cache.items() if key[0] == "split"}
    student = LookUp(splits["split", "test", 32, 32])
    with pytest.raises(UserError, match=r"cannot evaluate captioned_shapes: .* 98% is required"):
        metric.measure(EvaluationContext(student, "captioned_shapes", cache=splits))


def test_a_data_set_without_attributes_is_refused():
    plain = CaptionedImages("birds/test", np.zeros((1, 32, 32, 3), np.uint8), (("a bird",),), np.zeros(1, int), ("b",))
    context = EvaluationContext(LookUp(plain), "birds", cache={("split", "test", 32, 32): plain})
    with pytest.raises(UserError, match="--dataset: birds"):
        metric.measure(context)


@pytest.mark.slow
def test_the_model_that_this_repository_ships_obeys_unseen_captions(shapes_cache):
    """Its card says .98 on 300 captions; half of them here, with room for the evaluator's own training."""
    student = load_artifact(Path(__file__).resolve().parents[2] / "saved_models" / "shapes32" / "1")
    context = EvaluationContext(student, "captioned_shapes", num_captions=150, cache=shapes_cache)
    values = values_of(metric.measure(context))
    assert values["mean"] >= 0.95
    assert min(values.values()) >= 0.88
