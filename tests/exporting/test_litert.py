"""A whitening layer loses next to nothing in half precision, and nothing beside weights of 8 bits."""

import dataclasses

import keras
import numpy as np

from t2i_kd.exporting.litert import convert_litert, halved_whitening, whole_whitening
from tests.exporting.tiny_student import CAPTIONS, RECIPE, build_sdn_network, make_student


def make_whitening_student():
    """(a student that whitens, its kernel): a kernel that enlarges."""
    plain = make_student(noise_dim=0)
    assert halved_whitening(plain) is plain and whole_whitening(plain) is plain
    student = dataclasses.replace(plain, network=build_sdn_network(plain.condition, RECIPE, whiten=True))
    kernel = np.random.default_rng(0).standard_normal((16, 16)).astype("float32") * 30
    student.network.get_layer("text_whitening").set_weights([kernel, np.linspace(-1, 1, 16, dtype="float32")])
    return student, kernel


def test_a_whitening_kernel_is_split_in_two():
    student, kernel = make_whitening_student()
    inputs = student.condition.arrays(CAPTIONS)

    encoder = student.network.get_layer("text_encoder")
    text = np.asarray(encoder(inputs), "float64")
    halved = halved_whitening(student)
    np.testing.assert_allclose(halved.network(inputs)["image"], student.network(inputs)["image"], atol=1e-2)
    dense = [layer for layer in halved.network.layers if isinstance(layer, keras.layers.Dense)]
    for layer in dense:
        layer.set_weights([np.float32(np.float16(values)) for values in layer.get_weights()])
    np.testing.assert_allclose(sum(text @ np.float64(layer.kernel) for layer in dense), text @ kernel, atol=2e-5)
    # What it is for: the kernel as it is loses a hundred times as much.
    assert np.abs(text @ np.float64(np.float16(kernel)) - text @ kernel).max() > 2e-3


def test_weights_alone_in_8_bits_leave_the_whitening_as_it_is():
    from ai_edge_litert.interpreter import Interpreter

    student, kernel = make_whitening_student()
    inputs = student.condition.arrays(CAPTIONS[:1])
    expected = np.asarray(student.network(inputs)["image"])
    whole = whole_whitening(student)
    np.testing.assert_allclose(whole.network(inputs)["image"], expected, atol=1e-2)
    file = convert_litert(student, None, ("litert_int8",))["litert_int8"]
    # The kernel lies in the file, bit for bit; beside the dense layer of the plain conversion it does not.
    assert kernel.tobytes() in file
    assert kernel.tobytes() not in convert_litert(student, inputs, ("litert_int8",))["litert_int8"]
    interpreter = Interpreter(model_content=file)
    interpreter.allocate_tensors()
    details = interpreter.get_tensor_details()
    assert any(each["dtype"] == np.int8 and np.prod(each["shape"]) >= 1024 for each in details)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs["tokens"][:1])
    interpreter.invoke()
    image = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert 0 < np.abs(image - expected).mean() < 4
