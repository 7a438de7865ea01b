"""A trained run's network as a teacher: an image in, the map of every layer out."""

from pathlib import Path

import keras

from t2i_kd.checksums import sha256_of
from t2i_kd.errors import UserError
from t2i_kd.student import WEIGHTS_FILE, load_network
from t2i_kd.teachers.applications import stable_names

PREFIX = "run:"


def network_file(teacher):
    """The file of `--teacher=run:DIR`'s network. Raises `UserError` where the run has none."""
    path = Path(teacher.removeprefix(PREFIX)) / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"--teacher: {path} does not exist; has the run finished?")
    return path


def run_sha256(teacher):
    """The SHA-256 of that file, by which a recipe names the network that taught it."""
    return sha256_of(network_file(teacher))


def load_run(options, resolution):
    """The network of a finished run that reads images.

    Args:
        options: `TeacherOptions` with `teacher=run:DIR`; the network is `DIR/student.keras`.
        resolution: side of the images in pixels, which must be the network's.

    Returns:
        A `keras.Model` from float32 RGB [batch, resolution, resolution, 3] in 0-255 to {tap: tensor [batch, height,
        width, channels]}: `image`, the image itself, then every layer that gives a map, by its name.

    Raises:
        UserError: naming `--teacher`, when the run has no such network, it does not read images of this side, or its
            file is another than `teacher_weights_sha256` says.
    """
    path, wanted = network_file(options.teacher), options.teacher_weights_sha256
    if wanted and sha256_of(path) != wanted.lower():
        raise UserError(f"--teacher: {path} has SHA-256 {sha256_of(path)}, not {wanted}")
    network = load_network(path)
    shapes = [tuple(each.shape[1:]) for each in network.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3:
        raise UserError(f"--teacher: {path} is not of a run whose student reads images")
    if shapes[0] != (resolution, resolution, 3):
        raise UserError(f"--teacher: {path} reads images of {shapes[0][0]} px, not of --resolution={resolution}")
    image = network.inputs[0]
    hidden = (keras.layers.InputLayer, keras.Model)
    names = stable_names([layer for layer in network.layers if not isinstance(layer, hidden)])
    maps = {name: layer.output for layer, name in names.items() if len(getattr(layer.output, "shape", ())) == 4}
    return keras.Model(image, {"image": image, **{name: each for name, each in maps.items() if name != "image"}})
