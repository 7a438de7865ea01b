r"""A caption to token ids, in two forms that agree on every string: plain Python and a TensorFlow graph.

The rules, for whoever writes a third form (JavaScript, Kotlin). They work on the bytes of the caption's UTF-8:

1. Bytes 65-90 (A-Z) become 97-122 (a-z). Nothing else is lower-cased and no Unicode normalisation takes place.
2. `words`: a token is a maximal run of a-z, 0-9, the apostrophe (39) and bytes of 128 and more. Every other byte
   separates and is dropped. On code points that is the regular expression `/[a-z0-9'\u0080-\u{10ffff}]+/gu`.
   `characters`: a token is one byte; a character outside ASCII is thus as many tokens as it has bytes, each unknown,
   as in Reed's code, which also reads bytes.
3. The first `length` tokens are kept. A token's id is its line in `vocabulary.txt`, counted from 0; where two lines
   are equal (`-` in Reed's alphabet), the last one. A token that the vocabulary lacks has id 1; ids after the last
   token are 0. The first two lines, `[PAD]` and `[UNK]`, are never tokens.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.files import read_bytes
from t2i_kd.imaging import write_file_atomically

KINDS = ("words", "characters")
PADDING, UNKNOWN = 0, 1
SPECIAL_TOKENS = ("[PAD]", "[UNK]")
# No caption has more characters; and what a vocabulary may have: tokens, and bytes in its file.
LONGEST = 2000
LARGEST_VOCABULARY, LARGEST_FILE = 1_000_000, 2**25
# Reed et al. (CVPR 2016), from their code: "-" stands twice and the space is the last of the 70.
REED_LENGTH = 201
REED_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "

_WORD = re.compile(rb"[a-z0-9'\x80-\xff]+")
# The complement of `_WORD`, in RE2's syntax and after lower-casing.
_SEPARATORS = r"[\x00-&(-/:-`{-\x7f]+"


@dataclass(frozen=True)
class Tokenizer:
    """Captions to token ids.

    Attributes:
        kind: `words` or `characters`.
        vocabulary: the tokens; the i-th has id i + 2, after padding (0) and unknown (1).
        length: tokens kept of a caption.
    """

    kind: str
    vocabulary: tuple[str, ...]
    length: int

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(f"tokenizer: kind {self.kind!r} is none of {', '.join(KINDS)}")
        if type(self.length) is not int or not 1 <= self.length <= LONGEST:
            raise UserError(f"--text_length: {self.length} is no number of tokens from 1 to {LONGEST:,}")
        if len(self.vocabulary) > LARGEST_VOCABULARY:
            raise UserError(f"tokenizer: {len(self.vocabulary):,} tokens, more than {LARGEST_VOCABULARY:,}")

    @property
    def size(self):
        """How many ids there are, padding and unknown included."""
        return len(SPECIAL_TOKENS) + len(self.vocabulary)

    def __call__(self, captions: Sequence[str | bytes]):
        """Token ids in plain Python.

        Args:
            captions: str, or bytes, which need not be valid UTF-8.

        Returns:
            int32 array [captions, length].

        Raises:
            UserError: for a str that UTF-8 cannot hold (a lone surrogate).
        """
        ids = np.full((len(captions), self.length), PADDING, np.int32)
        for row, caption in zip(ids, captions, strict=True):
            tokens = _split(_lower_bytes(caption), self.kind)[: self.length]
            row[: len(tokens)] = [self._ids.get(token, UNKNOWN) for token in tokens]
        return ids

    def unread(self, caption):
        """What of a caption no student reads: (the words or characters that are unknown, those beyond `length`)."""
        if self.kind == "characters":
            beyond = _lower_bytes(caption)[self.length :].decode("utf-8", "ignore")
            unknown = [each for each in caption if any(bytes([byte]) not in self._ids for byte in _lower_bytes(each))]
            return unknown, [beyond] if beyond else []
        tokens = _split(_lower_bytes(caption), self.kind)
        unknown = [token for token in tokens[: self.length] if token not in self._ids]
        return [[token.decode("utf-8", "replace") for token in some] for some in (unknown, tokens[self.length :])]

    def in_graph(self, text):
        """Token ids inside a TensorFlow graph; equal to `__call__` for every byte string.

        Who exports the graph must hold `in_graph_module()`, which owns the vocabulary's table.

        Args:
            text: string tensor [batch].

        Returns:
            int32 tensor [batch, length].
        """
        return self.in_graph_module()(text)

    def in_graph_module(self):
        """The `tf.Module` behind `in_graph`, one an instance; `ExportArchive.track` takes it."""
        return self._module

    @functools.cached_property
    def _ids(self):
        return {token.encode("utf-8"): index for index, token in enumerate(self.vocabulary, len(SPECIAL_TOKENS))}

    @functools.cached_property
    def _module(self):
        # Imported here: plain tokenizing must work without TensorFlow.
        from t2i_kd.text.graph_tokenizer import GraphCharacters, GraphWords

        if self.kind == "words":
            return GraphWords(self._ids, self.length, _SEPARATORS)
        return GraphCharacters(self._ids, self.length)

    @classmethod
    def from_captions(cls, captions, kind, length):
        """The tokenizer of a training set.

        `words`: every word of the captions, the frequent first, equally frequent ones in byte order.
        `characters`: Reed's alphabet, whatever the captions hold.
        """
        if kind == "characters":
            return cls(kind, tuple(REED_ALPHABET), length)
        counts = Counter(token for caption in captions for token in _split(_lower_bytes(caption), kind))
        ordered = sorted(counts, key=lambda token: (-counts[token], token))
        return cls(kind, tuple(token.decode("utf-8") for token in ordered), length)

    def save(self, path):
        """Writes `vocabulary.txt`: UTF-8, one token a line, a token's id is its line's number counted from 0."""
        text = "".join(token + "\n" for token in SPECIAL_TOKENS + self.vocabulary)
        write_file_atomically(path, text.encode("utf-8"))

    @classmethod
    def load(cls, path, kind, length):
        """The tokenizer that `save` wrote. Raises `UserError` that names the file when it is not one."""
        content = read_bytes(path, LARGEST_FILE)
        if content.count(b"\n") > LARGEST_VOCABULARY + len(SPECIAL_TOKENS):
            raise UserError(f"{path}: more than {LARGEST_VOCABULARY:,} tokens")
        try:
            lines = content.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raise UserError(f"{path}: not text in UTF-8") from None
        tokens = tuple(lines[len(SPECIAL_TOKENS) : -1])
        if tuple(lines[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS or lines[-1]:
            raise UserError(f"{path}: not a vocabulary: it must begin with {', '.join(SPECIAL_TOKENS)} and end a line")
        if kind == "words" and len(set(tokens)) < len(tokens):
            raise UserError(f"{path}: a token stands twice")
        for token in tokens:
            if _split(_lower_bytes(token), kind) != [token.encode("utf-8")]:
                raise UserError(f"{path}: {token!r} is not one token of kind {kind}")
        return cls(kind, tokens, length)


def token_count(caption, kind):
    """How many tokens a caption has."""
    return len(_split(_lower_bytes(caption), kind))


def _lower_bytes(caption):
    if isinstance(caption, bytes):
        return caption.lower()
    try:
        return caption.encode("utf-8").lower()
    except UnicodeEncodeError:
        raise UserError("caption: not UTF-8 text") from None


def _split(text, kind):
    if kind == "words":
        return _WORD.findall(text)
    return [text[index : index + 1] for index in range(len(text))]
