"""A student as an ONNX file, with its weights in single or in half precision."""

import numpy as np

from t2i_kd.exporting.core import core_function, core_specs

# 18 is the newest that tf2onnx writes; 17 runs on older runtimes too.
OPSET = 17
KINDS = ("onnx", "onnx_float16")
# Weights of fewer values stay as they are: together they are next to nothing.
FEWEST_HALVED = 1024
# So does this layer's kernel, which enlarges small differences of large numbers; see `litert.halved_whitening`.
NEVER_HALVED = "text_whitening"


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


def with_halved_weights(content):
    """The same ONNX file with its weights in half precision, cast to float32 where they are used.

    The runtime casts once, when it opens the file: it computes as before, and the file has half the size.

    Args:
        content: a file's bytes, as `convert_onnx` gives them.

    Returns:
        The new file's bytes.
    """
    import onnx

    model = onnx.load_from_string(content)
    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < FEWEST_HALVED or NEVER_HALVED in tensor.name:
            continue
        halved = values.astype(np.float16)
        if not np.isfinite(halved).all():
            continue
        used = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(halved, f"{used}_float16"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [used], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    onnx.checker.check_model(model)
    return model.SerializeToString()
