import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image


@pytest.fixture(scope="module")
def loaded(version):
    return tf.saved_model.load(str(version))


def decode(image_bytes):
    return np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in image_bytes.numpy()])


def signature_of(function):
    inputs = {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in _inputs(function).items()}
    outputs = {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in function.structured_outputs.items()}
    return inputs, outputs


def _inputs(function):
    return function.structured_input_signature[1]


def test_signatures(loaded):
    assert set(loaded.signatures) == {"serving_default", "seeded", "pixels"}
    text, seed = {"text": ("string", [None])}, {"seed": ("int64", [None])}
    answer = {"image_bytes": ("string", [None])}
    assert signature_of(loaded.signatures["serving_default"]) == (text, answer)
    assert signature_of(loaded.signatures["seeded"]) == (text | seed, answer)
    assert signature_of(loaded.signatures["pixels"]) == (text | seed, {"image": ("uint8", [None, 32, 32, 3])})


def test_every_weight_is_written_once(version, student):
    stored = sum(path.stat().st_size for path in (version / "variables").iterdir())
    weights = sum(weight.nbytes for weight in student.network.get_weights())
    assert weights <= stored <= 1.1 * weights + 20_000


def test_all_three_draw_the_same_pictures(loaded, captions, pictures):
    text = tf.constant([caption.encode() for caption in captions])
    seeds = tf.range(len(captions), dtype=tf.int64)
    pixels = loaded.signatures["pixels"](text=text, seed=seeds)["image"].numpy()
    assert np.abs(pixels.astype(int) - pictures).max() <= 1
    np.testing.assert_array_equal(decode(loaded.signatures["seeded"](text=text, seed=seeds)["image_bytes"]), pixels)
    zeros = loaded.signatures["pixels"](text=text, seed=tf.zeros_like(seeds))["image"].numpy()
    np.testing.assert_array_equal(decode(loaded.signatures["serving_default"](text=text)["image_bytes"]), zeros)
    # The seed matters, and so does the caption.
    assert np.abs(zeros[1:].astype(int) - pixels[1:]).max() > 1
    assert np.abs(zeros[0].astype(int) - zeros[1]).max() > 1


def test_a_row_does_not_depend_on_the_batch(loaded):
    pixels = loaded.signatures["pixels"]
    alone = pixels(text=tf.constant(["a red circle"]), seed=tf.constant([7], tf.int64))["image"].numpy()
    shared = pixels(text=tf.constant(["a blue square", "a red circle", "x"]), seed=tf.constant([1, 7, -1], tf.int64))[
        "image"
    ].numpy()
    assert np.abs(alone[0].astype(int) - shared[1]).max() <= 1


def test_loads_as_the_serving_binary_does(version, captions, pictures):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version))
        signature = meta_graph.signature_def["pixels"]
        drawn = session.run(
            signature.outputs["image"].name,
            {signature.inputs["text"].name: captions, signature.inputs["seed"].name: range(len(captions))},
        )
    assert np.abs(drawn.astype(int) - pictures).max() <= 1
