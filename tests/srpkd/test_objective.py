"""SRPKD's objective against NumPy, SciPy and hand-worked values, and its own gradient against differences."""

import keras
import numpy as np
import pytest
from keras import ops

from t2i_kd.metrics.structural_similarity import ssim
from t2i_kd.srpkd.objective import (
    absolute_error,
    gram_loss,
    gram_matrix,
    relation_loss,
    relation_matrix,
    squared_error,
    structural_dissimilarity,
    total_variation,
)

RNG = np.random.default_rng(0)
STUDENT = RNG.standard_normal((2, 5, 4, 3)).astype("float32")
TEACHER = RNG.standard_normal((2, 5, 4, 7)).astype("float32")
IMAGES = RNG.uniform(0, 255, (2, 2, 16, 14, 3)).astype("float32")
needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="measures TensorFlow")


def numpy_matrix(features):
    """Row by row in float64, as the definition says it."""
    places = features.reshape(len(features), -1, features.shape[-1]).astype("float64")
    products = places @ places.transpose(0, 2, 1)
    return products / np.linalg.norm(products, axis=2, keepdims=True)


def numpy_loss(student, teacher, norm, rows=slice(None)):
    difference = (numpy_matrix(student) - numpy_matrix(teacher))[:, rows]
    return np.abs(difference).mean() if norm == "l1" else np.square(difference).mean()


def test_a_matrix_by_hand():
    # Q Q^T = [[9, 3], [3, 2]].
    features = np.array([[3.0, 0], [1, 1]], "float32").reshape(1, 1, 2, 2)
    expected = [[[9 / 90**0.5, 3 / 90**0.5], [3 / 13**0.5, 2 / 13**0.5]]]
    np.testing.assert_allclose(relation_matrix(features), expected, atol=1e-6)


def test_the_matrix_is_numpys_and_its_rows_have_length_one():
    found = np.asarray(relation_matrix(STUDENT))
    np.testing.assert_allclose(found, numpy_matrix(STUDENT), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-6)
    np.testing.assert_allclose(relation_matrix(STUDENT, np.array([7, 2])), numpy_matrix(STUDENT)[:, [7, 2]], atol=1e-6)
    # The widths drop out, and so does the size of the features.
    np.testing.assert_allclose(relation_matrix(5 * STUDENT), found, atol=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("block", [1, 3, 7, 20, 512])
def test_the_loss_is_numpys_whatever_the_block(norm, block):
    found = relation_loss(STUDENT, TEACHER, norm, block=block)
    assert float(found) == pytest.approx(numpy_loss(STUDENT, TEACHER, norm), rel=1e-5)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_a_sample_of_rows(norm):
    rows = np.array([19, 0, 4, 11, 12])
    found = relation_loss(STUDENT, TEACHER, norm, rows, block=2)
    assert float(found) == pytest.approx(numpy_loss(STUDENT, TEACHER, norm, rows), rel=1e-5)


@pytest.mark.parametrize("side", [24, pytest.param(64, marks=pytest.mark.slow)])
def test_it_is_exact_in_more_than_one_block(side):
    student, teacher = (RNG.standard_normal((1, side, side, width)).astype("float32") for width in (4, 8))
    assert float(relation_loss(student, teacher)) == pytest.approx(numpy_loss(student, teacher, "l1"), rel=1e-5)


def test_no_relation_is_lost_on_itself_and_empty_maps_are_finite():
    assert float(relation_loss(STUDENT, 3 * STUDENT)) == pytest.approx(0, abs=1e-7)
    value, slope = value_and_slope(lambda q: relation_loss(q, TEACHER), np.zeros_like(STUDENT))
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_maps_of_other_sides_are_refused():
    with pytest.raises(ValueError, match=r"maps of \(5, 4\) and \(4, 5\) places"):
        relation_loss(STUDENT, TEACHER.reshape(2, 4, 5, 7))


def value_and_slope(function, x):
    """A function's value and gradient on this backend."""
    if keras.backend.backend() == "jax":
        import jax

        value, slope = jax.value_and_grad(function)(x)
        return float(value), np.asarray(slope)
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return float(value), tape.gradient(value, x).numpy()


def numeric_slope(function, x, step=1e-5):
    """Central differences of a function of float64 arrays."""
    slope = np.zeros_like(x, dtype="float64")
    for index in np.ndindex(x.shape):
        ahead, behind = x.astype("float64"), x.astype("float64")
        ahead[index] += step
        behind[index] -= step
        slope[index] = (function(ahead) - function(behind)) / (2 * step)
    return slope


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize(("block", "rows"), [(6, None), (2, np.array([3, 11, 3, 0, 19]))])
def test_its_gradient_is_that_of_differences(norm, block, rows):
    _, found = value_and_slope(lambda q: 3 * relation_loss(q, TEACHER, norm, rows, block), STUDENT)
    chosen = slice(None) if rows is None else rows
    expected = numeric_slope(lambda q: 3 * numpy_loss(q, TEACHER, norm, chosen), STUDENT)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max() + 1e-8, rtol=2e-3)


