"""Fréchet and kernel distance against SciPy, loops and known answers, and as `evaluate` metrics."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.metrics import blocks, frechet, kernel_distance, resampling
from t2i_kd.metrics.catalogue import resolve_metrics
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.frechet import frechet_distance
from t2i_kd.metrics.moments import Moments
from t2i_kd.options import TeacherOptions
from tests.metrics import flowers


def moments(values):
    found = Moments()
    found.update(values)
    return found


def samples(count=40, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (count, 5)) @ rng.normal(0, 1, (5, 5))


def test_frechet_is_scipys():
    one, other = samples(), samples(60, 1, 0.5)
    covariances = [np.cov(each, rowvar=False) for each in (one, other)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((one.mean(0) - other.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(moments(one), moments(other)) == pytest.approx(expected, rel=1e-6)


def test_frechet_by_hand():
    # Variances 1 and 4 along one axis, means 3 apart: 3^2 + (1 - 2)^2.
    unit = np.array([[-1.0], [1.0], [-1.0], [1.0]]) * np.sqrt(3 / 4)
    assert frechet_distance(moments(unit), moments(2 * unit + 3)) == pytest.approx(10)
    assert frechet_distance(moments(unit), moments(unit)) == pytest.approx(0, abs=1e-12)


def test_frechet_of_constant_activations_is_the_distance_of_the_means():
    one, other = np.full((9, 4), 2.0), np.full((9, 4), 5.0)
    assert frechet_distance(moments(one), moments(other)) == pytest.approx(36)
    # One of them singular: tr C is all that is left beside the means.
    spread = samples(9)[:, :4]
    expected = np.sum((spread.mean(0) - 2) ** 2) + np.trace(np.cov(spread, rowvar=False))
    assert frechet_distance(moments(one), moments(spread)) == pytest.approx(expected)


def test_frechet_needs_more_vectors_than_dimensions():
    with pytest.raises(ValueError, match="5 activations of 5 dimensions"):
        frechet_distance(moments(samples(5)), moments(samples()))
    with pytest.raises(ValueError, match="0 activations"):
        frechet_distance(Moments(), moments(samples()))
    with pytest.raises(ValueError, match="5 and of 4"):
        frechet_distance(moments(samples()), moments(samples()[:, :4]))


def test_kernel_distance_is_the_loops(monkeypatch):
    one, other = samples(13), samples(9, 1, 0.5)

    def kernel(x, y):
        return (x @ y / 5 + 1) ** 3

    within = [np.mean([kernel(x, y) for x, y in itertools.permutations(each, 2)]) for each in (one, other)]
    expected = sum(within) - 2 * np.mean([kernel(x, y) for x in one for y in other])
    assert kernel_distance.kernel_distance(one, other) == pytest.approx([expected], rel=1e-9)
    monkeypatch.setattr(blocks, "BLOCK", 4)
    assert kernel_distance.kernel_distance(one, other) == pytest.approx([expected], rel=1e-9)


def test_weighted_vectors_count_as_often_as_their_weight_says():
    """A resample's kernel distance is that of the pairs of different pictures in the repeated set."""
    one, other = samples(6), samples(5, 1, 0.5)
    weights, other_weights = np.array([[2.0, 0, 1, 1, 0, 2]]), np.array([[1.0, 3, 0, 0, 1]])

    def pairs(vectors, counts):
        index = np.repeat(np.arange(len(vectors)), counts.astype(int))
        return [vectors[i] @ vectors[j] for i in index for j in index if i != j]

    within = [np.mean([(p / 5 + 1) ** 3 for p in pairs(v, w[0])]) for v, w in ((one, weights), (other, other_weights))]
    between = np.mean(
        [
            (x @ y / 5 + 1) ** 3
            for x in np.repeat(one, weights[0].astype(int), axis=0)
            for y in np.repeat(other, other_weights[0].astype(int), axis=0)
        ]
    )
    found = kernel_distance.kernel_distance(one, other, weights, other_weights)
    assert found == pytest.approx([sum(within) - 2 * between], rel=1e-9)


def test_weighted_moments_are_those_of_the_repeated_vectors(monkeypatch):
    vectors, weights = samples(9), np.array([0.0, 3, 1, 0, 2, 1, 1, 0, 4])
    monkeypatch.setattr(blocks, "BLOCK", 4)
    found = frechet.moments_of(vectors, weights)
    repeated = np.repeat(vectors, weights.astype(int), axis=0)
    assert found.count == len(repeated)
    np.testing.assert_allclose(found.mean, repeated.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(repeated, rowvar=False), rtol=1e-9)


