"""One version of a model, loaded: its signatures as functions of arrays."""

import functools
import gc
import itertools
from pathlib import Path

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA, check_file
from t2i_kd.exporting.tf_serving import WARMUP
from t2i_kd.loading import check_saved_model, load_listed_condition
from t2i_kd.serving.batching import check_rows
from t2i_kd.serving.contract import Contract
from t2i_kd.serving.errors import invalid
from t2i_kd.serving.signature import STRING, describe
from t2i_kd.trust import SAVED_MODEL, check_graph, read_graph


class Model:
    """A version that generates.

    Args:
        folder: `saved_models/NAME/VERSION`; read completely here and never again.
        condition: the `Condition` class of what the endpoint takes.
        threads: of one operation, for the whole process; None leaves TensorFlow's own choice.

    Attributes:
        version: its number.
        resolution: side of its images in pixels.
        noise_dim: numbers of noise that it takes; 0 where the seed changes nothing.
        condition: what the manifest says of its requests.
        signatures: {name: `signature.Signature`}.
        signature_defs: {name: TensorFlow's `SignatureDef`}, what GetModelMetadata answers.

    Raises:
        UserError: when the folder is no whole export, cannot be loaded, is asked with another kind of item, or its
            signatures are not those of its manifest and condition.
    """

    def __init__(self, folder, condition, threads=None):
        folder = Path(folder)
        self.version = int(folder.name)
        try:
            manifest = _read_manifest(folder, condition)
            if threads is not None:
                _prepare_tensorflow(threads)
            graph = read_graph(folder)
            # Its signatures work only as long as the loaded object lives.
            self._loaded = _load(folder, graph)
            self.signatures = {
                name: describe(f"{folder}: signature {name}", f, condition.request)
                for name, f in self._loaded.signatures.items()
            }
            self._typical = _read_typical_items(folder / WARMUP, condition.request)
            self._reader = load_listed_condition(folder / EXTRA, manifest)
            self.signature_defs = dict(graph.meta_graphs[0].signature_def)
            self._contract = Contract(folder, manifest, self._reader)
            self._contract.check_signatures(
                {
                    name: (function.structured_input_signature[1], function.structured_outputs)
                    for name, function in self._loaded.signatures.items()
                }
            )
            # What is answered to GetModelMetadata.
            self._contract.check_signatures(
                {
                    name: (_specs(each.inputs), _specs(each.outputs))
                    for name, each in self.signature_defs.items()
                    if name in self.signatures
                }
            )
        except UserError:
            raise
        except Exception as error:  # TensorFlow's errors have no base class of their own
            raise UserError(f"{folder}: cannot be loaded: {error}") from None
        self.resolution, self.noise_dim = manifest["resolution"], manifest["noise_dim"]
        self.condition = manifest["condition"]

    def run(self, signature, inputs):
        """One forward pass.

        Args:
            signature: a name in `signatures`.
            inputs: {name: array [batch, ...]}, every input of the signature.

        Returns:
            {name: array [batch, ...]}, strings as objects of type bytes.

        Raises:
            RequestError: INVALID_ARGUMENT, as from TF Serving, when an operation of the graph refuses a value.
        """
        import tensorflow as tf

        tensors = {
            name: tf.constant(values.tolist() if values.dtype == STRING else values) for name, values in inputs.items()
        }
        try:
            outputs = self._loaded.signatures[signature](**tensors)
        except tf.errors.InvalidArgumentError as error:
            raise invalid(f"the model refuses this request: {_reason(error)}") from None
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def unread(self, item):
        """What of an item the student cannot read, in words; see `Condition.unread`."""
        return self._reader.unread(item)

    def warm_up(self, sizes):
        """Runs every signature once with every batch size, so that no request pays for the first time.

        Strings are those of the warm-up requests that the version came with; seeds are 0, and pixels black.

        Raises:
            UserError: when an answer has another number of rows than the request, holds a number that is not finite or
                an empty string, or is no image of the side that the manifest says.
        """
        for name, signature in self.signatures.items():
            for size in sizes:
                outputs = self.run(
                    name, {key: self._typical_rows(spec, size) for key, spec in signature.inputs.items()}
                )
                try:
                    check_rows(outputs, size)
                except ValueError as error:
                    raise UserError(f"version {self.version}: signature {name}: {error}") from None
                for output, values in outputs.items():
                    if not (all(values.flat) if values.dtype == STRING else np.isfinite(values).all()):
                        raise UserError(f"version {self.version}: signature {name}: {output} is empty or not finite")
                self._contract.check_outputs(name, outputs)

    def _typical_rows(self, spec, size):
        if spec.dtype != STRING:
            return np.zeros((size, *spec.shape), spec.dtype)
        rows = np.empty(size, STRING)
        rows[:] = list(itertools.islice(itertools.cycle(self._typical), size))
        return rows


def _read_manifest(folder, condition):
    if not (folder / SAVED_MODEL).is_file():
        raise UserError(f"{folder}: {SAVED_MODEL} is missing")
    manifest = check_saved_model(folder)
    for entry in manifest["support_files"]:
        if entry["file"] == WARMUP:
            check_file(folder / WARMUP, entry)
    asked_with = manifest["condition"]["kind"]
    if asked_with != condition.kind:
        raise UserError(f"{folder}: takes {asked_with}s, but since its start this endpoint takes {condition.kind}s")
    return manifest


@functools.cache
def _prepare_tensorflow(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # TensorFlow's own objects stay until the end: without this, each full garbage collection walks through them all
    # while requests wait, for as long as several batches take.
    gc.collect()
    gc.freeze()


def _load(folder, graph):
    import tensorflow as tf

    check_graph(folder, graph)
    return tf.saved_model.load(str(folder))


def _specs(tensors):
    """{name: `tf.TensorSpec`} of a `SignatureDef`'s inputs or outputs."""
    import tensorflow as tf

    return {name: tf.TensorSpec(tf.TensorShape(info.tensor_shape), info.dtype) for name, info in tensors.items()}


def _read_typical_items(path, request):
    """The strings of a version's warm-up requests, a list of bytes."""
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    logs = map(PredictionLog.FromString, tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    items = [item for log in logs for item in tf.make_ndarray(log.predict_log.request.inputs[request]).tolist()]
    if not items:
        raise UserError(f"{path}: holds no requests to warm up with")
    return items


def _reason(error):
    """What an operation said, without where in the graph it stands."""
    words = error.message.split("\n")[0].split("[[")[0]
    return words.rpartition("}}")[2].strip()[:200]
