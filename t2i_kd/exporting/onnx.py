"""A student as an ONNX file."""

from t2i_kd.exporting.core import core_function, core_specs

# 18 is the newest that tf2onnx writes; 17 runs on older runtimes too.
OPSET = 17


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
