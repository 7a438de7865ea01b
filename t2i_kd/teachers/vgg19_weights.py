"""VGG19 and its slim twin with pretrained weights."""

import io
from pathlib import Path

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.files import reason
from t2i_kd.imaging import write_file_atomically
from t2i_kd.teachers.applications import load_application
from t2i_kd.teachers.vgg19 import CONVOLUTIONS, SLIM_WEIGHTS, SLIM_WIDTH, build_vgg19
from t2i_kd.weight_files import Arrays

WIDTHS = {"vgg19": 1.0, "vgg19_slim": SLIM_WIDTH}
# Of a slim network's arrays, in bytes: the whole VGG19's are 80 million.
LARGEST_SLIM = 2**27
KERAS_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"


def load_vgg19(options, resolution):
    """`build_vgg19` as the teacher's options say; `teacher` is in `WIDTHS`. See `catalogue.load_teacher`."""
    name = options.teacher
    model = build_vgg19(resolution, WIDTHS[name], options.teacher_pooling, options.teacher_preprocessing)
    read = _read_published if name == "vgg19" else _read_slim
    for name, weights in read(options.teacher_weights).items():
        layer = model.get_layer(name)
        for ours, theirs in zip(layer.weights, weights, strict=True):
            if tuple(ours.shape) != theirs.shape:
                raise UserError(
                    f"--teacher_weights: {name} has shape {theirs.shape} in the file, {tuple(ours.shape)} is needed"
                )
        layer.set_weights(weights)
    return model


def _read_published(weights):
    published = load_application("VGG19", weights, "teacher_weights", KERAS_FILE)
    return {name: published.get_layer(f"block{name[4]}_conv{name[6]}").get_weights() for name in CONVOLUTIONS}


def _read_slim(weights):
    path = SLIM_WEIGHTS if weights == "imagenet" else weights
    try:
        with Arrays(path, LARGEST_SLIM) as stored:
            return {
                name: [stored.read(f"{name}/{part}").astype("float32") for part in ("kernel", "bias")]
                for name in CONVOLUTIONS
            }
    except (OSError, ValueError) as error:
        raise UserError(f"--teacher_weights: {path} is not a .npz of a slim VGG19: {reason(error)}") from None


def save_slim_weights(model, path):
    """Writes a folded slim network as float16 `.npz`, {conv/kernel, conv/bias}, which `load_vgg19` reads."""
    values, archive = {}, io.BytesIO()
    for name in CONVOLUTIONS:
        for part, weights in zip(("kernel", "bias"), model.get_layer(name).get_weights(), strict=True):
            values[f"{name}/{part}"] = weights.astype(np.float16)
    np.savez_compressed(archive, **values)
    write_file_atomically(Path(path), archive.getvalue())
