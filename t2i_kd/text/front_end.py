"""The recipe's text encoder as an object: `build_front_end` for training, `load_front_end` for a trained student."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from t2i_kd.errors import UserError
from t2i_kd.text.base import TextFrontEnd
from t2i_kd.text.hub import HubFrontEnd
from t2i_kd.text.precomputed import PrecomputedFrontEnd
from t2i_kd.text.tokenizer import REED_LENGTH, Tokenizer, token_count
from t2i_kd.weight_files import check_hdf5

VOCABULARY_FILE = "vocabulary.txt"
TOKEN_KINDS = {"gru": "words", "char_cnn_rnn": "characters"}
DEFAULT_LENGTHS = {"gru": 32, "char_cnn_rnn": REED_LENGTH}
# A longer default would cost every step: the recurrence is unrolled.
LONGEST_DEFAULT = 128
VECTOR_FRONT_ENDS = {"precomputed": PrecomputedFrontEnd, "hub": HubFrontEnd}
# Three convolutions of 4 and two poolings of 3 need this many characters to leave one step.
SHORTEST_CHARACTER_TEXT = 48


@dataclass(frozen=True)
class TokenFrontEnd(TextFrontEnd):
    """`gru` and `char_cnn_rnn`: captions become token ids, and the encoder is learned.

    Attributes:
        name: `gru` or `char_cnn_rnn`.
        tokenizer: its `Tokenizer`.
    """

    name: str
    tokenizer: Tokenizer

    input_name = "tokens"
    input_dtype = "int32"

    @property
    def input_shape(self):
        return (self.tokenizer.length,)

    def features(self, captions):
        return self.tokenizer(captions)

    def in_graph(self, text):
        return self.tokenizer.in_graph(text)

    def in_graph_module(self):
        return self.tokenizer.in_graph_module()

    def digest(self, captions):
        tokenizer = self.tokenizer
        described = [self.name, tokenizer.kind, tokenizer.length, tokenizer.vocabulary]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def build_encoder(self, options):
        """The encoder, with the weights of `text_weights` where given. Raises `UserError` when they do not fit."""
        from t2i_kd.text.encoders import build_char_cnn_rnn, build_gru  # Keras, which reading captions does not need

        length = self.tokenizer.length
        if self.name == "gru":
            encoder = build_gru(self.tokenizer.size, length, options.word_dim, options.text_dim)
        else:
            encoder = build_char_cnn_rnn(len(self.tokenizer.vocabulary), length, options.text_dim)
        if options.text_weights:
            self._check_vocabulary_of_weights(options.text_weights)
            load_text_weights(encoder, options.text_weights)
        return encoder

    def _check_vocabulary_of_weights(self, text_weights):
        # Word vectors belong to their words; a vocabulary of the same size would load without a word.
        path = Path(text_weights).parent / VOCABULARY_FILE
        if not path.is_file():
            return
        tokenizer = self.tokenizer
        if Tokenizer.load(path, tokenizer.kind, tokenizer.length).vocabulary != tokenizer.vocabulary:
            raise UserError(f"--text_weights: {path} beside it is not this data set's vocabulary")

    def describe(self):
        tokenizer = self.tokenizer
        return {
            "encoder": self.name,
            "tokenizer": tokenizer.kind,
            "length": tokenizer.length,
            "vocabulary_size": tokenizer.size,
            "vocabulary": VOCABULARY_FILE,
        }

    def save(self, folder):
        self.tokenizer.save(Path(folder) / VOCABULARY_FILE)


def load_text_weights(encoder, path):
    """Fills `encoder` from a `.weights.h5` that the same encoder's `save_weights` wrote.

    Raises:
        UserError: naming `--text_weights`, when the file is missing, not HDF5, or of another encoder.
    """
    if not str(path).endswith(".weights.h5"):
        raise UserError(f"--text_weights: {path} does not end in .weights.h5")
    try:
        check_hdf5(path)
    except UserError as error:
        raise UserError(f"--text_weights: {error}") from None
    try:
        encoder.load_weights(path)
    except Exception as error:  # Keras and h5py raise anything on a damaged file.
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--text_weights: {path} does not fit this encoder: {reason}") from None


def build_front_end(text_options, dataset):
    """The front end of a training run.

    Args:
        text_options: a `TextOptions`.
        dataset: the TRAINING `CaptionedImages`; the vocabulary comes from its captions.

    Raises:
        UserError: naming the recipe's field or the file that is wrong.
    """
    if text_options.text_dim < 1:
        raise UserError(f"--text_dim: {text_options.text_dim} is not a positive width")
    name = text_options.text_encoder
    if name in TOKEN_KINDS:
        captions = dataset.all_captions
        tokenizer = Tokenizer.from_captions(captions, TOKEN_KINDS[name], _length(text_options, captions))
        return TokenFrontEnd(name, tokenizer)
    if name not in VECTOR_FRONT_ENDS:
        raise UserError(f"--text_encoder: {name!r} is none of {', '.join((*TOKEN_KINDS, *VECTOR_FRONT_ENDS))}")
    if text_options.text_weights:
        raise UserError(f"--text_weights: --text_encoder={name} has no pretrained encoder to load")
    return VECTOR_FRONT_ENDS[name].build(text_options, dataset)


def check_sources(text_options):
    """Raises `UserError` where the files that a text encoder is made from cannot be had; needs no captions."""
    name, weights = text_options.text_encoder, text_options.text_weights
    if weights and not Path(weights).is_file():
        raise UserError(f"--text_weights: no file {weights}")
    if name in VECTOR_FRONT_ENDS:
        VECTOR_FRONT_ENDS[name].check_source(text_options)


def load_front_end(folder, described):
    """The front end that a trained student's folder describes.

    Args:
        folder: with the files that `TextFrontEnd.save` wrote.
        described: what `TextFrontEnd.describe` gave.

    Raises:
        UserError: naming the file that is missing or wrong.
        KeyError: for a description that lacks something.
    """
    name = described["encoder"]
    if name in TOKEN_KINDS:
        path = Path(folder) / VOCABULARY_FILE
        tokenizer = Tokenizer.load(path, described["tokenizer"], described["length"])
        if tokenizer.size != described["vocabulary_size"]:
            raise UserError(f"{path}: holds {tokenizer.size} lines, not {described['vocabulary_size']}")
        return TokenFrontEnd(name, tokenizer)
    if name not in VECTOR_FRONT_ENDS:
        raise UserError(f"{folder}: encoder {name!r} is none of {', '.join((*TOKEN_KINDS, *VECTOR_FRONT_ENDS))}")
    return VECTOR_FRONT_ENDS[name].load(described)


def _length(text_options, captions):
    """The tokens that are kept: as many as asked for, else the usual number, for words as many as the longest has."""
    length = text_options.text_length or DEFAULT_LENGTHS[text_options.text_encoder]
    if text_options.text_encoder == "gru" and not text_options.text_length:
        longest = max((token_count(caption, "words") for caption in captions), default=0)
        length = min(max(length, longest), LONGEST_DEFAULT)
    if text_options.text_encoder == "char_cnn_rnn" and length < SHORTEST_CHARACTER_TEXT:
        raise UserError(
            f"--text_length: char_cnn_rnn needs at least {SHORTEST_CHARACTER_TEXT} characters, not {length}"
        )
    return length
