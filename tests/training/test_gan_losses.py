"""GAN losses and gradient penalties against hand-worked values."""

import numpy as np
import pytest
from keras import ops

from t2i_kd.training.gan_losses import fake_loss, generator_loss, gradient_penalty, input_gradients, real_loss

SCORES = np.array([-2.0, 0.0, 0.5, 3.0], "float32")


def test_hinge():
    np.testing.assert_allclose(real_loss("hinge", SCORES), [3, 1, 0.5, 0])
    np.testing.assert_allclose(fake_loss("hinge", SCORES), [0, 1, 1.5, 4])
    np.testing.assert_allclose(generator_loss("hinge", SCORES), -SCORES)


def test_binary_cross_entropy():
    probability = 1 / (1 + np.exp(-SCORES.astype("float64")))
    np.testing.assert_allclose(real_loss("bce", SCORES), -np.log(probability), rtol=1e-6)
    np.testing.assert_allclose(fake_loss("bce", SCORES), -np.log(1 - probability), rtol=1e-5)
    np.testing.assert_allclose(generator_loss("bce", SCORES), -np.log(probability), rtol=1e-6)


def test_least_squares():
    np.testing.assert_allclose(real_loss("lsgan", SCORES), [9, 1, 0.25, 4])
    np.testing.assert_allclose(fake_loss("lsgan", SCORES), [4, 0, 0.25, 9])
    np.testing.assert_allclose(generator_loss("lsgan", SCORES), [9, 1, 0.25, 4])


def test_each_row_has_its_own_gradient():
    x = np.array([[1.0, 2.0], [3.0, -1.0]], "float32")
    found = input_gradients(lambda x, y: ops.sum(x * x, axis=1) * y, [ops.convert_to_tensor(x), ops.ones(2)])
    np.testing.assert_allclose(found[0], 2 * x)
    np.testing.assert_allclose(found[1], [5, 10])


def score(images, texts):
    """S = 2 sum of the red pixels / 127.5 + 3 t_0 t_1."""
    return 2 * ops.sum(images[..., 0], axis=(1, 2)) / 127.5 + 3 * texts[:, 0] * texts[:, 1]


IMAGES = ops.convert_to_tensor(np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32"))
TEXTS = ops.convert_to_tensor(np.array([[1.0, 0.0, 5.0], [0.5, -1.0, 2.0]], "float32"))


def test_r1_by_hand():
    # 16 red pixels with a slope of 2 half ranges each: |g|^2 = 64 for both.
    assert float(gradient_penalty("r1", score, IMAGES, TEXTS)) == pytest.approx(0.5 * 64, rel=1e-5)
    assert float(gradient_penalty("r1", score, IMAGES, TEXTS, weight=10)) == pytest.approx(5 * 64, rel=1e-5)


def test_ma_gp_by_hand():
    # |g_t|^2 = 9 (t_1^2 + t_0^2): 9 and 9 * 1.25.
    expected = 2 * np.mean([(64 + 9.0) ** 3, (64 + 11.25) ** 3])
    assert float(gradient_penalty("ma_gp", score, IMAGES, TEXTS)) == pytest.approx(expected, rel=1e-5)


def test_a_penalty_can_be_differentiated():
    import tensorflow as tf

    slope = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        value = gradient_penalty("r1", lambda images, texts: slope * score(images, texts), IMAGES, TEXTS)
    # 1/2 * 64 s^2.
    assert float(tape.gradient(value, slope)) == pytest.approx(64 * 2, rel=1e-5)
