"""Half precision leaves a whitening layer as exact as single precision, nearly."""

import dataclasses

import keras
import numpy as np

from t2i_kd.exporting.litert import halved_whitening
from tests.exporting.tiny_student import CAPTIONS, RECIPE, build_sdn_network, make_student


def test_a_whitening_kernel_is_split_in_two():
    plain = make_student(noise_dim=0)
    assert halved_whitening(plain) is plain
    student = dataclasses.replace(plain, network=build_sdn_network(plain.condition, RECIPE, whiten=True))
    layer = student.network.get_layer("text_whitening")
    kernel = np.random.default_rng(0).standard_normal((16, 16)).astype("float32") * 30
    layer.set_weights([kernel, np.zeros(16, "float32")])
    inputs = plain.condition.arrays(CAPTIONS)

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
