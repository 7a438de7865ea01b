"""`--init_from`: a student begins with the weights of a finished one, of a run or an exported version."""

from pathlib import Path

import keras
import numpy as np

from t2i_kd.conditions.catalogue import load_condition
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA
from t2i_kd.student import WEIGHTS_FILE, load_network
from t2i_kd.text.tokenizer import SPECIAL_TOKENS
from t2i_kd.training.inputs import file_digest
from t2i_kd.trust import SAVED_MODEL, check_graph

# The weight whose rows are the words of a vocabulary.
WORD_VECTORS = "words/embeddings"


def weights_file(path):
    """The file that a run's or a version's weights lie in. Raises `UserError` that names `--init_from`."""
    for name in (WEIGHTS_FILE, "variables/variables.data-00000-of-00001"):
        if (Path(path) / name).is_file():
            return Path(path) / name
    raise UserError(f"--init_from: {path} is neither a finished run ({WEIGHTS_FILE}) nor a version folder")


def weights_digest(path):
    """SHA-256 of that file."""
    return file_digest(weights_file(path))


def start_from(network, condition, path):
    """Gives a network the weights of a finished student of the same layers.

    Word vectors go by their words: a word that the finished student does not know keeps its initial vector.

    Args:
        network: the new student's.
        condition: its `Condition`.
        path: a run directory or a version folder.

    Returns:
        How many words of the new vocabulary the finished student knows, and how many there are; None without one.

    Raises:
        UserError: naming `--init_from`, where it is none, or has other layers. Nothing is assigned then.
    """
    weights_file(path)
    saved = (Path(path) / SAVED_MODEL).is_file()
    try:
        theirs = load_condition(Path(path) / EXTRA if saved else path)
        finished = None if saved else load_network(Path(path) / WEIGHTS_FILE)
        values = _of_saved_model(path) if saved else {each.path: np.asarray(each) for each in finished.weights}
    except UserError as error:
        raise UserError(f"--init_from: {error}") from None
    ours, before = (getattr(getattr(each, "front_end", None), "tokenizer", None) for each in (condition, theirs))
    assigned, left = {}, sorted(values.keys() - {weight.path for weight in network.weights})
    if left:
        raise UserError(f"--init_from: {path} has {left[0]}, which this student has not: its student has other layers")
    if finished is not None:
        _check_images(network, finished, path)
    for weight in network.weights:
        name = weight.path
        if name not in values:
            raise UserError(f"--init_from: {path} has no {name}: its student has other layers")
        value = values[name]
        if name.endswith(WORD_VECTORS) and ours and before:
            value = _by_word(np.asarray(weight), value, ours.vocabulary, before.vocabulary)
        if value.shape != tuple(weight.shape):
            raise UserError(f"--init_from: {name} has shape {value.shape} in {path}, and {tuple(weight.shape)} here")
        assigned[name] = value
    for weight in network.weights:
        weight.assign(assigned[weight.path])
    return (len(set(ours.vocabulary) & set(before.vocabulary)), len(ours.vocabulary)) if ours and before else None


def _check_images(ours, theirs, path):
    """Raises `UserError` where two students shift or scale what they read and give otherwise; no weight says so."""
    found = [
        {
            layer.name: (np.asarray(layer.scale).tolist(), np.asarray(layer.offset).tolist())
            for layer in network._flatten_layers()
            if isinstance(layer, keras.layers.Rescaling)
        }
        for network in (ours, theirs)
    ]
    if found[0] != found[1]:
        raise UserError(f"--init_from: {path} scales its images otherwise, as another --image_output does")


def _by_word(initial, values, vocabulary, known):
    if values.shape[1:] != initial.shape[1:]:
        return values
    rows, special = {token: row for row, token in enumerate(known, len(SPECIAL_TOKENS))}, len(SPECIAL_TOKENS)
    found = initial.copy()
    found[:special] = values[:special]
    for row, token in enumerate(vocabulary, special):
        if token in rows:
            found[row] = values[rows[token]]
    return found


def _of_saved_model(path):
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"{path}: an exported version is read with KERAS_BACKEND=tensorflow; give its run directory")
    import tensorflow as tf

    check_graph(path)
    loaded = tf.saved_model.load(str(path))
    return {each.name.partition(":")[0]: each.numpy() for each in loaded.signatures["pixels"].variables}
