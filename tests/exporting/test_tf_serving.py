"""What TF Serving does with an export, done without a server: its loader, its session calls, its two extra files."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from t2i_kd.exporting import tf_serving
from t2i_kd.loading import load_artifact

from .cpp_session import CppSession, library

SEEDS = [0, 7, -1, 2**63 - 1, -(2**63)]


@pytest.fixture(scope="module")
def runner(version):
    return load_artifact(version)


@pytest.fixture(scope="module", params=["python_loader", "cpp_loader"])
def serve(request, version):
    """A function from a signature's name and inputs to its outputs, run as the server runs it: by tensor name."""
    if request.param == "cpp_loader":
        api = library()
        if api is None:
            pytest.skip("this platform's TensorFlow ships no C API")
        yield CppSession(api, version).run
        return
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signatures = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version)).signature_def

    def run(signature_name, **inputs):
        signature = signatures[signature_name]
        assert signature.method_name == "tensorflow/serving/predict" and set(inputs) == set(signature.inputs)
        feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
        return session.run({name: info.name for name, info in signature.outputs.items()}, feeds)

    yield run
    session.close()


@pytest.fixture
def texts(captions):
    return [caption.encode("utf-8") for caption in captions][-len(SEEDS) :]


def expected(runner, signature_name, texts, seeds=None):
    inputs = {"text": tf.constant(texts)} | ({} if seeds is None else {"seed": tf.constant(seeds, tf.int64)})
    ((name, value),) = runner.loaded.signatures[signature_name](**inputs).items()
    return {name: value.numpy()}


def test_every_signature_answers_by_tensor_name(serve, runner, texts):
    answer = serve("serving_default", text=texts)
    assert [*answer["image_bytes"]] == [*expected(runner, "serving_default", texts)["image_bytes"]]
    answer = serve("seeded", text=texts, seed=SEEDS)
    assert [*answer["image_bytes"]] == [*expected(runner, "seeded", texts, SEEDS)["image_bytes"]]
    answer = serve("pixels", text=texts, seed=SEEDS)
    np.testing.assert_array_equal(answer["image"], runner.generate([text.decode() for text in texts], SEEDS))


def test_the_vocabulary_is_filled_by_the_init_op_alone(version, texts):
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        proto = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version))
        signature, init = proto.signature_def["seeded"], proto.signature_def["__saved_model_init_op"]
        run = (
            signature.outputs["image_bytes"].name,
            {signature.inputs["text"].name: texts, signature.inputs["seed"].name: SEEDS},
        )
        loaded = session.run(*run)
        with tf.compat.v1.Session(graph=graph) as bare:
            saver = proto.saver_def
            bare.run(saver.restore_op_name, {saver.filename_tensor_name: str(version / "variables" / "variables")})
            with pytest.raises(tf.errors.FailedPreconditionError, match="able not initialized"):
                bare.run(*run)
            bare.run(init.outputs["__saved_model_init_op"].name)
            assert [*bare.run(*run)] == [*loaded]


def test_requests_share_a_batch_without_meeting(serve, texts):
    """The server may put any requests of one signature together, and fills up with copies of the first row."""
    together = serve("pixels", text=[*texts, texts[0]], seed=[*SEEDS, SEEDS[0]])["image"].astype(int)
    for row, (text, seed) in enumerate(zip(texts, SEEDS, strict=True)):
        alone = serve("pixels", text=[text], seed=[seed])["image"][0]
        assert np.abs(together[row] - alone).max() <= 1
    assert np.abs(together[0] - together[1]).max() > 1


def records(version):
    """The warm-up requests, read as the server reads them: TFRecords of `PredictionLog`."""
    return [
        PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(version / tf_serving.WARMUP))
    ]


def test_warm_up_requests_are_answered(version, serve, runner, run_dir):
    known = set((run_dir / "captions.txt").read_bytes().splitlines())
    sizes = []
    for log in records(version):
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("tiny", "serving_default")
        assert list(request.inputs) == ["text"] and not request.output_filter
        texts = tf.make_ndarray(request.inputs["text"])
        assert texts.ndim == 1 and set(texts) <= known
        texts = [*texts]
        sizes.append(len(texts))
        answer = serve("serving_default", text=texts)["image_bytes"]
        assert [*answer] == [*expected(runner, "serving_default", texts)["image_bytes"]]
    assert tuple(sizes) == tf_serving.BATCH_SIZES == (2, 4, 8)


def test_the_files_are_the_same_bytes_each_time(version, student, tmp_path):
    (tmp_path / "assets.extra").mkdir()
    texts = [tf.make_ndarray(log.predict_log.request.inputs["text"]) for log in records(version)]
    in_order = [text.decode() for text in np.concatenate(texts)]
    tf_serving.write_serving_files(tmp_path, "tiny", student.condition, in_order)
    for name in (tf_serving.WARMUP, tf_serving.BATCHING):
        assert (tmp_path / name).read_bytes() == (version / name).read_bytes()
