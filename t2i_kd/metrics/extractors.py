"""The networks whose features of pictures are compared: InceptionV3, the teacher, a TF-Hub module, one of our own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.metrics.cache import digest
from t2i_kd.metrics.finite import require_finite
from t2i_kd.teachers.applications import load_application

BATCH = 32
# Whose mean over the picture the extractor `teacher` gives; of a teacher without it, its last tap's.
TAP = "pool4"
INCEPTION_SIDE = 299
INCEPTION_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels.h5"


def features_name(network, own_side, side):
    """Whose features of pictures of what size, for names of values: `own_32`, or `inception299_32` where it resizes.

    Args:
        network: its short name.
        own_side: the side that it resizes pictures to; 0: none.
        side: of the pictures.
    """
    return f"{network}{own_side}_{side}" if own_side not in (0, side) else f"{network}_{side}"


@dataclass(frozen=True)
class Extractor:
    """A network that turns pictures into features.

    Attributes:
        name: short, part of the names of the values that depend on it.
        protocol: what it is.
        look: float32 RGB [batch, side, side, 3] in 0-255 -> {"features": float32 [batch, dim]} and, where
            `has_probabilities`, "probabilities" [batch, classes].
        has_probabilities: whether it is a classifier.
        fingerprint: a digest of its weights.
        side: that it resizes pictures to; 0: none.
    """

    name: str
    protocol: dict
    forward: Callable
    has_probabilities: bool
    fingerprint: str
    side: int = 0

    def batches(self, images):
        """What `forward` gives of uint8 pictures [n, side, side, 3], an array or a reader, a batch in memory at a time.

        Raises:
            UserError: naming `--extractor`, where it gives NaN or infinity.
        """
        for start in range(0, len(images), BATCH):
            batch = np.stack([images[i] for i in range(start, min(start + BATCH, len(images)))])
            found = self.forward(batch.astype("float32"))
            for name, values in found.items():
                require_finite(f"--extractor: {self.name}", name, values)
            yield found

    def features(self, images):
        """float32 [n, dim] of uint8 pictures, see `batches`."""
        return np.concatenate([found["features"] for found in self.batches(images)])


def keras_extractor(name, protocol, network, side=0):
    """An `Extractor` of a `keras.Model` from pictures to {"features", ["probabilities"]}."""

    def forward(images):
        return {key: ops.convert_to_numpy(value) for key, value in network(images, training=False).items()}

    fingerprint = digest(name, *(np.asarray(weights) for weights in network.get_weights()))
    return Extractor(name, protocol, forward, "probabilities" in network.output, fingerprint, side)


def load_extractor(context):
    """The network of `--extractor`; see `EvaluationContext.extractor`.

    Raises:
        UserError: naming the flag, where the network cannot be had.
    """
    if context.extractor == "inception":
        network = load_inception(context.inception_weights)
        protocol = {"inception_weights": context.inception_weights, "resize": f"{INCEPTION_SIDE}, bilinear"}
        return keras_extractor("inception", protocol, network, INCEPTION_SIDE)
    if context.extractor == "teacher":
        return _teacher(context)
    if context.extractor == "hub":
        return _hub(context.extractor_handle)
    return context.own_network.extractor()


def preview(context):
    """What the network of `--extractor` will give, before any picture is drawn; our own classifier is not trained yet.

    Returns:
        (numbers that it gives of a picture, whether it is a classifier).

    Raises:
        UserError: naming the flag, where the network cannot be had or takes no pictures.
    """
    if context.extractor == "own":
        from t2i_kd.metrics.image_classifier import FEATURES, has_classes, targets_of

        train = context.split("train")
        return FEATURES, has_classes(train) and "label" in targets_of(train)
    extractor, side = context.extractor_network, context.student.resolution
    found = extractor.forward(np.zeros((1, side, side, 3), np.float32))
    return found["features"].shape[1], extractor.has_probabilities


def load_inception(weights):
    """InceptionV3: its last pool, 2048 numbers a picture, and its 1000 class probabilities.

    Args:
        weights: `imagenet`, which Keras downloads, or a `.weights.h5` of `keras.applications.InceptionV3`, with its
            classifier or (`include_top=False`) without.

    Returns:
        A `keras.Model` from float32 RGB [batch, side, side, 3] in 0-255, resized to 299 px (bilinear, anti-aliased),
        to {"features": float32 [batch, 2048]} and, with a classifier, "probabilities" [batch, 1000].

    Raises:
        UserError: naming `--inception_weights`, when the weights cannot be had or do not fit.
    """
    instead = ", or --extractor=own"
    if weights != "imagenet" and not Path(weights).is_file():
        raise UserError(f"--inception_weights: no file {weights}")
    image = keras.Input((None, None, 3), name="image")
    resize = keras.layers.Resizing(INCEPTION_SIDE, INCEPTION_SIDE, antialias=True)
    pixels = keras.layers.Rescaling(1 / 127.5, -1)(resize(image))
    arguments = ("InceptionV3", weights, "inception_weights", INCEPTION_FILE, instead)
    try:
        whole = load_application(*arguments, include_top=True)
    except UserError:
        if weights == "imagenet":
            raise
        features = load_application(*arguments, pooling="avg")
        return keras.Model(image, {"features": features(pixels)})
    both = keras.Model(whole.input, {"features": whole.layers[-2].output, "probabilities": whole.output})
    return keras.Model(image, both(pixels))


def _teacher(context):
    recipe = context.teacher
    protocol = {field: getattr(recipe, field) for field in ("teacher_weights", "teacher_pooling")}
    protocol["teacher_preprocessing"] = recipe.teacher_preprocessing
    teacher = context.loaded_teacher
    if set(teacher.output) == {"image"}:
        raise UserError(f"--teacher: {recipe.teacher} has no maps; give vgg19 or vgg19_slim, or --extractor=own")
    tap = TAP if TAP in teacher.output else list(teacher.output)[-1]
    return teacher_extractor(f"{context.teacher_called}_{tap}", protocol, teacher, (tap,))


def teacher_extractor(name, protocol, teacher, taps):
    """An `Extractor` of a teacher's taps, each averaged over its places, side by side.

    Args:
        name, protocol: as `Extractor` has them.
        teacher: a frozen teacher.
        taps: names of its taps, at least one.
    """
    averages = [
        ops.mean(output, axis=tuple(range(1, len(output.shape) - 1))) for output in map(teacher.output.get, taps)
    ]
    features = averages[0] if len(averages) == 1 else ops.concatenate(averages, axis=-1)
    return keras_extractor(name, protocol, keras.Model(teacher.input, {"features": features}))


def _hub(handle):
    """A TF-Hub image feature vector: float32 RGB [batch, side, side, 3] in 0-1, at the side that it wants."""
    if not handle:
        raise UserError("--extractor_handle: --extractor=hub needs a TF-Hub handle or the folder of a saved module")
    import tensorflow as tf

    from t2i_kd.text.graph_encoder import call_loaded, signature_of
    from t2i_kd.text.hub import load_handle

    module = load_handle(handle, "extractor_handle")
    side = _side(signature_of(module))

    def forward(images):
        pixels = tf.constant(images / 255)
        if side:
            pixels = tf.image.resize(pixels, (side, side), antialias=True)
        try:
            found = call_loaded(module, pixels)
        except Exception as error:  # whatever the module raises on pictures
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"--extractor_handle: {handle} takes no batch of pictures: {reason}") from None
        if found.shape.rank != 2 or found.shape[0] != len(images):
            raise UserError(f"--extractor_handle: {handle} gives {found.shape} for {len(images)} pictures")
        return {"features": found.numpy()}

    weights = [variable.numpy() for variable in getattr(module, "variables", [])]
    protocol = {"extractor_handle": handle, "resize": f"{side}, bilinear" if side else "none"}
    return Extractor("hub", protocol, forward, False, digest("hub", handle, *weights), side)


def _side(signature):
    """The side of the pictures that a module's signature wants; 0: any, or it has none."""
    if signature is None:
        return 0
    shapes = [spec.shape for spec in signature.structured_input_signature[1].values()]
    return (shapes[0][1] or 0) if len(shapes) == 1 and shapes[0].rank == 4 else 0
