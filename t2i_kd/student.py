"""A student as the rest of the project knows it: a network, and the condition that it is asked with.

In a folder it is `student.keras`, the whole network in Keras's own format, and `condition.json`; nothing else is needed
to use it, whatever trained it.
"""

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import keras

import t2i_kd.registered_layers  # noqa: F401 (registers the layers that a file may name)
from t2i_kd.conditions.base import Condition
from t2i_kd.conditions.catalogue import load_condition
from t2i_kd.dtype_policy import dtype_policy
from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.weight_files import check_keras

WEIGHTS_FILE = "student.keras"
# Beside a stage's own: the student of the step whose measurements were best.
BEST_FILE = "best.keras"
# Of a run that trains two generators, that of the other direction.
INVERSE_FILE = "inverse.keras"
IMAGE = "image"
NOISE = "noise"
# Of one image in a layer's output, and what a network may have beside the weights that its file holds.
LARGEST_MAP, SPARE_WEIGHTS = 2**28, 2**20


@dataclass(frozen=True)
class Student:
    """A generator of images with all that is needed to use it.

    Attributes:
        network: `keras.Model` from {input: tensor [batch, ...], of `condition.inputs`, and, where it takes noise,
            "noise": float32 [batch, noise_dim]} to {"image": float32 [batch, height, width, 3], nominally 0-255, not
            clipped, and other tensors}. A generator of several stages gives the smaller images of the earlier ones as
            "image_SIDE".
        condition: `Condition`: requests to the network's inputs.
    """

    network: keras.Model
    condition: Condition

    def __post_init__(self):
        inputs, outputs = _named(self.network.input), _named(self.network.output)
        wanted = {name: (each.shape, each.dtype) for name, each in self.condition.inputs.items()}
        found = {name: (tuple(each.shape[1:]), each.dtype) for name, each in inputs.items() if name != NOISE}
        if found != wanted:
            raise UserError(f"student: the network reads {found}, and its condition gives {wanted}")
        if IMAGE not in outputs or len(outputs[IMAGE].shape) != 4 or outputs[IMAGE].shape[-1] != 3:
            raise UserError(
                f"student: the network's outputs {', '.join(outputs)} hold no image [batch, height, width, 3]"
            )
        if not isinstance(outputs[IMAGE].shape[1], int):
            raise UserError("student: the network's images have no side that is known")

    @property
    def resolution(self):
        """The side of its images in pixels."""
        return self.network.output[IMAGE].shape[1]

    @property
    def noise_dim(self):
        """How many numbers of noise an image takes; 0: none."""
        return noise_width(self.network)

    @property
    def coarse_images(self):
        """{side: the student that gives an earlier stage's image}, the smallest first."""
        outputs = {self.network.output[name].shape[1]: name for name in image_outputs(self.network) if name != IMAGE}
        networks = {
            side: keras.Model(self.network.input, {IMAGE: self.network.output[name]}, name=f"student_{side}")
            for side, name in sorted(outputs.items())
        }
        return {side: dataclasses.replace(self, network=network) for side, network in networks.items()}

    def truncated(self, factor):
        """The student with its noise multiplied by `factor`: below 1, less varied and more typical images.

        Source: ours, after BigGAN's truncation trick (Brock et al., ICLR 2019), which draws large numbers again.

        Raises:
            UserError: where the factor is not in 0 to 1, or the student takes no noise.
        """
        if not 0 <= factor <= 1:
            raise UserError(f"--truncation: {factor} is not in 0 to 1")
        if factor == 1:
            return self
        if not self.noise_dim:
            raise UserError("--truncation: this student takes no noise")
        inputs = {
            name: keras.Input(each.shape[1:], dtype=each.dtype, name=name) for name, each in self.network.input.items()
        }
        outputs = self.network({**inputs, NOISE: inputs[NOISE] * factor})
        return dataclasses.replace(self, network=keras.Model(inputs, outputs, name="student"))


