"""One version of a model, loaded: its signatures as functions of arrays."""

import functools
import gc
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.loading import check_saved_model

TEXT, SEED = np.dtype(object), np.dtype(np.int64)
WARM_UP_CAPTION = b"a small red circle"


@dataclass(frozen=True)
class Signature:
    """What a signature takes and gives.

    Attributes:
        inputs: {name: `TEXT` or `SEED`}, each [batch].
        outputs: names, each [batch, ...].
    """

    inputs: dict[str, np.dtype]
    outputs: tuple[str, ...]


class Model:
    """A version that draws.

    Args:
        folder: `saved_models/NAME/VERSION`; read completely here and never again.
        threads: of one operation, for the whole process; None leaves TensorFlow's own choice.

    Attributes:
        version: its number.
        resolution: side of its pictures in pixels.
        noise_dim: numbers of noise that it takes; 0 where the seed changes nothing.
        signatures: {name: `Signature`}.
        signature_defs: {name: TensorFlow's `SignatureDef`}, what GetModelMetadata answers.

    Raises:
        UserError: when the folder is no whole export, or cannot be loaded.
    """

    def __init__(self, folder, threads=None):
        folder = Path(folder)
        self.version = int(folder.name)
        try:
            if not (folder / "saved_model.pb").is_file():
                raise UserError(f"{folder}: saved_model.pb is missing")
            manifest = check_saved_model(folder)
            if threads is not None:
                _prepare_tensorflow(threads)
            graph = _read_graph(folder)
            # Its signatures work only as long as the loaded object lives.
            self._loaded = _load(folder)
        except UserError:
            raise
        except Exception as error:  # TensorFlow's errors have no base class of their own
            raise UserError(f"{folder}: cannot be loaded: {error}") from None
        self.resolution, self.noise_dim = manifest["resolution"], manifest["noise_dim"]
        self.signature_defs = dict(graph.meta_graphs[0].signature_def)
        self.signatures = {name: _describe(folder, name, f) for name, f in self._loaded.signatures.items()}

    def run(self, signature, inputs):
        """Draws.

        Args:
            signature: a name in `signatures`.
            inputs: {name: array [batch]}, every input of the signature.

        Returns:
            {name: array [batch, ...]}, strings as objects of type bytes.
        """
        import tensorflow as tf

        tensors = {
            name: tf.constant(values.tolist() if values.dtype == TEXT else values) for name, values in inputs.items()
        }
        return {name: tensor.numpy() for name, tensor in self._loaded.signatures[signature](**tensors).items()}

    def warm_up(self, sizes):
        """Runs every signature once with every batch size, so that no request pays for the first time."""
        for name, signature in self.signatures.items():
            for size in sizes:
                self.run(name, {key: _rows(dtype, size) for key, dtype in signature.inputs.items()})


@functools.cache
def _prepare_tensorflow(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # TensorFlow's own objects stay until the end: without this, each full garbage collection walks through them all
    # while requests wait, for as long as several batches take.
    gc.collect()
    gc.freeze()


def _read_graph(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def _load(folder):
    import tensorflow as tf

    return tf.saved_model.load(str(folder))


def _rows(dtype, size):
    return np.full(size, WARM_UP_CAPTION if dtype == TEXT else 0, dtype)


def _describe(folder, name, function):
    inputs = {}
    for key, spec in function.structured_input_signature[1].items():
        dtype = TEXT if spec.dtype.name == "string" else np.dtype(spec.dtype.as_numpy_dtype)
        if dtype not in (TEXT, SEED) or spec.shape.as_list() != [None]:
            raise UserError(
                f"{folder}: signature {name} takes {key} as {spec.dtype.name} {spec.shape}, which is not served"
            )
        inputs[key] = dtype
    return Signature(inputs, tuple(sorted(function.structured_outputs)))
