"""The classification networks of `keras.applications` as teachers: an image in, the map of every layer out."""

import inspect
import re

import keras

from t2i_kd.errors import UserError
from t2i_kd.weight_files import check_hdf5

# By their functions' names: the capitalised ones of `keras.applications`.
APPLICATIONS = tuple(name for name in dir(keras.applications) if name[0].isupper())


def load_application(name, weights, flag, keras_file="the file", instead="", include_top=False, **options):
    """A network of `keras.applications`.

    Args:
        name: as `keras.applications` has it.
        weights: `imagenet`, which Keras downloads, or a `.weights.h5` of the same network.
        flag: which gave `weights`, for messages.
        keras_file: under which name Keras keeps what it downloads.
        instead: what else the user can do without a network.
        include_top: with its classifier.
        options: further arguments of the network.

    Raises:
        UserError: naming the flag, when the weights cannot be downloaded or do not fit.
    """
    try:
        if weights not in (None, "imagenet"):
            check_hdf5(weights)
        return getattr(keras.applications, name)(include_top=include_top, weights=weights, **options)
    except Exception as error:  # Keras raises anything from URLError to KeyError here
        reason = " ".join(str(error).split())[:200]
        if weights == "imagenet":
            raise UserError(
                f"--{flag}=imagenet: Keras could not download {name} ({reason}); put {keras_file} into "
                f"~/.keras/models, or give a file with --{flag}=FILE.weights.h5{instead}"
            ) from None
        raise UserError(
            f"--{flag}: {weights} does not fit keras.applications.{name}(include_top={include_top}): {reason}"
        ) from None


def build_application(name, resolution, weights=None):
    """A network of `keras.applications`, its own preprocessing inside.

    Args:
        name: in `APPLICATIONS`.
        resolution: side of the image in pixels.
        weights: `imagenet`, or a `.weights.h5` of the network, with its classifier or without; None: random ones.

    Returns:
        A `keras.Model` from float32 RGB [batch, resolution, resolution, 3] in 0-255 to {tap: tensor [batch, height,
        width, channels]}: `image`, the image itself, then every layer that gives a map, by its name as `summary()`
        shows it in a new process, from the pixels to the most abstract.

    Raises:
        UserError: naming `--resolution`, when the network does not take so small an image, or `--teacher_weights`, when
            they cannot be downloaded or do not fit.
    """
    network = getattr(keras.applications, name)
    image = keras.Input((resolution, resolution, 3), name="image")
    pixels = inspect.getmodule(network).preprocess_input(image)
    try:
        built = network(include_top=False, weights=None, input_tensor=pixels, input_shape=(resolution, resolution, 3))
    except ValueError as error:
        raise UserError(f"--resolution: {name} does not take {resolution} px: {' '.join(str(error).split())}") from None
    if weights is not None:
        # Keras reads a file with the classifier's weights too, and leaves those out.
        pretrained = stable_names(load_application(name, weights, "teacher_weights").layers)
        values = {tap: layer.get_weights() for layer, tap in pretrained.items()}
        for layer, tap in stable_names(built.layers).items():
            layer.set_weights(values.get(tap, []))
    layers = [layer for layer in built.layers if not isinstance(layer, keras.layers.InputLayer)]
    names = stable_names(layers)
    maps = {names[layer]: layer.output for layer in layers if len(getattr(layer.output, "shape", ())) == 4}
    return keras.Model(image, {"image": image, **maps}, name=name)


def stable_names(layers):
    """{layer: its name}, whatever was built before in this process.

    Keras numbers the layers of a kind that are not named by their network: `conv2d`, `conv2d_1`, ... Here each kind's
    first in `layers` has no number again.
    """
    names, numbered = {layer: layer.name for layer in layers}, {}
    for layer in layers:
        kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", layer.name).groups()
        if kind.replace("_", "") == type(layer).__name__.lower():
            numbered.setdefault(kind, []).append((int(number or 0), layer))
    for kind, found in numbered.items():
        first = min(number for number, _ in found)
        names |= {layer: f"{kind}_{number - first}" if number > first else kind for number, layer in found}
    return names
