"""A student behind a TF-Hub encoder: strings become vectors inside the SavedModel, and nowhere else."""

import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.errors import UserError
from t2i_kd.exporting import artifacts
from t2i_kd.exporting.core import core_inputs
from t2i_kd.exporting.fidelity import keras_pictures
from t2i_kd.exporting.litert import convert_litert
from t2i_kd.exporting.manifest import describe_student
from t2i_kd.exporting.saved_model import write_saved_model
from t2i_kd.recipe import DataOptions, Recipe, StudentRecipe, TextOptions
from t2i_kd.runners import LiteRTRunner, SavedModelRunner
from t2i_kd.student import Student, build_student
from t2i_kd.text.hub import HubFrontEnd

CAPTIONS = ["a red circle", "a large blue square", "ein Fünfeck"]


class Letters(tf.Module):
    """A stand-in for a sentence encoder, with a variable to be exported: hashed letters, summed."""

    def __init__(self):
        super().__init__()
        self.vectors = tf.Variable(np.random.default_rng(0).standard_normal((64, 6)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, text):
        letters = tf.strings.to_hash_bucket_fast(tf.strings.bytes_split(text).to_tensor(""), 64)
        return tf.reduce_mean(tf.gather(self.vectors, letters), axis=1)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    handle = str(tmp_path_factory.mktemp("hub") / "letters")
    tf.saved_model.save(Letters(), handle)
    recipe = Recipe(
        data=DataOptions(resolution=32),
        text=TextOptions(text_encoder="hub", text_dim=16, hub_handle=handle),
        student=StudentRecipe(width=1 / 16, initializer="he", image_output="centred"),
    )
    front_end = HubFrontEnd(handle, 16, 6)
    return Student(build_student(recipe, front_end), front_end, recipe)


def test_the_saved_model_holds_the_encoder(student, tmp_path):
    expected = keras_pictures(student, CAPTIONS, [0, 0, 0])
    write_saved_model(student, tmp_path / "1")
    tf.io.gfile.rmtree(student.front_end.source)
    drawn = SavedModelRunner(tmp_path / "1", {"resolution": 32}).generate(CAPTIONS, [0, 0, 0])
    assert np.abs(drawn.astype(int) - expected).max() <= 1


def test_litert_reads_vectors_and_says_so(student, tmp_path):
    features = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    contents = convert_litert(student, core_inputs(features, [0, 0, 0], "embedding", 0))
    path = tmp_path / "student.tflite"
    path.write_bytes(contents["litert"])
    description = describe_student(student, "letters", 1)
    drawn = LiteRTRunner(path, lambda captions: features, description).generate(CAPTIONS, [0, 0, 0])
    image = student.network({"embedding": features})["image"].numpy()
    assert np.abs(drawn.astype(int) - np.rint(np.clip(image, 0, 255))).max() <= 1
    with pytest.raises(UserError, match="reads vectors of 'hub', not captions; give the version folder instead"):
        artifacts._tokenizer(path, description)
