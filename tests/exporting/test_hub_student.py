"""A student behind a TF-Hub encoder: strings become vectors inside the SavedModel, and nowhere else."""

import numpy as np
import pytest
import tensorflow as tf

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.errors import UserError
from t2i_kd.exporting.litert import convert_litert
from t2i_kd.exporting.manifest import describe_student
from t2i_kd.exporting.saved_model import write_saved_model
from t2i_kd.options import DataOptions, TextOptions
from t2i_kd.runners import KerasRunner, LiteRTRunner, SavedModelRunner
from t2i_kd.sdn import SDNOptions, SDNRecipe
from t2i_kd.student import Student
from t2i_kd.text.hub import HubFrontEnd
from t2i_kd.trust import trust_handle
from tests.exporting.tiny_student import build_sdn_network

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
    trust_handle(handle)
    recipe = SDNRecipe(
        data=DataOptions(resolution=32),
        text=TextOptions(text_encoder="hub", text_dim=16, hub_handle=handle),
        sdn=SDNOptions(width=1 / 16, initializer="he", image_output="centred"),
    )
    condition = CaptionCondition(HubFrontEnd(handle, 6))
    return Student(build_sdn_network(condition, recipe), condition)


def test_the_saved_model_holds_the_encoder(student, tmp_path):
    expected = KerasRunner(student).generate(CAPTIONS, [0, 0, 0])
    write_saved_model(student, tmp_path / "1")
    tf.io.gfile.rmtree(student.condition.front_end.source)
    drawn = SavedModelRunner(tmp_path / "1", student.condition, {"resolution": 32}).generate(CAPTIONS, [0, 0, 0])
    assert np.abs(drawn.astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_litert_reads_vectors_and_says_so(student, tmp_path):
    features = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    contents = convert_litert(student, {"embedding": features})
    path = tmp_path / "student.tflite"
    path.write_bytes(contents["litert"])
    description = describe_student(student, "letters", 1)
    assert description["condition"]["inputs"] == {"embedding": {"shape": [6], "dtype": "float32"}}
    vectors = dict(zip(CAPTIONS, features, strict=True))
    condition = CaptionCondition(HubFrontEnd("/nowhere/letters", 6, vectors))
    runner = LiteRTRunner(path, condition, description)
    drawn = runner.generate(CAPTIONS, [0, 0, 0])
    image = student.network({"embedding": features})["image"].numpy()
    assert np.abs(drawn.astype(int) - np.rint(np.clip(image, 0, 255))).max() <= 1
    # Vectors of other captions are the sentence encoder's, which is not in the file.
    with pytest.raises(UserError, match=r"--hub_handle: .* names the sentence encoder /nowhere/letters, .* only where"):
        runner.generate(["new"])
