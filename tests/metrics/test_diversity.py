"""Distances between generated pictures against SciPy's pdist, and what noise changes."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.metrics import blocks, diversity
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.diversity import distance_over_seeds, mean_pair_distance
from t2i_kd.metrics.extractors import Extractor
from t2i_kd.metrics.resampling import draw_weights


def samples(*shape):
    return np.random.default_rng(0).normal(3, 1, shape)


@pytest.mark.parametrize("block", [512, 4])
def test_the_mean_over_pairs_is_pdists(block, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    vectors, weights = samples(13, 5), draw_weights(13, 4, 0)
    found = mean_pair_distance(vectors, weights)
    assert found[0] == pytest.approx(pdist(vectors).mean(), rel=1e-12)
    for value, row in zip(found, weights, strict=True):
        drawn = np.repeat(np.arange(13), row.astype(int))
        different = np.flatnonzero(pdist(drawn[:, None]))
        assert value == pytest.approx(pdist(vectors[drawn])[different].mean(), rel=1e-12)


def test_the_mean_over_pairs_by_hand():
    # Distances 5 (twice drawn: 2 pairs) and 5 and 0.
    vectors, rows = np.array([[0.0, 0], [3, 4], [0, 0]]), np.array([[1.0, 1, 1], [2, 1, 0], [0, 3, 0], [1, 0, 1]])
    np.testing.assert_allclose(mean_pair_distance(vectors, rows), [10 / 3, 5, 0, 0], atol=1e-12)


def test_equal_pictures_are_exactly_0_apart():
    same = np.tile(samples(1, 7) * 1e3, (9, 1))
    assert mean_pair_distance(same, draw_weights(9, 2, 0)).tolist() == [0, 0, 0]
    assert distance_over_seeds(same.reshape(3, 3, 7)).tolist() == [0, 0, 0]


def test_over_seeds_is_pdists():
    vectors = samples(6, 4, 5)
    np.testing.assert_allclose(distance_over_seeds(vectors), [pdist(each).mean() for each in vectors], rtol=1e-12)


@pytest.mark.parametrize(
    ("vectors", "named"),
    [(samples(1, 3), "at least two"), (samples(4), "shape"), (np.full((4, 3), np.inf), "infinity")],
)
def test_what_is_wrong_is_named(vectors, named):
    with pytest.raises(ValueError, match=named):
        mean_pair_distance(vectors, np.ones((1, len(vectors))))
    with pytest.raises(ValueError, match=named):
        distance_over_seeds(vectors[None])


class Painter:
    """A student whose first pixel is a function of the caption's number and, where it is noisy, of the seed."""

    resolution = data_resolution = 32

    def __init__(self, noisy):
        self.noisy, self.seeds = noisy, []

    def generate(self, captions, seeds):
        self.seeds += seeds
        images = np.zeros((len(captions), 32, 32, 3), np.uint8)
        images[:, 0, 0, 0] = [3 * int(caption) for caption in captions]
        images[:, 0, 0, 1] = [pixel_of_seed(seed) if self.noisy else 7 for seed in seeds]
        return images


def pixel_of_seed(seed):
    return seed * 37 % 251


def place(features):
    """What a network with sums in another order in each place of a batch makes of equal pictures."""
    return features + 1e-4 * np.arange(len(features))[:, None]


def context(monkeypatch, student, count, reference=60, read=lambda features: features, labels=None):
    images = np.random.default_rng(1).integers(0, 256, (reference, 32, 32, 3), np.uint8)
    captions = tuple((str(i),) for i in range(reference))
    labels = np.zeros(reference, int) if labels is None else labels
    test = CaptionedImages("noise/test", images, captions, labels, ("noise", "more noise"))
    pixel = Extractor("pixel", {"features": "first pixel"}, lambda x: {"features": read(x[:, 0, 0])}, False, "0")
    monkeypatch.setattr("t2i_kd.metrics.context.load_extractor", lambda _: pixel)
    monkeypatch.setattr("t2i_kd.metrics.context.preview", lambda _: (3, pixel.has_probabilities))
    return EvaluationContext(student, "noise", num_captions=count, seed=5, cache={("split", "test", 32, 32): test})


BETWEEN, WITHIN = "diversity_captions_pixel_32_n60", "diversity_seeds_pixel_32_n50x4"


def test_a_measurement_has_captions_seeds_and_real_pictures(monkeypatch):
    evaluated = context(monkeypatch, Painter(noisy=True), 60)
    measured = diversity.measure(evaluated)
    assert {
        "generated": 60,
        "reference": 60,
        "captions over seeds": 50,
        "seeds a caption": 4,
    }.items() <= measured.protocol.items()
    assert (measured.generated, measured.reference, measured.lower_is_better) == (60, 0, False)
    weights = draw_weights(60, 3, 0)
    found = measured.statistic(weights, np.ones((4, 0)))
    first_pixels = np.array(evaluated.generated[:, 0, 0], float)
    assert found[BETWEEN][0] == pytest.approx(pdist(first_pixels).mean(), rel=1e-6)
    reference = evaluated.split("test").images[:, 0, 0].astype(float)
    assert measured.baselines == {"real pictures": {BETWEEN: pytest.approx(pdist(reference).mean(), rel=1e-6)}}
    over_seeds = np.array(
        [pdist([[pixel_of_seed(5 + i + 1000003 * s)] for s in (1, 2, 3, 4)]).mean() for i in range(50)]
    )
    expected = [np.repeat(over_seeds, row[:50].astype(int)).mean() for row in weights]
    np.testing.assert_allclose(found[WITHIN], expected, rtol=1e-6)


def test_one_captions_pictures_stand_beside_real_ones_of_one_class(monkeypatch):
    labels = np.array([0] * 25 + [1] * 34 + [2])  # a class of one picture has no pair
    evaluated = context(monkeypatch, Painter(noisy=True), 60, labels=labels)
    pixels = evaluated.split("test").images[:, 0, 0].astype(float)
    expected = (pdist(pixels[:25]).mean() + pdist(pixels[25:59]).mean()) / 2
    assert diversity.measure(evaluated).baselines["real pictures of one class"] == {
        WITHIN: pytest.approx(expected, rel=1e-6)
    }


def test_no_seed_is_asked_for_twice(monkeypatch):
    student = Painter(noisy=True)
    evaluated = context(monkeypatch, student, 60)
    diversity.measure(evaluated)
    assert evaluated.generated is not None
    assert len(student.seeds) == len(set(student.seeds)) == 60 + 200


def test_a_student_without_noise_has_exactly_0_over_seeds(monkeypatch):
    measured = diversity.measure(context(monkeypatch, Painter(noisy=False), 60, read=place))
    found = measured.statistic(np.ones((1, 60)), np.ones((1, 0)))
    assert found[WITHIN].tolist() == [0.0] and found[BETWEEN][0] > 1


def test_too_few_pictures_name_the_flag(monkeypatch):
    with pytest.raises(UserError, match="--num_captions: diversity needs at least 2 pictures, not 1"):
        diversity.measure(context(monkeypatch, Painter(True), 1))
    with pytest.raises(UserError, match="--dataset: diversity needs at least 2 pictures, not 1"):
        diversity.measure(context(monkeypatch, Painter(True), 2, reference=1))
    two = diversity.measure(context(monkeypatch, Painter(True), 2))
    names = ["diversity_captions_pixel_32_n2", "diversity_seeds_pixel_32_n2x4"]
    assert list(two.statistic(np.ones((1, 2)), np.ones((1, 0)))) == names