def test_the_teacher_gets_no_gradient():
    _, slope = value_and_slope(lambda q: relation_loss(ops.convert_to_tensor(STUDENT), q) + 0 * ops.sum(q), TEACHER)
    assert not slope.any()


@needs_tensorflow
def test_memory_is_that_of_a_block():
    """Of 64 x 64 places no tensor of the compiled loss and its gradient is as large as a whole matrix."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def slope(student, teacher):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = relation_loss(student, teacher, block=64)
        return tape.gradient(loss, student)

    maps = [tf.TensorSpec((1, 64, 64, width)) for width in (4, 8)]
    graph = slope.get_concrete_function(*maps).graph
    sizes = [
        tensor.shape.num_elements() or 0
        for each in every_graph(graph)
        for op in each.get_operations()
        for tensor in op.outputs
    ]
    assert 64 * 4096 in sizes and max(sizes) <= 64 * 4096


def every_graph(graph):
    """A graph and those of its loops."""
    yield graph
    for function in graph._functions.values():
        if hasattr(function, "graph"):
            yield function.graph


def test_differences_of_images_are_in_half_ranges():
    assert float(absolute_error(np.full((1, 2, 2, 3), 255.0), np.zeros((1, 2, 2, 3)))) == pytest.approx(2)
    one, other = IMAGES
    assert float(absolute_error(one, other)) == pytest.approx(np.abs(one - other).mean() / 127.5, rel=1e-5)
    assert float(squared_error(one, other)) == pytest.approx(np.square(one - other).mean(), rel=1e-5)


def test_gram_is_numpys():
    places = TEACHER.reshape(2, 20, 7).astype("float64")
    expected = np.einsum("bpc,bpd->bcd", places, places) / (20 * 7)
    np.testing.assert_allclose(gram_matrix(TEACHER), expected, atol=1e-6)
    other = expected - np.asarray(gram_matrix(2 * TEACHER), "float64")
    assert float(gram_loss(TEACHER, 2 * TEACHER)) == pytest.approx(np.square(other).mean(), rel=1e-4)


def test_total_variation_by_hand():
    image = np.zeros((1, 2, 3, 3), "float32")
    image[0, 0, 1] = 255
    # Of 3 neighbours below, 1 differs by 2; of 4 to the right, 2 do.
    assert float(total_variation(image)) == pytest.approx(4 / 3 + 8 / 4)


def test_structural_dissimilarity_is_that_of_the_metric():
    one, other = IMAGES
    near = np.clip(one + RNG.normal(0, 20, one.shape), 0, 255).astype("float32")
    for seen in (other, near):
        assert float(structural_dissimilarity(one, seen)) == pytest.approx(1 - ssim(one, seen).mean(), abs=1e-5)
    assert float(structural_dissimilarity(one, one)) == pytest.approx(0, abs=1e-6)
