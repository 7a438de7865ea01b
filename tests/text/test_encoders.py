"""The encoders compute what their docstrings say, ignore padding, convert, and train."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.text.encoders import MeanGRU, OneHotCharacters, build_char_cnn_rnn, build_gru, build_vector_encoder

REPOSITORY = Path(__file__).resolve().parents[2]


def random_tokens(rows, length, size, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, size, (rows, length))
    tokens[np.arange(length) >= rng.integers(1, length + 1, (rows, 1))] = 0
    return tokens.astype(np.int32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_mean_gru(inputs, lengths, kernel, recurrent, bias, recurrent_bias, reverse):
    """The textbook's loop, one sequence and one gate at a time, over the real steps only."""
    units = recurrent.shape[0]
    outputs = []
    for sequence, length in zip(inputs, lengths, strict=True):
        state, total = np.zeros(units), np.zeros(units)
        for x in sequence[:length][::-1] if reverse else sequence[:length]:
            z, r, n = np.split(x @ kernel + bias[0], 3)
            hz, hr, hn = np.split(state @ recurrent, 3)
            update, reset = sigmoid(z + hz), sigmoid(r + hr)
            state = (1 - update) * np.tanh(n + reset * (hn + recurrent_bias[0])) + update * state
            total += state
        outputs.append(total / max(length, 1))
    return np.array(outputs)


def test_mean_gru_is_the_textbooks():
    layer = MeanGRU(3, bidirectional=True)
    layer.build((None, 5, 4))
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=weight.shape) for weight in layer.weights]
    layer.set_weights(weights)
    inputs, lengths = rng.normal(size=(4, 5, 4)).astype(np.float32), [5, 2, 1, 0]
    present = np.arange(5) < np.array(lengths)[:, None]
    expected = [numpy_mean_gru(inputs, lengths, *(weight[d] for weight in weights), reverse=d == 1) for d in (0, 1)]
    np.testing.assert_allclose(layer(inputs, present=present), np.concatenate(expected, axis=1), atol=1e-5)


def test_mean_gru_without_mask_is_keras_gru():
    ours, theirs = MeanGRU(6), keras.layers.GRU(6, return_sequences=True)
    inputs = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
    ours.build(inputs.shape)
    theirs.build(inputs.shape)
    kernel, recurrent, bias = theirs.get_weights()
    bias = np.random.default_rng(1).normal(size=bias.shape)
    theirs.set_weights([kernel, recurrent, bias])
    together = bias[0] + np.concatenate([bias[1, :12], np.zeros(6)])
    ours.set_weights([kernel[None], recurrent[None], together[None, None], bias[1, 12:][None, None]])
    np.testing.assert_allclose(ours(inputs), np.mean(theirs(inputs), axis=1), atol=1e-5)


def test_gru_does_not_see_padding():
    short, long = build_gru(9, 4, 8, 16), build_gru(9, 7, 8, 16)
    long.set_weights(short.get_weights())
    tokens = random_tokens(5, 4, 9)
    padded = np.pad(tokens, ((0, 0), (0, 3)))
    np.testing.assert_allclose(short({"tokens": tokens}), long({"tokens": padded}), atol=1e-6)


def test_gru_reads_order_and_takes_no_words():
    encoder = build_gru(9, 4, 8, 16)
    first, second, none = np.asarray(encoder({"tokens": np.array([[2, 3, 0, 0], [3, 2, 0, 0], [0] * 4])}))
    assert np.abs(first - second).max() > 1e-4
    assert np.isfinite(none).all()


def test_one_hot_leaves_padding_and_unknown_empty():
    one_hot = np.asarray(OneHotCharacters(3)(np.array([[0, 1, 2, 4]])))
    np.testing.assert_array_equal(one_hot, [[[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]]])


def test_char_cnn_rnn_has_reeds_shapes():
    encoder = build_char_cnn_rnn(70, 201, 1024)
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in encoder.layers}
    assert shapes["one_hot"] == (201, 70)
    assert (shapes["pool1"], shapes["pool2"], shapes["conv3"]) == ((66, 384), (21, 512), (18, 512))
    assert (shapes["gru"], shapes["text_vector"]) == ((512,), (1024,))
    convolutions = (4 * 70 * 384 + 384) + (4 * 384 * 512 + 512) + (4 * 512 * 512 + 512)
    gru = 3 * (512 * 512 + 512 * 512 + 512) + 512
    assert encoder.count_params() == convolutions + gru + 512 * 1024 + 1024


def test_vector_encoder_is_identity_or_dense():
    vectors = np.ones((2, 6), np.float32)
    same = build_vector_encoder(6, 6)
    np.testing.assert_array_equal(same({"embedding": vectors}), vectors)
    assert not same.weights
    assert build_vector_encoder(6, 4)({"embedding": vectors}).shape == (2, 4)


