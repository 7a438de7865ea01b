"""Weights in 8 bits: codes and scales by hand, the axis of the channels, and which weights stay as they are."""

import numpy as np
import pytest

from t2i_kd.exporting.onnx import quantise, with_int8_weights

onnx = pytest.importorskip("onnx")


def test_codes_and_scales_by_hand():
    values = np.array([[1.27, -0.5, 0.004, 0.0], [0.0, 0.0, 0.0, 0.0], [-254.0, 4.0, 100.0, 2.0]], np.float32)
    codes, scales = quantise(values)
    assert codes.dtype == np.int8 and codes.tolist() == [[127, -50, 0, 0], [0, 0, 0, 0], [-127, 2, 50, 1]]
    np.testing.assert_allclose(scales, np.array([[0.01], [1], [2]]), rtol=1e-6)
    assert scales.dtype == np.float32


@pytest.mark.parametrize("axis", range(4))
def test_the_channels_are_those_that_lose_least(axis):
    """Of values that are of other sizes along one axis alone."""
    rng = np.random.default_rng(axis)
    shape = [6, 5, 6, 5]
    sizes = 10.0 ** np.arange(shape[axis])
    sizes = sizes.reshape([-1 if each == axis else 1 for each in range(4)])
    values = (rng.uniform(-1, 1, shape) * sizes).astype(np.float32)
    codes, scales = quantise(values)
    assert scales.shape == sizes.shape and codes.shape == values.shape
    assert (np.abs(codes * scales.astype(float) - values) <= 0.50002 * scales).all()


def test_numbers_too_small_for_a_scale_become_zero():
    codes, scales = quantise(np.full((2, 2), 1e-45, np.float32))
    assert not codes.any() and (scales == 1).all()


def test_small_weights_vectors_and_the_whitening_stay():
    values = {
        "kernel": np.linspace(-1, 2, 64 * 32, dtype=np.float32).reshape(64, 32),
        "small": np.ones((31, 33), np.float32),
        "vector": np.ones(2048, np.float32),
        "row": np.ones((1, 2048), np.float32),
        "student/text_whitening/kernel": np.ones((64, 64), np.float32),
        "numbers": np.ones((64, 64), np.int32),
    }
    tensors = [onnx.numpy_helper.from_array(each, name) for name, each in values.items()]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", None]) for name in ("x", "y")]
    node = onnx.helper.make_node("MatMul", ["x", "kernel"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", ends[:1], ends[1:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    found = onnx.load_from_string(with_int8_weights(model.SerializeToString()))
    assert {tensor.name for tensor in found.graph.initializer} == values.keys() - {"kernel"} | {
        "kernel_int8",
        "kernel_scale",
    }
    assert [node.op_type for node in found.graph.node] == ["Cast", "Mul", "MatMul"]
    assert list(found.graph.initializer)[1:-1] == tensors[1:]
