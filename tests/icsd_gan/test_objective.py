"""ICSD-GAN's objective against NumPy, and what must not change it."""

import keras
import numpy as np
import pytest

from t2i_kd.icsd_gan.objective import discriminator_loss, icsd_loss, kl_divergence, similarity_matrix

RNG = np.random.default_rng(0)
FEATURES = [RNG.standard_normal((5, dim)).astype("float32") for dim in (7, 4, 3)]


def numpy_similarity(features):
    """Row by row, as the definition says it."""
    features = features.astype("float64")
    rows = [[a @ b for b in features] for a in features]
    return np.array([np.array(row) / np.sqrt(sum(value**2 for value in row)) for row in rows])


def numpy_loss(features, adjacent):
    matrices = [numpy_similarity(each) for each in features]
    taught = matrices[1:] if adjacent else matrices[-1:] * (len(matrices) - 1)
    return sum(np.linalg.norm(s - t, "fro") ** 2 / len(s) ** 2 for s, t in zip(matrices[:-1], taught, strict=True))


def test_the_matrix_is_numpys():
    for features in FEATURES:
        np.testing.assert_allclose(similarity_matrix(features), numpy_similarity(features), atol=1e-6)


def test_a_matrix_by_hand():
    # F F^T = [[9, 0], [0, 16]] and [[1, 1], [1, 2]].
    np.testing.assert_allclose(similarity_matrix(np.array([[3.0, 0], [0, 4]])), np.eye(2), atol=1e-7)
    found = similarity_matrix(np.array([[1.0, 0], [1, 1]]))
    np.testing.assert_allclose(found, [[2**-0.5, 2**-0.5], [5**-0.5, 2 * 5**-0.5]], atol=1e-7)


@pytest.mark.parametrize("teacher", ["refined", "adjacent"])
def test_the_loss_is_numpys(teacher):
    assert float(icsd_loss(FEATURES, teacher)) == pytest.approx(numpy_loss(FEATURES, teacher == "adjacent"), rel=1e-5)


def test_refined_and_adjacent_teachers_differ_from_three_stages_on():
    assert float(icsd_loss(FEATURES, "refined")) != pytest.approx(float(icsd_loss(FEATURES, "adjacent")), rel=1e-2)
    two = FEATURES[1:]
    assert float(icsd_loss(two, "refined")) == float(icsd_loss(two, "adjacent"))
    assert float(icsd_loss(FEATURES[:1])) == 0


def test_permuting_the_batch_permutes_the_matrix_and_keeps_the_loss():
    order = np.array([3, 0, 4, 1, 2])
    matrix = np.asarray(similarity_matrix(FEATURES[0]))
    np.testing.assert_allclose(similarity_matrix(FEATURES[0][order]), matrix[order][:, order], atol=1e-6)
    assert float(icsd_loss([each[order] for each in FEATURES])) == pytest.approx(float(icsd_loss(FEATURES)), rel=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, 1e3])
def test_scaling_the_features_changes_nothing(factor):
    np.testing.assert_allclose(similarity_matrix(FEATURES[0] * factor), similarity_matrix(FEATURES[0]), atol=1e-6)
    scaled = [FEATURES[0] * factor, *FEATURES[1:]]
    assert float(icsd_loss(scaled)) == pytest.approx(float(icsd_loss(FEATURES)), rel=1e-5)


def test_the_teacher_gets_no_gradient():
    variables = [keras.Variable(each) for each in FEATURES]
    for teacher, taught in (("refined", 2), ("adjacent", 2)):
        gradients = slopes(lambda teacher=teacher: icsd_loss([each + 0 for each in variables], teacher), variables)
        assert gradients[taught] is None or not np.any(gradients[taught])
        assert all(np.any(gradients[index]) for index in range(2))


def test_the_gradient_is_that_of_differences():
    """Central differences in float64 of the NumPy loss, with the teacher's matrix held still."""
    variables = [keras.Variable(each) for each in FEATURES]
    found = slopes(lambda: icsd_loss([each + 0 for each in variables]), variables)[0]
    teacher, size = numpy_similarity(FEATURES[2]), 1e-5

    def loss(first):
        return np.sum((numpy_similarity(first) - teacher) ** 2) / 25

    for place in [(0, 0), (2, 5), (4, 6)]:
        step = np.zeros(FEATURES[0].shape)
        step[place] = size
        expected = (loss(FEATURES[0] + step) - loss(FEATURES[0] - step)) / (2 * size)
        assert np.asarray(found)[place] == pytest.approx(expected, rel=1e-3, abs=1e-7)


def slopes(function, variables):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = function()
    return tape.gradient(loss, [each.value for each in variables])


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="batch of one"):
        similarity_matrix(np.ones((1, 4), "float32"))
    with pytest.raises(ValueError, match="batch of one"):
        icsd_loss([np.ones((1, 4), "float32")] * 2)


def test_features_that_are_not_pooled_are_refused():
    with pytest.raises(ValueError, match="are not"):
        similarity_matrix(np.ones((2, 4, 4, 3), "float32"))


def test_features_of_nothing_give_no_infinity():
    assert np.array_equal(similarity_matrix(np.zeros((3, 4), "float32")), np.zeros((3, 3)))


def test_kl_divergence_is_scipys():
    from scipy.integrate import quad
    from scipy.stats import norm

    mean, log_sigma = np.array([[0.3, -1.0]]), np.array([[0.2, -0.5]])

    def divergence(mu, sigma):
        p, q = norm(mu, sigma), norm(0, 1)
        return quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mu - 12 * sigma, mu + 12 * sigma)[0]

    pairs = zip(mean[0], np.exp(log_sigma[0]), strict=True)
    expected = np.mean([divergence(mu, sigma) for mu, sigma in pairs])
    assert float(kl_divergence(mean, log_sigma)) == pytest.approx(expected, rel=1e-6)
    assert float(kl_divergence(np.zeros((2, 3)), np.zeros((2, 3)))) == 0


def test_a_discriminators_loss_by_hand():
    real = {"unconditional": np.array([1.0, 5.0]), "conditional": np.array([3.0, 1.0])}
    generated = {
        "unconditional": np.array([2.0, 8.0]),
        "conditional": np.array([4.0, 0.0]),
        "wrong": np.array([6.0, 100.0]),
    }
    found = discriminator_loss(real, generated, np.array([1.0, 0.0]))
    assert float(found) == pytest.approx(((2.0 + 4.0) + (3.0 + 4.0)) / 2)
