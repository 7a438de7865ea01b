"""A student as the rest of the project knows it: a network, the way captions enter it, and the recipe it came from."""

import dataclasses
import fnmatch
import importlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras

from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.recipe import RECIPE_FILE, Recipe
from t2i_kd.text.base import TextFrontEnd
from t2i_kd.text.front_end import load_front_end
from t2i_kd.text.whitening import whitening_map
from t2i_kd.training.distribution import predict

WEIGHTS_FILE = "student.keras"
# What a DS-SJE stage leaves beside the vocabulary, for another run's --text_weights.
TEXT_WEIGHTS_FILE = "text_encoder.weights.h5"
# Training captions that a run keeps for the export, one a line.
CAPTIONS_FILE = "captions.txt"
# The systems that train a text-to-image generator, and where `recipe_generator` builds it.
GENERATORS = {"sdn": "t2i_kd.sdn.networks", "icsd_gan": "t2i_kd.icsd_gan.networks"}
IMAGE = "image"


@dataclass(frozen=True)
class Student:
    """A text-to-image generator with all that is needed to use it.

    Attributes:
        network: `keras.Model` from {front_end.input_name: text features, ["noise": float32 [batch, noise_dim]]} to
            {"image": float32 [batch, resolution, resolution, 3], nominally 0-255, not clipped, and other tensors}. A
            generator of several stages gives the smaller images of the earlier ones as "image_SIDE".
        front_end: captions to text features.
        recipe: the `Recipe` that it was trained by.
    """

    network: keras.Model
    front_end: TextFrontEnd
    recipe: Recipe

    @property
    def resolution(self):
        return self.network.output[IMAGE].shape[1]

    @property
    def noise_dim(self):
        return noise_width(self.network)

    @property
    def coarse_images(self):
        """{side: the student that draws an earlier stage's image}, the smallest first."""
        outputs = {self.network.output[name].shape[1]: name for name in image_outputs(self.network) if name != IMAGE}
        networks = {
            side: keras.Model(self.network.input, {IMAGE: self.network.output[name]}, name=f"student_{side}")
            for side, name in sorted(outputs.items())
        }
        return {side: dataclasses.replace(self, network=network) for side, network in networks.items()}

    def truncated(self, factor):
        """The student with its noise multiplied by `factor`: below 1, less varied and more typical pictures.

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
        outputs = self.network({**inputs, "noise": inputs["noise"] * factor})
        return dataclasses.replace(self, network=keras.Model(inputs, outputs, name="student"))


def noise_width(network):
    """How many numbers a student's network reads beside the text; 0: none."""
    return network.input["noise"].shape[-1] if "noise" in network.input else 0


def image_outputs(network):
    """The names of a student's images: "image", and "image_SIDE" for each earlier stage's."""
    return [name for name in network.output if name == IMAGE or name.startswith(f"{IMAGE}_")]


def build_student(recipe, front_end):
    """The recipe's student network with initial weights, in the global dtype policy.

    Returns:
        `keras.Model`; see `Student.network`. Its layers `text_encoder` and `generator` are models themselves.
    """
    inputs = {
        front_end.input_name: keras.Input(front_end.input_shape, dtype=front_end.input_dtype, name=front_end.input_name)
    }
    encoder = front_end.build_encoder()
    generator = importlib.import_module(GENERATORS[recipe.system]).recipe_generator(recipe)
    encoder.name, generator.name = "text_encoder", "generator"
    text = encoder(dict(inputs))
    if recipe.student.whiten_text:
        text = keras.layers.Dense(recipe.text.text_dim, name="text_whitening")(text)
    given = {"text": text}
    if noise_width(generator):
        given["noise"] = inputs["noise"] = keras.Input((noise_width(generator),), name="noise")
    return keras.Model(inputs, generator(given), name="student")


def freeze(network, patterns):
    """Makes all of a student's layers trainable but those whose names fit one of the patterns.

    Args:
        network: a student; the names are `text_encoder`, `text_whitening` and those of the generator's layers.
        patterns: names, or patterns such as `conv5_*`.

    Raises:
        UserError: for a pattern that fits no layer, or when nothing is left to train.
    """
    layers = [layer for layer in network.layers if layer.name.startswith("text_")]
    layers += network.get_layer("generator").layers
    for pattern in patterns:
        if not fnmatch.filter([layer.name for layer in layers], pattern):
            raise UserError(f"frozen: {pattern!r} fits none of the student's layers")
    for layer in layers:
        layer.trainable = not any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)
    if not network.trainable_variables:
        raise UserError("frozen: nothing is left to train")


def whiten_text(network, features):
    """Sets a student's `text_whitening` layer, where it has one, so that these captions' vectors become white.

    Args:
        network: an untrained student.
        features: text features of the training captions, [n, ...].
    """
    if not any(layer.name == "text_whitening" for layer in network.layers):
        return
    input_name = next(name for name in network.input if name != "noise")
    vectors = predict(network.get_layer("text_encoder"), {input_name: features}, 32)
    network.get_layer("text_whitening").set_weights(whitening_map(vectors))


def save_network(network, path):
    """Writes a student's network as `.keras`, whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _save_whole(network.save, Path(path), ".keras")


def save_encoder_weights(network, path):
    """Writes the weights of a student's text encoder as `.weights.h5`, whole or not at all, for `--text_weights`."""
    _save_whole(network.get_layer("text_encoder").save_weights, Path(path), ".weights.h5")


def _save_whole(save, path, ending):
    # Keras wants the ending, and writes bit by bit.
    temporary = path.with_name(f".{path.name.removesuffix(ending)}.tmp{ending}")
    try:
        save(temporary)
        write_file_atomically(path, temporary.read_bytes())
    except OSError as error:
        raise UserError(f"--run_dir: cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_student(run_dir, weights_file=WEIGHTS_FILE):
    """A trained student in float32, whatever precision it was trained in.

    Args:
        run_dir: a run directory with `recipe.json` and, where the text encoder has one, `vocabulary.txt`.
        weights_file: the `.keras` file, relative to `run_dir`.

    Raises:
        UserError: naming the file that is missing, unreadable, or does not fit the recipe.
    """
    run_dir = Path(run_dir)
    path = run_dir / weights_file
    recipe = Recipe.load(run_dir / RECIPE_FILE)
    front_end = load_front_end(run_dir, recipe.text)
    if not path.is_file():
        raise UserError(f"{path}: no such file; has the run finished?")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        network = build_student(recipe, front_end)
        network.load_weights(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not this recipe's student: {' '.join(str(error).split())[:200]}") from None
    finally:
        keras.config.set_dtype_policy(before)
    return Student(network, front_end, recipe)
