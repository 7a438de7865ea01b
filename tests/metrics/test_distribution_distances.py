"""Fréchet and kernel distance against SciPy, loops and known answers, and as `evaluate` metrics."""

import itertools

import keras
import numpy as np
import pytest
import scipy.linalg

from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.metrics import activations, frechet, kernel_distance
from t2i_kd.metrics.catalogue import resolve_metrics
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.frechet import frechet_distance
from t2i_kd.metrics.moments import Moments
from t2i_kd.recipe import TeacherRecipe


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
    assert kernel_distance.kernel_distance(one, other) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(kernel_distance, "BLOCK", 4)
    assert kernel_distance.kernel_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_by_hand():
    # k = 1 within zeros, 8 within ones, 1 between.
    assert kernel_distance.kernel_distance(np.zeros((2, 3)), np.ones((2, 3))) == pytest.approx(1 + 8 - 2)


@pytest.mark.parametrize(
    ("one", "named"),
    [(np.zeros((1, 3)), "at least two"), (np.zeros((4, 2)), "shapes"), (np.full((4, 3), np.nan), "NaN")],
)
def test_kernel_distance_names_what_is_wrong(one, named):
    with pytest.raises(ValueError, match=named):
        kernel_distance.kernel_distance(one, np.ones((4, 3)))


class Copyist:
    """A student that draws the real held-out pictures, in the order asked for, shifted by some levels."""

    resolution = 32

    def __init__(self, images, levels):
        self.images, self.levels = images, levels

    def generate(self, captions, seeds):
        chosen = self.images[np.arange(len(captions)) % len(self.images)].astype(int)
        return np.clip(chosen + self.levels, 0, 255).astype(np.uint8)


def context(levels=0, **options):
    images = load_dataset("captioned_shapes", "test", 32).images
    options = {"teacher": TeacherRecipe(teacher="vgg19_slim"), "extractor": "teacher"} | options
    return EvaluationContext(Copyist(images, levels), "captioned_shapes", **options)


@pytest.mark.parametrize("metric", ["frechet", "kernel"])
def test_a_students_distance_says_on_what_it_was_measured_and_grows_with_the_error(metric):
    measure = resolve_metrics(metric)[metric]
    name = f"{metric}_vgg19_slim_pool4_32_n1024_n1024"
    values = [measure(context(levels, num_captions=1024))["values"] for levels in (0, 20, 60)]
    assert [list(each) for each in values] == [[name]] * 3
    exact, near, far = (each[name] for each in values)
    # The unbiased kernel distance of a set to itself is a little below 0.
    assert abs(exact) < 0.2 * near < 0.2 * far
    protocol = measure(context(num_captions=1024))["protocol"]
    assert (protocol["made"], protocol["real"], protocol["split"]) == (1024, 1024, "captioned_shapes/test")


def test_too_few_pictures_name_the_flag():
    with pytest.raises(UserError, match=r"--num_captions: frechet needs more than 128 pictures.*not 100"):
        frechet.measure(context(num_captions=100))
    with pytest.raises(UserError, match="--num_captions: kernel_distance needs at least two"):
        kernel_distance.measure(context(num_captions=1))


def test_without_a_network_nothing_is_measured(tmp_path):
    with pytest.raises(UserError, match="--teacher: none"):
        frechet.measure(context(teacher=TeacherRecipe(teacher="none")))
    with pytest.raises(UserError, match="--inception_weights: no file"):
        frechet.measure(context(extractor="inception", inception_weights=str(tmp_path / "absent.weights.h5")))
    (tmp_path / "wrong.weights.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"--inception_weights: .*does not fit"):
        activations.load_inception(str(tmp_path / "wrong.weights.h5"))


def test_inception_sees_what_keras_applications_sees(tmp_path):
    keras.utils.set_random_seed(0)
    published = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=None)
    published.save_weights(tmp_path / "inception.weights.h5")
    images = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3)).astype("float32")
    expected = published.predict(keras.applications.inception_v3.preprocess_input(images.copy()), verbose=0)
    network = activations.load_inception(str(tmp_path / "inception.weights.h5"))
    np.testing.assert_allclose(network.predict(images, verbose=0), expected, rtol=1e-3, atol=1e-5)
    assert network(images[:, :32, :32]).shape == (2, 2048)
