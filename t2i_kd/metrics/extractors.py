"""What distribution metrics compare: a network's activations of made and of real held-out pictures."""

from pathlib import Path

import keras
import numpy as np
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.teachers.catalogue import load_application

BATCH = 32
TAP = "pool4"
INCEPTION_SIDE = 299
INCEPTION_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"


def load_inception(weights):
    """InceptionV3's last pool, 2048 numbers a picture.

    Args:
        weights: `imagenet`, which Keras downloads, or a `.weights.h5` of
            `keras.applications.InceptionV3(include_top=False)`.

    Returns:
        A `keras.Model` from float32 RGB [batch, side, side, 3] in 0-255, resized to 299 px (bilinear, anti-aliased),
        to float32 [batch, 2048].

    Raises:
        UserError: naming `--inception_weights`, when the weights cannot be had or do not fit.
    """
    if weights != "imagenet" and not Path(weights).is_file():
        raise UserError(f"--inception_weights: no file {weights}")
    instead = ", or --extractor=teacher"
    network = load_application("InceptionV3", weights, "inception_weights", INCEPTION_FILE, instead, pooling="avg")
    image = keras.Input((None, None, 3), name="image")
    resize = keras.layers.Resizing(INCEPTION_SIDE, INCEPTION_SIDE, antialias=True)
    return keras.Model(image, network(keras.layers.Rescaling(1 / 127.5, -1)(resize(image))))


def load_extractor(context):
    """The network of `--extractor`: a `keras.Model` from pictures to [batch, dim]."""
    if context.extractor == "inception":
        key = ("inception", context.inception_weights)
        return context.shared(key, lambda: load_inception(context.inception_weights))
    if context.teacher.teacher == "none":
        raise UserError("--teacher: none sees nothing; give vgg19 or vgg19_slim, or --extractor=inception")
    teacher = context.loaded_teacher
    return keras.Model(teacher.input, ops.mean(teacher.output[TAP], axis=(1, 2)))


def activation_batches(context):
    """Activations of made and real pictures.

    Args:
        context: an `EvaluationContext`. The made pictures are those of `num_captions` held-out captions; the real ones
            are the whole test split. Extractors: `inception`, InceptionV3's last pool; `teacher`, the teacher's pool4
            averaged over the picture. SDN learns from VGG19, so `teacher` alone is no judge of it.

    Returns:
        {"made": generator of float32 [n, dim], "real": the same}.

    Raises:
        UserError: naming the flag, where the network cannot be had.
    """
    network = load_extractor(context)
    return {"made": _batches(network, context.made), "real": _batches(network, context.split("test").images)}


def activation_protocol(context, metric, made, real):
    """A metric's full name, which says on what it was measured, and its protocol."""
    inception, resolution = context.extractor == "inception", context.student.resolution
    extractor = "inception" if inception else f"{context.teacher.teacher}_{TAP}"
    protocol = {"extractor": extractor}
    if inception:
        protocol |= {"inception_weights": context.inception_weights, "resize": f"{INCEPTION_SIDE}, bilinear"}
    else:
        protocol |= {
            name: getattr(context.teacher, name)
            for name in ("teacher_weights", "teacher_pooling", "teacher_preprocessing")
        }
    protocol |= {"resolution": resolution, "split": context.split("test").name}
    protocol |= {"made": made, "real": real, "seed": context.seed}
    return f"{metric}_{extractor}_{resolution}_n{made}_n{real}", protocol


def _batches(network, images):
    for start in range(0, len(images), BATCH):
        batch = np.stack([images[i] for i in range(start, min(start + BATCH, len(images)))])
        yield ops.convert_to_numpy(network(batch.astype("float32"), training=False))
