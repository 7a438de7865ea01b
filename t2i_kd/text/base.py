"""What every way from a caption to a text vector offers to the rest of the project."""

import abc
from collections.abc import Sequence

import numpy as np


class TextFrontEnd(abc.ABC):
    """From a caption to what the student reads, and the learned network behind that.

    Attributes:
        name: the recipe's `text_encoder`.
        input_name: the student's text input: `tokens` or `embedding`.
        input_shape: its shape without the batch.
        input_dtype: `int32` or `float32`.
        tokenizer: a `Tokenizer`, or None where captions become vectors directly.
        reads_any_text: whether captions that no file lists can be read, and `in_graph` exists.
    """

    name: str
    input_name: str
    input_shape: tuple[int, ...]
    input_dtype: str
    tokenizer: object

    reads_any_text = True

    @abc.abstractmethod
    def features(self, captions: Sequence[str]) -> np.ndarray:
        """Captions to the student's text input, an array [captions, *input_shape], outside any graph."""

    @abc.abstractmethod
    def in_graph(self, text):
        """The same inside a TensorFlow graph: string [batch] -> [batch, *input_shape]."""

    @abc.abstractmethod
    def in_graph_module(self):
        """What owns the tables and variables of `in_graph`; an export must track it for as long as it lives."""

    @abc.abstractmethod
    def digest(self, captions):
        """SHA-256 over what decides how captions are read: the vocabulary, or these training captions' vectors."""

    @abc.abstractmethod
    def build_encoder(self, options):
        """A new `keras.Model`, {input_name: features} -> float [batch, options.text_dim], with all learned weights.

        Args:
            options: the recipe's `TextOptions`.
        """

    @abc.abstractmethod
    def describe(self):
        """What `load_front_end` needs to make this front end anew, beside the files that `save` wrote: JSON values."""

    def save(self, folder):  # noqa: B027 (a front end may have no files)
        """Writes the files of the front end, such as its vocabulary, into a folder."""

    def covering(self, dataset):
        """A front end that also serves `dataset`'s captions, and fast: itself, unless vectors are kept a caption."""
        return self