@pytest.mark.parametrize("build", [lambda: build_gru(9, 5, 4, 8), lambda: build_char_cnn_rnn(70, 60, 8, cnn_dim=6)])
def test_encoder_survives_the_keras_format(build, tmp_path):
    encoder = build()
    tokens = random_tokens(3, encoder.inputs[0].shape[1], 9)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded({"tokens": tokens}), encoder({"tokens": tokens}))


def test_gru_learns(uncompiled):
    keras.utils.set_random_seed(0)
    encoder = build_gru(9, 5, 8, 1)
    tokens = random_tokens(32, 5, 9)
    target = (tokens == 3).any(axis=1, keepdims=True).astype(np.float32)
    encoder.compile(keras.optimizers.Adam(0.02), "mse")
    history = encoder.fit({"tokens": tokens}, target, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]


@pytest.mark.parametrize(
    ("build", "size"),
    [(lambda: build_gru(9, 6, 4, 8), 9), (lambda: build_char_cnn_rnn(70, 60, 8, cnn_dim=6), 72)],
    ids=["gru", "char_cnn_rnn"],
)
class TestConversion:
    def test_litert(self, build, size, tmp_path):
        interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
        encoder = build()
        length = encoder.inputs[0].shape[1]
        archive = keras.export.ExportArchive()
        archive.track(encoder)
        archive.add_endpoint(
            "serving_default",
            lambda tokens: {"vector": encoder({"tokens": tokens}, training=False)},
            input_signature=[tf.TensorSpec([1, length], tf.int32, name="tokens")],
        )
        archive.write_out(tmp_path / "model", verbose=False)
        converted = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "model")).convert()
        # No delegate: the one that is used by default reports itself as an operation.
        kind = interpreter_module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = interpreter_module.Interpreter(model_content=converted, experimental_op_resolver_type=kind)
        interpreter.allocate_tensors()
        assert not [op for op in interpreter._get_ops_details() if op["op_name"].startswith(("Flex", "WHILE"))]
        runner = interpreter.get_signature_runner("serving_default")
        for row in random_tokens(5, length, size):
            expected = encoder({"tokens": row[None]})
            np.testing.assert_allclose(runner(tokens=row[None])["vector"], expected, atol=1e-4)

    def test_onnx(self, build, size):
        tf2onnx = pytest.importorskip("tf2onnx")
        onnxruntime = pytest.importorskip("onnxruntime")
        encoder = build()
        length = encoder.inputs[0].shape[1]
        function = tf.function(lambda tokens: {"vector": encoder({"tokens": tokens}, training=False)})
        signature = [tf.TensorSpec([None, length], tf.int32, name="tokens")]
        model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for rows in (1, 5):
            tokens = random_tokens(rows, length, size)
            (vector,) = session.run(["vector"], {"tokens": tokens})
            np.testing.assert_allclose(vector, encoder({"tokens": tokens}), atol=1e-4)


JAX_PROGRAM = """
import sys
sys.modules["tensorflow"] = None
import keras, numpy as np
from t2i_kd.text.encoders import build_char_cnn_rnn, build_gru
from t2i_kd.text.joint_embedding import build_joint_embedding, ds_sje_loss
assert keras.backend.backend() == "jax"
encoders = [build_gru(9, 5, 4, 8), build_char_cnn_rnn(70, 60, 8, cnn_dim=6)]
for number, encoder in enumerate(encoders):
    tokens = np.arange(2 * encoder.inputs[0].shape[1], dtype="int32").reshape(2, -1) % 7
    encoder.load_weights(f"{sys.argv[1]}/{number}.weights.h5")
    np.save(f"{sys.argv[1]}/{number}.npy", np.asarray(encoder({"tokens": tokens})))
    encoder.compile("sgd", "mse")
    assert np.isfinite(encoder.fit({"tokens": tokens}, np.zeros((2, 8)), verbose=0).history["loss"][0])
vectors = build_joint_embedding(encoders[0], (2, 2, 3))({"tokens": tokens[:, :5], "tap": np.ones((2, 2, 2, 3))})
print(float(ds_sje_loss(vectors["image"], vectors["text"])))
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_encoders_are_the_same_under_jax_without_tensorflow(tmp_path):
    encoders = [build_gru(9, 5, 4, 8), build_char_cnn_rnn(70, 60, 8, cnn_dim=6)]
    for number, encoder in enumerate(encoders):
        encoder.save_weights(tmp_path / f"{number}.weights.h5")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", JAX_PROGRAM, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert np.isfinite(float(result.stdout))
    for number, encoder in enumerate(encoders):
        tokens = np.arange(2 * encoder.inputs[0].shape[1], dtype="int32").reshape(2, -1) % 7
        np.testing.assert_allclose(np.load(tmp_path / f"{number}.npy"), encoder({"tokens": tokens}), atol=1e-5)
