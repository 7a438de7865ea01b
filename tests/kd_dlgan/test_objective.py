"""KD-DLGAN's terms against NumPy in float64, by hand, and where their gradients go."""

import keras
import numpy as np
import pytest

from t2i_kd.kd_dlgan.objective import (
    aggregated_loss,
    correlated_loss,
    correlations,
    lecam_penalty,
    lengths,
    pairwise_similarity,
)

RNG = np.random.default_rng(0)
BATCH, DIM, PROMPTS = 5, 7, 3
REAL, GENERATED, REAL_HEAD, GENERATED_HEAD = RNG.standard_normal((4, BATCH, DIM)).astype("float32")
PROMPT_VECTORS = RNG.standard_normal((PROMPTS, DIM)).astype("float32")
ALL = (REAL, GENERATED, REAL_HEAD, GENERATED_HEAD)


def norm(rows):
    return np.sqrt((rows.astype("float64") ** 2).sum(1))


def numpy_correlations(vectors):
    products = np.array([[v.astype("float64") @ t.astype("float64") for t in PROMPT_VECTORS] for v in vectors])
    return products / norm(products)[:, None]


def test_agkd_is_four_mean_distances():
    expected = norm(REAL - REAL_HEAD).mean() + norm(GENERATED - GENERATED_HEAD).mean()
    expected += norm(REAL - GENERATED_HEAD).mean() + norm(GENERATED - REAL_HEAD).mean()
    assert float(aggregated_loss(*ALL)) == pytest.approx(expected, rel=1e-6)


def test_agkd_by_hand():
    """R = (3, 0), f = (0, 4), both of the head 0: 3 + 4 + 3 + 4."""
    nothing = np.zeros((1, 2), "float32")
    given = np.array([[3.0, 0.0]], "float32"), np.array([[0.0, 4.0]], "float32"), nothing, nothing
    assert float(aggregated_loss(*given)) == pytest.approx(14.0)
    assert float(aggregated_loss(*given, kept=np.array([[1.0, 0.0]]))) == pytest.approx(10.0)
    assert float(aggregated_loss(*given, length=2.0)) == pytest.approx(28.0)


def test_crossed_terms_that_are_not_kept_do_not_count():
    kept = RNG.integers(0, 2, (BATCH, 2)).astype("float32")
    expected = norm(REAL - REAL_HEAD).mean() + norm(GENERATED - GENERATED_HEAD).mean()
    expected += (kept[:, 0] * norm(REAL - GENERATED_HEAD)).mean() + (kept[:, 1] * norm(GENERATED - REAL_HEAD)).mean()
    assert float(aggregated_loss(*ALL, kept=kept)) == pytest.approx(expected, rel=1e-6)


def test_cgkd_is_the_sum_of_squared_differences():
    expected = ((numpy_correlations(REAL) - numpy_correlations(REAL_HEAD)) ** 2).sum()
    expected += ((numpy_correlations(GENERATED) - numpy_correlations(GENERATED_HEAD)) ** 2).sum()
    assert float(correlated_loss(*ALL, PROMPT_VECTORS)) == pytest.approx(expected, rel=1e-5)


def test_cgkd_of_the_paper_is_the_absolute_difference_on_generated_images():
    expected = np.abs(numpy_correlations(GENERATED) - numpy_correlations(GENERATED_HEAD)).sum(1).mean()
    assert float(correlated_loss(*ALL, PROMPT_VECTORS, "paper")) == pytest.approx(expected, rel=1e-5)
    other = (-REAL, GENERATED, 2 + REAL_HEAD, GENERATED_HEAD)
    assert float(correlated_loss(*other, PROMPT_VECTORS, "paper")) == pytest.approx(expected, rel=1e-5)


def test_lengths_of_the_heads_vectors_do_not_matter_to_cgkd():
    longer = (REAL, GENERATED, 3 * REAL_HEAD, 0.1 * GENERATED_HEAD)
    assert float(correlated_loss(*longer, PROMPT_VECTORS)) == pytest.approx(
        float(correlated_loss(*ALL, PROMPT_VECTORS)), rel=1e-5
    )


def test_one_prompt_says_nothing():
    assert np.array_equal(np.abs(correlations(REAL, PROMPT_VECTORS[:1])), np.ones((BATCH, 1)))


def test_pairwise_similarity_is_the_sum_over_pairs():
    rows = numpy_correlations(GENERATED)
    expected = sum(rows[i] @ rows[j] for i in range(BATCH) for j in range(BATCH) if i != j)
    assert float(pairwise_similarity(GENERATED, PROMPT_VECTORS)) == pytest.approx(expected, rel=1e-5)
    alike = np.repeat(GENERATED[:1], BATCH, axis=0)
    assert float(pairwise_similarity(alike, PROMPT_VECTORS)) == pytest.approx(BATCH * (BATCH - 1), rel=1e-5)


def test_lecam_by_hand():
    """max(0, 2 - 1)^2 and max(0, 0 - 1)^2; max(0, 3 + 1)^2 and max(0, 3 - 5)^2."""
    found = lecam_penalty(np.array([2.0, 0.0]), np.array([-1.0, 5.0]), np.array(3.0), np.array(1.0))
    assert float(found) == pytest.approx(1 / 2 + 16 / 2)


def slopes(function, given):
    import tensorflow as tf

    variables = [tf.Variable(each) for each in given]
    with tf.GradientTape() as tape:
        loss = function(*variables)
    return tape.gradient(loss, variables)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow's tape")
def test_only_the_head_learns_from_the_teacher():
    for loss in (aggregated_loss, lambda *given: correlated_loss(*given, PROMPT_VECTORS)):
        real, generated, real_head, generated_head = slopes(loss, ALL)
        assert real is None and generated is None
        assert np.any(real_head) and np.any(generated_head)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow's tape")
def test_diversity_reaches_the_generated_images():
    (found,) = slopes(lambda given: pairwise_similarity(given, PROMPT_VECTORS), (GENERATED,))
    size, step = 1e-3, np.zeros_like(GENERATED)
    for place in [(0, 0), (3, 4)]:
        step[:] = 0
        step[place] = size
        ends = [float(pairwise_similarity(GENERATED + sign * step, PROMPT_VECTORS)) for sign in (1, -1)]
        assert np.asarray(found)[place] == pytest.approx((ends[0] - ends[1]) / (2 * size), rel=2e-2, abs=2e-3)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow's tape")
def test_vectors_of_length_0_give_finite_gradients():
    nothing = np.zeros((2, 3), "float32")
    (found,) = slopes(lambda given: keras.ops.sum(lengths(given)), (nothing,))
    assert np.array_equal(found, nothing)
    found = slopes(lambda *given: correlated_loss(*given, PROMPT_VECTORS[:, :3]), [nothing] * 4)
    assert all(np.isfinite(each).all() for each in found if each is not None)
