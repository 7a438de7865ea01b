"""The recipe's text encoder as an object: `build_front_end` for training, `load_front_end` for a trained student."""

from dataclasses import dataclass
from pathlib import Path

from t2i_kd.errors import UserError
from t2i_kd.text.base import TextFrontEnd
from t2i_kd.text.encoders import REED_LENGTH, build_char_cnn_rnn, build_gru
from t2i_kd.text.hub import HubFrontEnd, build_hub
from t2i_kd.text.precomputed import PrecomputedFrontEnd, build_precomputed
from t2i_kd.text.tokenizer import Tokenizer

VOCABULARY_FILE = "vocabulary.txt"
TOKEN_KINDS = {"gru": "words", "char_cnn_rnn": "characters"}
DEFAULT_LENGTHS = {"gru": 32, "char_cnn_rnn": REED_LENGTH}
VECTOR_BUILDERS = {"precomputed": build_precomputed, "hub": build_hub}
VECTOR_FRONT_ENDS = {"precomputed": PrecomputedFrontEnd, "hub": HubFrontEnd}
# Three convolutions of 4 and two poolings of 3 need this many characters to leave one step.
SHORTEST_CHARACTER_TEXT = 48


@dataclass(frozen=True)
class TokenFrontEnd(TextFrontEnd):
    """`gru` and `char_cnn_rnn`: captions become token ids, and the encoder is learned.

    Attributes:
        name: `gru` or `char_cnn_rnn`.
        tokenizer: its `Tokenizer`.
        text_dim: width of the text vector.
        word_dim: width of a word's vector (`gru`).
        text_weights: a `.weights.h5` for `build_encoder` to start from, or "".
    """

    name: str
    tokenizer: Tokenizer
    text_dim: int
    word_dim: int = 64
    text_weights: str = ""

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

    def build_encoder(self):
        """The encoder, with the weights of `text_weights` where given. Raises `UserError` when they do not fit."""
        length = self.tokenizer.length
        if self.name == "gru":
            encoder = build_gru(self.tokenizer.size, length, self.word_dim, self.text_dim)
        else:
            encoder = build_char_cnn_rnn(len(self.tokenizer.vocabulary), length, self.text_dim)
        if self.text_weights:
            self._check_vocabulary_of_weights()
            load_text_weights(encoder, self.text_weights)
        return encoder

    def _check_vocabulary_of_weights(self):
        # Word vectors belong to their words; a vocabulary of the same size would load without a word.
        path = Path(self.text_weights).parent / VOCABULARY_FILE
        if not path.is_file():
            return
        tokenizer = self.tokenizer
        if Tokenizer.load(path, tokenizer.kind, tokenizer.length).vocabulary != tokenizer.vocabulary:
            raise UserError(f"--text_weights: {path} beside it is not this data set's vocabulary")

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
        encoder.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--text_weights: {path} does not fit this encoder: {reason}") from None


def build_front_end(text_recipe, dataset):
    """The front end of a training run.

    Args:
        text_recipe: a `TextRecipe`.
        dataset: the TRAINING `CaptionedImages`; the vocabulary comes from its captions.

    Raises:
        UserError: naming the recipe's field or the file that is wrong.
    """
    if text_recipe.text_dim < 1:
        raise UserError(f"--text_dim: {text_recipe.text_dim} is not a positive width")
    name = text_recipe.text_encoder
    if name in TOKEN_KINDS:
        tokenizer = Tokenizer.from_captions(dataset.all_captions, TOKEN_KINDS[name], _length(text_recipe))
        return _token_front_end(text_recipe, tokenizer, text_recipe.text_weights)
    if text_recipe.text_weights:
        raise UserError(f"--text_weights: --text_encoder={name} has no pretrained encoder to load")
    return _choose(VECTOR_BUILDERS, name)(text_recipe, dataset)


def load_front_end(folder, text_recipe):
    """The front end that a trained student's folder describes.

    The student holds the encoder's weights: `text_weights` is not read again.

    Raises:
        UserError: naming the file that is missing or wrong.
    """
    name = text_recipe.text_encoder
    if name in TOKEN_KINDS:
        tokenizer = Tokenizer.load(Path(folder) / VOCABULARY_FILE, TOKEN_KINDS[name], _length(text_recipe))
        return _token_front_end(text_recipe, tokenizer, "")
    source = text_recipe.hub_handle if name == "hub" else text_recipe.embeddings_dir
    return _choose(VECTOR_FRONT_ENDS, name).load(folder, source, text_recipe.text_dim)


def _choose(known, name):
    if name not in known:
        raise UserError(f"--text_encoder: {name!r} is none of {', '.join((*TOKEN_KINDS, *known))}")
    return known[name]


def _length(text_recipe):
    length = text_recipe.text_length or DEFAULT_LENGTHS[text_recipe.text_encoder]
    if text_recipe.text_encoder == "char_cnn_rnn" and length < SHORTEST_CHARACTER_TEXT:
        raise UserError(
            f"--text_length: char_cnn_rnn needs at least {SHORTEST_CHARACTER_TEXT} characters, not {length}"
        )
    return length


def _token_front_end(text_recipe, tokenizer, text_weights):
    return TokenFrontEnd(text_recipe.text_encoder, tokenizer, text_recipe.text_dim, text_recipe.word_dim, text_weights)
