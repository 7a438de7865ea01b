"""One way to ask for pictures, whatever the format: captions and seeds in, uint8 pictures out."""

import abc
import dataclasses

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.exporting.core import core_inputs
from t2i_kd.exporting.fidelity import keras_pictures
from t2i_kd.imaging import encode_png, to_uint8

BATCH = 8
# A matrix product of one row is summed in another order than one of several rows, and a pixel in the middle between
# two values can then round to either. A lone caption is drawn twice, so that company changes no byte of its picture.
SMALLEST_BATCH = 2


class Runner(abc.ABC):
    """A student that draws.

    Attributes:
        resolution: side of its pictures in pixels.
        data_resolution: side of the real pictures that it learned from; its own are smaller by a whole factor where it
            draws an earlier stage's image.
    """

    resolution: int

    @property
    def data_resolution(self):
        return self.resolution

    def generate(self, captions, seeds):
        """Draws one picture a caption.

        Args:
            captions: n strings, at least one.
            seeds: n integers of 64 bits; without effect for a student without noise.

        Returns:
            uint8 RGB [n, resolution, resolution, 3].
        """
        if len(captions) != len(seeds) or not captions:
            raise ValueError(f"{len(captions)} captions for {len(seeds)} seeds")
        starts = range(0, len(captions), BATCH)
        return np.concatenate([self._draw(captions[at : at + BATCH], seeds[at : at + BATCH]) for at in starts])

    def generate_png(self, caption, seed):
        """The bytes of one caption's picture as a PNG."""
        return encode_png(self.generate([caption], [seed])[0])

    def covering(self, dataset):
        """A runner that can also draw the data set's captions: itself, unless its captions' vectors lie in files."""
        return self

    @abc.abstractmethod
    def _draw(self, captions, seeds):
        """`generate` for one batch."""


def require_any_text(front_end):
    """Raises `UserError` where a student's text front end cannot read captions that it was not trained on."""
    if not front_end.reads_any_text:
        raise UserError(
            f"--text_encoder={front_end.name} reads only captions whose vectors lie in a file; "
            "train with gru, char_cnn_rnn or hub to draw or export new captions"
        )


class KerasRunner(Runner):
    """A run directory's student. Args: student: a `t2i_kd.student.Student`."""

    def __init__(self, student):
        self.student = student
        self.resolution = student.resolution

    @property
    def data_resolution(self):
        return self.student.recipe.data.resolution

    def covering(self, dataset):
        front_end = self.student.front_end.covering(dataset)
        return KerasRunner(dataclasses.replace(self.student, front_end=front_end))

    def _draw(self, captions, seeds):
        return keras_pictures(self.student, captions, seeds)


class SavedModelRunner(Runner):
    """A SavedModel of `saved_model.write_saved_model`. Args: folder; description: its manifest; threads.

    TensorFlow's threads belong to the process: with `threads`, this must be the first thing that computes in it.
    """

    def __init__(self, folder, description, threads=0):
        import tensorflow as tf

        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        # Its signatures work only as long as the loaded object lives.
        self.loaded = tf.saved_model.load(str(folder))
        self.resolution = description["resolution"]

    def generate_png(self, caption, seed):
        """The bytes that the model itself encodes, equal to those that any server of it answers with."""
        return self._call("seeded", "image_bytes", [caption], [seed])[0]

    def _draw(self, captions, seeds):
        return self._call("pixels", "image", captions, seeds)

    def _call(self, signature, output, captions, seeds):
        import tensorflow as tf

        text = [caption.encode("utf-8") for caption in captions]
        copies = max(1, SMALLEST_BATCH // len(text))
        inputs = {"text": tf.constant(text * copies), "seed": tf.constant(list(seeds) * copies, tf.int64)}
        return self.loaded.signatures[signature](**inputs)[output].numpy()[: len(text)]


class CoreRunner(Runner):
    """What the formats without strings share.

    Args:
        features: from captions to the text input: a tokenizer, or a front end's `features`.
        description: the manifest.
    """

    def __init__(self, features, description):
        self.features = features
        self.resolution = description["resolution"]
        self.input_name, self.noise_dim = description["text"]["input"], description["noise_dim"]

    def _draw(self, captions, seeds):
        return to_uint8(self._image(core_inputs(self.features(captions), seeds, self.input_name, self.noise_dim)))

    @abc.abstractmethod
    def _image(self, inputs):
        """{name: array [n, ...]} to float32 [n, height, width, 3] in 0-255."""


class LiteRTRunner(CoreRunner):
    """A `.tflite` file. Args: path, then `CoreRunner`'s; threads, 0 for LiteRT's own choice (one)."""

    def __init__(self, path, features, description, threads=0):
        super().__init__(features, description)
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError(f"{path}: needs the extra `litert`: pip install 't2i_kd[litert]'") from None
        try:
            self.interpreter = Interpreter(model_path=str(path), num_threads=threads or None)
            self.signature = self.interpreter.get_signature_runner("serving_default")
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path}: not a LiteRT model that can be read: {_first_line(error)}") from None

    def _image(self, inputs):
        rows = range(len(next(iter(inputs.values()))))
        images = [
            self.signature(**{name: values[row : row + 1] for name, values in inputs.items()})["image"] for row in rows
        ]
        return np.concatenate(images)


class OnnxRunner(CoreRunner):
    """An `.onnx` file. Args: path, then `CoreRunner`'s; threads, 0 for onnxruntime's own choice (every core)."""

    def __init__(self, path, features, description, threads=0):
        super().__init__(features, description)
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{path}: needs the extra `onnx`: pip install 't2i_kd[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class of its own for each of its error codes
            raise UserError(f"{path}: not an ONNX model that can be read: {_first_line(error)}") from None

    def _image(self, inputs):
        return self.session.run(["image"], inputs)[0]


def _first_line(error):
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
