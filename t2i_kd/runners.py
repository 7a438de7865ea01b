"""One way to ask for images, whatever the format: items and seeds in, uint8 images out."""

import abc
import dataclasses

import numpy as np

from t2i_kd import quiet
from t2i_kd.errors import UserError
from t2i_kd.imaging import encode_png, to_uint8
from t2i_kd.noise import noise_from_seeds

BATCH = 8
# A matrix product of one row is summed in another order than one of several rows, and a pixel in the middle between
# two values can then round to either. A lone item is generated twice: on some CPUs company then changes no byte of its
# image (docs/serving.md).
SMALLEST_BATCH = 2


class NotFiniteError(RuntimeError):
    """A network gives pixels that are not finite numbers."""


class Runner(abc.ABC):
    """A student that generates images.

    Attributes:
        condition: `Condition`: what its items are.
        resolution: side of its images in pixels.
        data_resolution: side of the reference images that it learned from; its own are smaller by a whole factor where
            it gives an earlier stage's image.
    """

    def __init__(self, condition, resolution, data_resolution=0):
        self.condition, self.resolution = condition, resolution
        self.data_resolution = data_resolution or resolution

    def generate(self, items, seeds=None):
        """One image an item.

        Args:
            items: n captions (strings), or n images; at least one. See the condition's class.
            seeds: n integers of 64 bits, without effect for a student without noise; all 0 without.

        Returns:
            uint8 RGB [n, resolution, resolution, 3].

        Raises:
            UserError: for an item that the condition refuses.
            ValueError: for no item, or another number of seeds.
        """
        items = [items] if isinstance(items, str | bytes) else list(items)
        seeds = [0] * len(items) if seeds is None else [int(seed) for seed in seeds]
        if len(items) != len(seeds) or not items:
            raise ValueError(f"{len(items)} items for {len(seeds)} seeds")
        for item in items:
            self.condition.check(item)
        starts = range(0, len(items), BATCH)
        return np.concatenate([self._generate(items[at : at + BATCH], seeds[at : at + BATCH]) for at in starts])

    def generate_png(self, item, seed=0):
        """The bytes of one item's image as a PNG."""
        return encode_png(self.generate([item], [seed])[0])

    def covering(self, dataset):
        """A runner that can also read the data set's items: itself, unless its captions' vectors lie in files."""
        return self

    @abc.abstractmethod
    def _generate(self, items, seeds):
        """`generate` for one batch."""


class IdentityRunner(Runner):
    """A student that gives its source as it is: what another one must be better than. Args: as `Runner`, of images."""

    def _generate(self, items, seeds):
        (sources,) = self.condition.arrays(items).values()
        return to_uint8(sources)


def core_inputs(condition, noise_dim, items, seeds):
    """A student's inputs outside any graph: {name: array [n, ...]}.

    Args:
        condition: `Condition`.
        noise_dim: width of the student's noise, 0 for none.
        items: n items.
        seeds: n integers of 64 bits.
    """
    inputs = condition.arrays(items)
    if noise_dim:
        inputs["noise"] = noise_from_seeds(seeds, noise_dim)
    return inputs


def require_any_item(condition):
    """Raises `UserError` where a student's condition cannot read items that it was not trained on."""
    if not condition.reads_any:
        raise UserError(
            f"--text_encoder={condition.front_end.name} reads only captions whose vectors lie in a file; "
            "train with gru, char_cnn_rnn or hub to generate or export new captions"
        )


class KerasRunner(Runner):
    """A Keras network. Args: student: a `t2i_kd.student.Student`; data_resolution: see `Runner`."""

    def __init__(self, student, data_resolution=0):
        super().__init__(student.condition, student.resolution, data_resolution)
        self.student = student

    def covering(self, dataset):
        condition = self.condition.covering(dataset)
        return KerasRunner(dataclasses.replace(self.student, condition=condition), self.data_resolution)

    def _generate(self, items, seeds):
        import keras

        inputs = core_inputs(self.condition, self.student.noise_dim, items, seeds)
        image = keras.ops.convert_to_numpy(self.student.network(inputs, training=False)["image"])
        if not np.isfinite(image).all():
            raise NotFiniteError("the student's network gives pixels that are not finite numbers")
        return to_uint8(image)


class SavedModelRunner(Runner):
    """A SavedModel of `exporting.saved_model.write_saved_model`.

    TensorFlow's threads belong to the process: with `threads`, this must be the first thing that computes in it.

    Args:
        folder: the version's folder.
        condition: `Condition`.
        description: its manifest.
        threads: that may work on one image; 0 for TensorFlow's own choice.
    """

    def __init__(self, folder, condition, description, threads=0):
        super().__init__(condition, description["resolution"])
        import tensorflow as tf

        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        # Its signatures work only as long as the loaded object lives.
        self.loaded = tf.saved_model.load(str(folder))

    def generate_png(self, item, seed=0):
        """The bytes that the model itself encodes, equal to those that any server of it answers with.

        Raises:
            UserError: as for `generate`, and for a file that only the graph's decoder refuses.
        """
        import tensorflow as tf

        self.condition.check(item)
        signature = "seeded" if "seeded" in self.loaded.signatures else "serving_default"
        try:
            answer = self._call(signature, self.condition.request, self.condition.encode([item]), [seed])
        except tf.errors.InvalidArgumentError:
            raise UserError(f"{self.condition.kind}: TensorFlow cannot decode this file") from None
        return answer["image_bytes"][0]

    def _generate(self, items, seeds):
        return self._call("pixels", self.condition.core, self.condition.core_values(items), seeds)["image"]

    def _call(self, name, key, values, seeds):
        import tensorflow as tf

        signature = self.loaded.signatures[name]
        copies = max(1, SMALLEST_BATCH // len(seeds))
        inputs = {key: tf.repeat(tf.constant(values), copies, axis=0)}
        if "seed" in signature.structured_input_signature[1]:
            inputs["seed"] = tf.constant(list(seeds) * copies, tf.int64)
        return {name: values.numpy()[: len(seeds)] for name, values in signature(**inputs).items()}


class CoreRunner(Runner):
    """What the formats without strings share.

    Args:
        condition: `Condition`.
        description: the manifest.
    """

    def __init__(self, condition, description):
        super().__init__(condition, description["resolution"])
        self.noise_dim = description["noise_dim"]

    def _generate(self, items, seeds):
        return to_uint8(self._image(core_inputs(self.condition, self.noise_dim, items, seeds)))

    @abc.abstractmethod
    def _image(self, inputs):
        """{name: array [n, ...]} to float32 [n, height, width, 3] in 0-255."""


class LiteRTRunner(CoreRunner):
    """A `.tflite` file. Args: path, then `CoreRunner`'s; threads, 0 for LiteRT's own choice (one)."""

    def __init__(self, path, condition, description, threads=0):
        super().__init__(condition, description)
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError(f"{path}: needs the extra `litert`: pip install 't2i_kd[litert]'") from None
        try:
            with quiet.standard_error_held():
                self.interpreter = Interpreter(model_path=str(path), num_threads=threads or None)
                self.interpreter.allocate_tensors()
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

    def __init__(self, path, condition, description, threads=0):
        super().__init__(condition, description)
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
