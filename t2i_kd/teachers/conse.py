"""ConSE: an ImageNet classifier and a sentence encoder, joined by the names of the classes to one space.

With E the encoder, n_1 ... n_C the classes' names and m the mean of E(n_1) ... E(n_C):

    image(x) = unit(sum_c softmax(logits(x) / 3)_c (E(n_c) - m)),    text(t) = unit(E(t) - m)

one softmax and one fixed dense layer behind the classifier, differentiable in x. Source: Norouzi et al., "Zero-Shot
Learning by Convex Combination of Semantic Embeddings" (ICLR 2014). Ours: all classes in place of the likeliest ten, the
temperature 3, and the mean taken away, without which all texts are alike.
"""

import inspect

import keras
import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.files import read_text
from t2i_kd.teachers.applications import APPLICATIONS, build_application, load_application
from t2i_kd.teachers.dual_encoder import DualEncoder, image_tower, resized, unit
from t2i_kd.teachers.efficientnet_lite0 import load_classifier, load_efficientnet_lite0
from t2i_kd.text.sentence_encoder import load_sentence_encoder

NAME, PREFIX = "conse", "conse:"
TEMPERATURE = 3.0
# Of EfficientNet-Lite0, unless another is asked for.
SIDE = 128
# Of a file's vectors of classes, so many are computed anew to see whose they are.
PROVEN = 20


def network_of(teacher):
    """The network of `keras.applications` that `conse:NETWORK` names; "" for `conse`. Raises `UserError`."""
    name = teacher.removeprefix(PREFIX) if teacher.startswith(PREFIX) else ""
    if teacher != NAME and name not in APPLICATIONS:
        raise UserError(f"--teacher: {name!r} of {teacher} is none of keras.applications: {', '.join(APPLICATIONS)}")
    return name


def load_taps(options, resolution):
    """The classifier's taps; see `catalogue.load_teacher`."""
    name = network_of(options.teacher)
    if name:
        return build_application(name, resolution, options.teacher_weights)
    return load_efficientnet_lite0(options, resolution)


def load_conse(options, towers, resolution):
    """The two towers; see `catalogue.load_dual_encoder`.

    Args:
        options: `TeacherOptions`. Of `conse`, `teacher_weights` is a `.npz` of the whole EfficientNet-Lite0 with its
            `class_names`; of `conse:NETWORK`, `imagenet` or a `.weights.h5` of that network with its classifier.
        towers: `DualEncoderOptions`.
        resolution: side of the images in pixels, which are resized to the classifier's.

    Raises:
        UserError: naming the option that is missing or does not fit.
    """
    if towers.teacher_normalisation != "own":
        raise UserError("--teacher_normalisation: conse's classifier has one of its own, only clip can go without")
    classifier, names, vectors = _classifier(options, towers)
    encoder = load_sentence_encoder(towers.sentence_encoder, towers.sentence_vocabulary)
    if classifier.output.shape[-1] != len(names):
        raise UserError(f"--class_names: {len(names)} names for {classifier.output.shape[-1]} classes")
    if vectors is None or not _are_of(vectors, encoder, names):
        vectors = encoder(names)
    mean = vectors.mean(axis=0)
    image = keras.Input((resolution, resolution, 3), name="image")
    logits = classifier(resized(image, classifier.input.shape[1], towers.teacher_resize))
    cooled = keras.layers.Rescaling(1 / TEMPERATURE, dtype="float32", name="cooled")(logits)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(cooled)
    mixture = keras.layers.Dense(vectors.shape[1], use_bias=False, dtype="float32", name="class_vectors")
    tower = image_tower(image, mixture(probabilities), NAME)
    mixture.set_weights([vectors - mean])
    return DualEncoder(options.teacher, tower, lambda texts: unit(encoder(texts) - mean))


def _classifier(options, towers):
    """(`keras.Model` from images in 0-255 to logits, its classes' names, vectors of them or None)."""
    name, path = network_of(options.teacher), options.teacher_weights
    if name:
        names = _names(towers.class_names, name)
        return _application(name, options, towers.teacher_side), names, None
    if towers.class_names:
        raise UserError("--class_names: the .npz of --teacher=conse has them itself")
    if path == "imagenet":
        raise UserError(
            "--teacher_weights: --teacher=conse needs a .npz of EfficientNet-Lite0 with classifier and class_names; "
            "--teacher=conse:NETWORK takes any of keras.applications"
        )
    return load_classifier(path, towers.teacher_side or SIDE)


def _are_of(vectors, encoder, names):
    """Whether a file's vectors of the names are this encoder's, judged by some of them: that saves seconds."""
    some = slice(None, None, max(1, len(names) // PROVEN))
    found = encoder(names[some])
    return vectors.shape == (len(names), found.shape[1]) and np.allclose(vectors[some], found, atol=1e-3)


def _application(name, options, side):
    """A classifier of `keras.applications`, its preprocessing inside."""
    shape = {"input_shape": (side, side, 3)} if side else {}
    network = load_application(
        name, options.teacher_weights, "teacher_weights", include_top=True, classifier_activation=None, **shape
    )
    image = keras.Input(network.input.shape[1:], name="image")
    pixels = inspect.getmodule(getattr(keras.applications, name)).preprocess_input(image)
    return keras.Model(image, network(pixels), name=f"{name}_classifier")


def _names(path, network):
    if not path:
        raise UserError(f"--class_names: missing; conse:{network} needs a file of its classes' names, one a line")
    try:
        lines = read_text(path).splitlines()
    except UserError as error:
        raise UserError(f"--class_names: cannot read {error}") from None
    if not lines or not all(line.strip() for line in lines):
        raise UserError(f"--class_names: {path} has a line without a name")
    return tuple(lines)