def _named(tensors):
    return tensors if isinstance(tensors, dict) else {}


def noise_width(network):
    """How many numbers of noise a student's network reads; 0: none."""
    return network.input[NOISE].shape[-1] if NOISE in network.input else 0


def image_outputs(network):
    """The names of a student's images: "image", and "image_SIDE" for each earlier stage's."""
    return [name for name in network.output if name == IMAGE or name.startswith(f"{IMAGE}_")]


def save_network(network, path):
    """Writes a network as `.keras`, whole or not at all. Raises `UserError` that names the file."""
    save_whole(network.save, Path(path), ".keras")


def save_whole(save, path, ending):
    """Has Keras write a file, which must have the ending, by way of a temporary one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keras wants the ending, and writes bit by bit.
    temporary = path.with_name(f".{path.name.removesuffix(ending)}.tmp{ending}")
    try:
        save(temporary)
        write_file_atomically(path, temporary.read_bytes())
    except OSError as error:
        raise UserError(f"--run_dir: cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_student(folder, weights_file=WEIGHTS_FILE):
    """A trained student in float32, whatever precision it was trained in.

    Args:
        folder: with `condition.json` and what belongs to it.
        weights_file: the `.keras` file, relative to `folder`.

    Raises:
        UserError: naming the file that is missing, unreadable, or no student.
    """
    condition = load_condition(folder)
    path = Path(folder) / weights_file
    try:
        # A model within a model has no policy in its file, and takes the global one.
        with dtype_policy("float32"):
            return Student(in_float32(load_network(path)), condition)
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def load_network(path):
    """The network of a `.keras` file. Keras's safe mode is on: no code that a file holds is run.

    Raises:
        UserError: naming the file, when it is missing or damaged, holds code, or names a class that nobody imported.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; has the run finished?")
    stored = check_keras(path)
    try:
        with _weights_at_most(stored + SPARE_WEIGHTS):
            network = keras.models.load_model(path, compile=False, safe_mode=True)
        _check_maps(network)
        return network
    # Keras and TensorFlow raise anything on a configuration of others.
    except Exception as error:
        # Keras wraps an error once for each model that the layer lies in; the last part is what is wrong.
        reason = " ".join(str(error).split()).rpartition("Exception encountered: ")[2]
        if "Could not locate" in reason:
            reason = f"{reason.partition('. ')[0]}; layers of your own are imported by --import_module=MODULE"
        raise UserError(f"{path}: not a network that can be read: {reason[:300]}") from None


@contextlib.contextmanager
def _weights_at_most(count):
    """Within it, the layers that are made may have so many numbers as weights; more raise `UserError`.

    Keras makes a network's weights from its configuration, whatever that asks for, before it reads their values.
    """
    add_weight, left = keras.layers.Layer.add_weight, [count]

    def counted(layer, *arguments, **options):
        shape = arguments[0] if arguments else options.get("shape") or ()
        left[0] -= math.prod(shape)
        if left[0] < 0:
            raise UserError(f"its layer {layer.name} has more weights than the file holds")
        return add_weight(layer, *arguments, **options)

    keras.layers.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


def _check_maps(network):
    """Raises `UserError` where a layer's output of one image is larger than `LARGEST_MAP`."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            _check_maps(layer)
        for output in keras.tree.flatten(getattr(layer, "output", ())):
            if math.prod(side or 1 for side in output.shape[1:]) > LARGEST_MAP:
                raise UserError(f"its layer {layer.name} gives {tuple(output.shape[1:])} numbers for an image")


def in_float32(network):
    """The network with the same weights and every layer in float32; itself where that is so already."""
    config = network.get_config()
    changed = _with_policy(config, "float32")
    if changed == config:
        return network
    twin = type(network).from_config(changed)
    twin.set_weights(network.get_weights())
    return twin


def _with_policy(config, name):
    """A configuration in which every dtype policy has another name."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": name}}
        return {key: _with_policy(value, name) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(value, name) for value in config)
    return config
