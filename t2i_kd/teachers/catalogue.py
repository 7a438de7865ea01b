"""The teachers by name, with their weights: what is asked for or an error, never random weights."""

import hashlib
import zipfile
from pathlib import Path

import keras
import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.teachers.vgg19 import CONVOLUTIONS, SLIM_WEIGHTS, SLIM_WIDTH, build_vgg19

WIDTHS = {"vgg19": 1.0, "vgg19_slim": SLIM_WIDTH}
KERAS_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"


def load_teacher(teacher_recipe, resolution):
    """A frozen teacher with pretrained weights.

    Args:
        teacher_recipe: `TeacherOptions`. `teacher_weights=imagenet` stands for the weights that Keras publishes
            (`vgg19`) or that this package ships (`vgg19_slim`); otherwise a file: a `.weights.h5` of
            `keras.applications.VGG19(include_top=False)`, or a `.npz` that the `teacher_slim` system wrote.
        resolution: side of the images in pixels.

    Returns:
        A `keras.Model`, not trainable, from float32 RGB [batch, resolution, resolution, 3] in 0-255 to {tap: map}.
        For `teacher=none` its only tap is `image`, the image itself.

    Raises:
        UserError: when the weights cannot be had, have another checksum than `teacher_weights_sha256`, or do not fit.
    """
    if teacher_recipe.teacher == "none":
        image = keras.Input((resolution, resolution, 3), name="image")
        return keras.Model(image, {"image": image}, name="none")
    model = build_vgg19(
        resolution,
        WIDTHS[teacher_recipe.teacher],
        teacher_recipe.teacher_pooling,
        teacher_recipe.teacher_preprocessing,
    )
    read = _read_vgg19 if teacher_recipe.teacher == "vgg19" else _read_slim
    for name, weights in read(teacher_recipe).items():
        layer = model.get_layer(name)
        for ours, theirs in zip(layer.weights, weights, strict=True):
            if tuple(ours.shape) != theirs.shape:
                raise UserError(
                    f"--teacher_weights: {name} has shape {theirs.shape} in the file, {tuple(ours.shape)} is needed"
                )
        layer.set_weights(weights)
    model.trainable = False
    return model


def _check_file(path, wanted_sha256):
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--teacher_weights: no file {path}")
    if wanted_sha256:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted_sha256.lower():
            raise UserError(f"--teacher_weights: {path} has SHA-256 {found}, not {wanted_sha256}")


def _read_vgg19(teacher_recipe):
    weights = teacher_recipe.teacher_weights
    if weights != "imagenet":
        _check_file(weights, teacher_recipe.teacher_weights_sha256)
    elif teacher_recipe.teacher_weights_sha256:
        raise UserError(
            "--teacher_weights_sha256: Keras checks what it downloads; give a file with --teacher_weights to check it"
        )
    published = load_application("VGG19", weights, "teacher_weights", KERAS_FILE)
    return {name: published.get_layer(f"block{name[4]}_conv{name[6]}").get_weights() for name in CONVOLUTIONS}


def load_application(name, weights, flag, keras_file, instead="", include_top=False, **options):
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


def _read_slim(teacher_recipe):
    path = SLIM_WEIGHTS if teacher_recipe.teacher_weights == "imagenet" else teacher_recipe.teacher_weights
    _check_file(path, teacher_recipe.teacher_weights_sha256)
    try:
        with np.load(path) as stored:
            return {
                name: [stored[f"{name}/{part}"].astype("float32") for part in ("kernel", "bias")]
                for name in CONVOLUTIONS
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"--teacher_weights: {path} is not a .npz of a slim VGG19: {error}") from None
