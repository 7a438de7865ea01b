"""A student as an ONNX file, with its weights in single precision or in 8 bits."""

import numpy as np

from t2i_kd.exporting.core import core_function, core_specs

# 18 is the newest that tf2onnx writes; 17 runs on older runtimes too.
OPSET = 17
KINDS = ("onnx", "onnx_int8")
# Weights of fewer values stay as they are: together they are next to nothing.
FEWEST_ROUNDED = 1024
# So does this layer's kernel, which enlarges small differences of large numbers; see `litert.halved_whitening`.
NEVER_ROUNDED = "text_whitening"


def convert_onnx(student):
    """Converts a student to ONNX.

    The file takes the condition's inputs (`tokens` int32 [batch, length], `embedding` float32 [batch, width], or
    `source` float32 [batch, side, side, 3]) and, where the student has it, `noise` float32 [batch, dim], and gives
    `image` float32 [batch, height, width, 3] in 0-255, for any batch.

    Args:
        student: a `t2i_kd.student.Student` in float32.

    Returns:
        The file's bytes.
    """
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(core_function(student), input_signature=core_specs(student), opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.producer_name = "t2i_kd"
    return model.SerializeToString()


def with_int8_weights(content):
    """The same ONNX file with its weights as `quantise` gives them, turned to float32 where they are used.

    The runtime does that once, when it opens the file: it computes in float32 as before, from a quarter of the bytes. A
    Cast and a Mul stand for each weight, not a DequantizeLinear, which onnxruntime would do again for every picture.

    Args:
        content: a file's bytes, as `convert_onnx` gives them.

    Returns:
        The new file's bytes.
    """
    import onnx

    model = onnx.load_from_string(content)
    scales, nodes = [], []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        # A vector stays, also one with axes of 1 beside it: each of its values would have a scale of its own.
        small = values.size < FEWEST_ROUNDED or values.squeeze().ndim < 2
        if values.dtype != np.float32 or small or NEVER_ROUNDED in tensor.name:
            continue
        used, codes, scale, cast = (f"{tensor.name}{suffix}" for suffix in ("", "_int8", "_scale", "_cast"))
        rounded, steps = quantise(values)
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, codes))
        scales.append(onnx.numpy_helper.from_array(steps, scale))
        nodes.append(onnx.helper.make_node("Cast", [codes], [cast], to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [cast, scale], [used]))
    model.graph.initializer.extend(scales)
    nodes.extend(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def quantise(values):
    """Weights as 8-bit codes with one scale for each channel, without an offset: codes times scales are the weights.

    A channel's scale is its largest absolute value / 127, or 1 where that is 0. Which axis counts the channels depends
    on the operation that the weights are of; here it is, of all axes, the one with the smallest squared error.

    Args:
        values: float32 array of any rank from 1.

    Returns:
        The codes, int8 in -127..127 of the values' shape, and the scales, float32 of as many axes, of which all but
        the channels' are 1.
    """
    found = []
    for axis in range(values.ndim):
        others = tuple(other for other in range(values.ndim) if other != axis)
        scales = np.abs(values).max(others, keepdims=True) / np.float32(127)
        scales[scales == 0] = 1
        codes = np.clip(np.rint(values / scales), -127, 127)
        error = np.square(codes * scales - values).sum(dtype=np.float64)
        found.append((error, codes.astype(np.int8), scales))
    return min(found, key=lambda each: each[0])[1:]