def test_kernel_distance_by_hand():
    # k = 1 within zeros, 8 within ones, 1 between.
    assert kernel_distance.kernel_distance(np.zeros((2, 3)), np.ones((2, 3))) == pytest.approx([1 + 8 - 2])


@pytest.mark.parametrize(
    ("one", "named"),
    [(np.zeros((1, 3)), "at least two"), (np.zeros((4, 2)), "shapes"), (np.full((4, 3), np.nan), "NaN")],
)
def test_kernel_distance_names_what_is_wrong(one, named):
    with pytest.raises(ValueError, match=named):
        kernel_distance.kernel_distance(one, np.ones((4, 3)))


class Copyist:
    """A student that draws the real held-out pictures, in the order asked for, shifted by some levels."""

    resolution = data_resolution = 32

    def __init__(self, images, levels):
        self.images, self.levels = images, levels
        self.drawn = 0

    def generate(self, captions, seeds):
        chosen = self.images[np.arange(self.drawn, self.drawn + len(captions)) % len(self.images)].astype(int)
        self.drawn += len(captions)
        return np.clip(chosen + self.levels, 0, 255).astype(np.uint8)


SHARED = {}


def context(levels=0, **options):
    images = load_dataset("captioned_shapes", "test", 32).images
    options = {"teacher": TeacherOptions(teacher="vgg19_slim"), "extractor": "teacher", "cache": SHARED} | options
    return EvaluationContext(Copyist(images, levels), "captioned_shapes", **options)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["frechet", "kernel"])
def test_a_students_distance_says_on_what_it_was_measured_and_grows_with_the_error(metric):
    measure = resolve_metrics(metric)[metric].measure
    name = f"{metric}_vgg19_slim_pool4_32_n1024_n1024"
    measurements = [measure(context(levels, num_captions=1024)) for levels in (0, 20, 60)]
    rows = [resampling.resampled(measurement, 3, 0) for measurement in measurements]
    assert [list(each) for each in rows] == [[name]] * 3
    exact, near, far = (each[name][0] for each in rows)
    # The unbiased kernel distance of a set to itself is a little below 0.
    assert abs(exact) < 0.2 * near < 0.2 * far
    assert len(set(rows[2][name])) == 4
    assert rows[2][name].min() > 0.5 * far
    # Training pictures show other combinations of colours and shapes than the test split's.
    (anchor,) = measurements[0].baselines["1024 training pictures"].values()
    assert abs(anchor) < 0.2 * far and (metric == "kernel" or anchor > 0)
    # One half of the reference pictures is as near to the other as pictures of one distribution are.
    (same,) = measurements[0].baselines["512 real test pictures against the other 512"].values()
    assert abs(same) < 0.2 * far
    protocol = measurements[0].protocol
    assert (protocol["captions"], protocol["split"]) == (1024, "captioned_shapes/test")
    assert protocol["extractor"] == "vgg19_slim_pool4"
    assert (measurements[0].generated, measurements[0].reference) == (1024, 1024)


def test_too_few_pictures_name_the_flag():
    with pytest.raises(UserError, match=r"--num_captions: frechet needs at least 129 pictures, not 100"):
        frechet.measure(context(num_captions=100))
    with pytest.raises(UserError, match="--num_captions: kernel needs at least 2"):
        kernel_distance.measure(context(num_captions=1))


class Still:
    """A student that takes no noise: one picture of a caption."""

    resolution = data_resolution = 32

    def generate(self, captions, seeds):
        return np.stack([np.full((32, 32, 3), len(caption), np.uint8) for caption in captions])


@pytest.mark.parametrize("name", ["kernel", "manifold", "frechet", "inception_score"])
def test_copies_of_one_picture_are_refused(name):
    """Copies would count as neighbours and as other pictures; seeds make different ones."""
    (metric,) = resolve_metrics(name).values()
    with pytest.raises(
        UserError, match=r"--num_captions: .* one of a caption, and there are 160 test pictures; give at"
    ):
        metric.check(flowers.context_of(Still(), test=160, num_captions=400))
    flowers.context_of(Still(), test=160, num_captions=160).check_different(name)
    flowers.context_of(flowers.Painter(), test=160, num_captions=400).check_different(name)
