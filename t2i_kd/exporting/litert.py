"""A student as LiteRT (TensorFlow Lite) files; the only module that knows the converter."""

import dataclasses
import tempfile

import numpy as np

from t2i_kd.exporting.core import core_function

# Quantisations by the artifact's kind.
KINDS = ("litert", "litert_float16", "litert_int8")


def convert_litert(student, calibration_inputs, kinds=KINDS):
    """Converts a student for phones.

    The files take the condition's inputs (`tokens` int32 [1, length], `embedding` float32 [1, width], or `source`
    float32 [1, side, side, 3]) and, where the student has it, `noise` float32 [1, dim], and give `image` float32
    [1, height, width, 3] in 0-255, under the signature `serving_default`.
    The batch is fixed at 1: with any other, nearest upsampling does not convert. `litert_float16` has weights in half
    precision; `litert_int8` has weights and activations in 8 bits, with the same float32 and int32 inputs and outputs.
    Without `calibration_inputs`, or where a layer says `needs_float_activations`, as an instance norm, whose variances
    8 bits do not hold, the file's weights alone have 8 bits, but for a whitening layer's, which stay as they are. The
    runtime then rounds what a convolution reads to 8 bits by the range that it has in this very picture.

    Args:
        student: a `t2i_kd.student.Student` in float32.
        calibration_inputs: {name: array [n, ...]}, n typical inputs; 8-bit ranges come from them. None: see above.
        kinds: which of `KINDS` are made.

    Returns:
        {kind: the file's bytes} for `kinds`.

    Raises:
        RuntimeError: when a file would need TensorFlow's own ("Flex") operations, which devices do not have.
    """
    if not takes_8_bit_activations(student):
        calibration_inputs = None
    prepared = {"litert_float16": halved_whitening}
    if calibration_inputs is None:
        prepared["litert_int8"] = whole_whitening
    students = {kind: prepared[kind](student) if kind in prepared else student for kind in kinds}
    plain = [kind for kind, each in students.items() if each is student]
    found = _convert_student(student, plain, calibration_inputs) if plain else {}
    for kind in students.keys() - plain:
        found |= _convert_student(students[kind], [kind], calibration_inputs)
    return found


def takes_8_bit_activations(student):
    """Whether no layer of a student's says `needs_float_activations`."""
    return not any(getattr(layer, "needs_float_activations", False) for layer in student.network._flatten_layers())


def halved_whitening(student):
    """A student whose whitening survives half precision: its kernel W as the sum of two layers' kernels.

    Whitening enlarges small differences of large numbers, and with 11 bits of W a picture moved by 4/255. The first
    layer has W rounded to half precision, the second what is left of it, which has 11 bits of its own.
    """
    import keras

    def split(text, kernel, bias):
        coarse = kernel.astype(np.float16).astype(np.float32)
        layers = [keras.layers.Dense(len(bias), use_bias=use_bias) for use_bias in (True, False)]
        white = layers[0](text) + layers[1](text)
        layers[0].set_weights([coarse, bias])
        layers[1].set_weights([kernel - coarse])
        return white

    return _with_whitening(student, split)


def whole_whitening(student):
    """A student whose whitening no quantisation touches: products and sums in the place of a dense layer.

    A converter that rounds weights to 8 bits rounds those of dense layers and convolutions, and what they read; of the
    flowers' student after 149,280 pictures that alone moved pixels by some 4/255.
    """
    from keras import ops

    return _with_whitening(
        student, lambda text, kernel, bias: ops.sum(ops.expand_dims(text, -1) * kernel, axis=1) + bias
    )


def _with_whitening(student, white):
    """The student with `white(text vector, kernel, bias)` in the place of its whitening layer; itself without one."""
    import keras

    network = student.network
    if not any(layer.name == "text_whitening" for layer in network.layers):
        return student
    kernel, bias = network.get_layer("text_whitening").get_weights()
    inputs = {name: keras.Input(each.shape[1:], dtype=each.dtype, name=name) for name, each in network.input.items()}
    noise = {name: each for name, each in inputs.items() if name == "noise"}
    text = network.get_layer("text_encoder")({name: each for name, each in inputs.items() if name != "noise"})
    image = network.get_layer("generator")({"text": white(text, kernel, bias), **noise})
    return dataclasses.replace(student, network=keras.Model(inputs, image))


def _convert_student(student, kinds, calibration_inputs):
    import keras

    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(student.network)
        archive.add_endpoint("serving_default", core_function(student, batch=1))
        archive.write_out(folder, verbose=False)
        return {kind: _convert(folder, kind, calibration_inputs) for kind in kinds}


def _convert(folder, kind, calibration_inputs):
    import tensorflow as tf

    # From a SavedModel: from_concrete_functions loses the weights without an error.
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if kind != "litert":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "litert_float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "litert_int8" and calibration_inputs is not None:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        count = len(next(iter(calibration_inputs.values())))
        converter.representative_dataset = lambda: (
            {name: values[row : row + 1] for name, values in calibration_inputs.items()} for row in range(count)
        )
    content = converter.convert()
    _refuse_flex_operations(content, kind)
    return content


def _refuse_flex_operations(content, kind):
    from ai_edge_litert.interpreter import Interpreter

    operations = {entry["op_name"] for entry in Interpreter(model_content=content)._get_ops_details()}
    flex = sorted(name for name in operations if name.startswith("Flex"))
    if flex:
        raise RuntimeError(f"{kind}: the file needs TensorFlow's own operations: {', '.join(flex)}")
