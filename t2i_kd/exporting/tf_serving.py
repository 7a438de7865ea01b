"""What TF Serving reads beside a SavedModel: requests to warm up with, and how requests may be batched.

Sources: TF Serving's guides "SavedModel Warmup" and "Batching Guide", and its `bundle_factory_util.cc` and
`saved_model_warmup_util.cc`, which read the two files.
"""

import itertools
from pathlib import Path

from t2i_kd.exporting.manifest import EXTRA

# The batches that a server may form: it pads up to the next of these. One warm-up record each, so that no first
# request of a size pays for what TensorFlow does only once. Not 1: a matrix product of a single row is summed in
# another order, and a pixel could round to its neighbour.
BATCH_SIZES = (2, 4, 8)
WARMUP = f"{EXTRA}/tf_serving_warmup_requests"
# Beside saved_model.pb, not in assets.extra: there --enable_per_model_batching_parameters looks, and nowhere else.
BATCHING = "batching_params.pbtxt"

# Waiting 2 ms for company costs a lone request little; a queue of 64 batches is a few seconds of work on two cores,
# after which the server answers 503 instead of making everybody wait.
BATCH_TIMEOUT_MICROS = 2000
MAX_ENQUEUED_BATCHES = 64


def batching_parameters():
    """The text of `batching_params.pbtxt`: a `tensorflow.serving.BatchingParameters` in protobuf's text format.

    `max_batch_size` is the largest of `BATCH_SIZES`, as the server demands of the last allowed size; a request of more
    rows is refused.
    """
    lines = [
        f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}",
        f"batch_timeout_micros {{ value: {BATCH_TIMEOUT_MICROS} }}",
        f"max_enqueued_batches {{ value: {MAX_ENQUEUED_BATCHES} }}",
        *(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES),
    ]
    return "\n".join(lines) + "\n"


def write_serving_files(folder, name, condition, items):
    """Writes `WARMUP` and `BATCHING` into a version's folder.

    Args:
        folder: the version's folder, with its `assets.extra`.
        name: the model's name.
        condition: `Condition` of the model's requests.
        items: typical items, at least one; they are the warm-up requests'.
    """
    folder = Path(folder)
    (folder / BATCHING).write_text(batching_parameters(), "ascii")
    _write_warmup_requests(folder / WARMUP, name, condition, items)


def _write_warmup_requests(path, name, condition, items):
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    requests = itertools.cycle(condition.encode(items))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in BATCH_SIZES:
            log = PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = name
            request.model_spec.signature_name = "serving_default"
            request.inputs[condition.request].CopyFrom(tf.make_tensor_proto(list(itertools.islice(requests, size))))
            # Two exports of one student are then the same bytes.
            writer.write(log.SerializeToString(deterministic=True))
