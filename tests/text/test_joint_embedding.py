"""DS-SJE: the loss by hand and by loops, and that it teaches an encoder."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.text.encoders import build_gru
from t2i_kd.text.joint_embedding import (
    ImageProjection,
    build_joint_embedding,
    ds_sje_loss,
    retrieval_accuracy,
)


def loss_by_loops(images, texts, margin=1.0):
    total = 0.0
    for i in range(len(images)):
        for j in range(len(images)):
            if i != j:
                total += max(0, margin + images[i] @ texts[j] - images[i] @ texts[i])
                total += max(0, margin + images[j] @ texts[i] - images[i] @ texts[i])
    return total / len(images) ** 2


def test_loss_by_hand():
    images, texts = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0.5], [0, 0.5]])
    # Scores [[1, 0], [0.5, 0.5]]. Wrong texts: 1 + 0 - 1 = 0 and 1 + 0.5 - 0.5 = 1.
    # Wrong images: 1 + 0.5 - 1 = 0.5 and 1 + 0 - 0.5 = 0.5. Together 2, over 2 x 2.
    assert float(ds_sje_loss(images, texts)) == pytest.approx(0.5)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_loss_is_the_loops(batch):
    rng = np.random.default_rng(batch)
    images, texts = rng.normal(size=(2, batch, 5))
    assert float(ds_sje_loss(images, texts)) == pytest.approx(loss_by_loops(images, texts), rel=1e-5)


def test_loss_is_symmetric_and_zero_when_the_margin_is_kept():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(2, 6, 5))
    assert float(ds_sje_loss(images, texts)) == pytest.approx(float(ds_sje_loss(texts, images)), rel=1e-5)
    assert float(ds_sje_loss(2 * np.eye(4), np.eye(4))) == 0


def test_retrieval_accuracy_counts_texts_that_find_their_image():
    images, texts = np.eye(3), np.array([[1.0, 0, 0], [0, 0, 1], [0, 0, 1]])
    assert float(retrieval_accuracy(images, texts)) == pytest.approx(2 / 3)


def test_projection_averages_over_quarters():
    layer = ImageProjection(4)
    tap = np.random.default_rng(0).normal(size=(2, 4, 7, 6)).astype(np.float32)
    projected = np.asarray(layer(tap))
    kernel, bias = layer.get_weights()
    # Of an odd width the last column is left out.
    quarters = [tap[:, y : y + 2, x : x + 3].mean(axis=(1, 2)) for y in (0, 2) for x in (0, 3)]
    np.testing.assert_allclose(projected, np.concatenate(quarters, axis=1) @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 1, 6), (2, 6)])
def test_projection_of_a_single_place_is_dense(shape):
    layer = ImageProjection(4)
    tap = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    projected = np.asarray(layer(tap))
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(projected, tap.reshape(2, 6) @ kernel + bias, atol=1e-5)


def test_training_teaches_the_encoder_itself(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = build_gru(8, 3, 8, 16)
    before = encoder.get_weights()
    model = build_joint_embedding(encoder, (2, 2, 4))
    tokens = np.array([[2, 5, 0], [3, 5, 0], [4, 6, 0], [7, 6, 2]])
    tap = np.eye(4)[:, None, None, :] * np.ones((4, 2, 2, 4))
    optimizer = keras.optimizers.Adam(0.02)
    losses = []
    for _ in range(40):
        with tf.GradientTape() as tape:
            vectors = model({"tokens": tokens, "tap": tap})
            loss = ds_sje_loss(vectors["image"], vectors["text"])
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        losses.append(float(loss))
    vectors = model({"tokens": tokens, "tap": tap})
    assert losses[-1] < 0.1 * losses[0]
    assert float(retrieval_accuracy(vectors["image"], vectors["text"])) == 1
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(before, encoder.get_weights(), strict=True))
    encoder.save_weights(tmp_path / "text.weights.h5")
    again = build_gru(8, 3, 8, 16)
    again.load_weights(tmp_path / "text.weights.h5")
    np.testing.assert_allclose(again({"tokens": tokens}), vectors["text"], atol=1e-5)
