"""WordPiece: text to the token ids of BERT's uncased vocabularies.

Source: Devlin et al., "BERT" (NAACL 2019), and its code's `BasicTokenizer` and `WordpieceTokenizer`.
"""

import unicodedata

from t2i_kd.errors import UserError
from t2i_kd.files import read_text

UNKNOWN, FIRST, LAST = "[UNK]", "[CLS]", "[SEP]"
CONTINUED = "##"
LONGEST_WORD = 100
# Blocks of Chinese characters, each of which is a word.
CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """A vocabulary of word pieces.

    Args:
        path: of the vocabulary, a token a line; a line's number from 0 is its token's id.
        flag: which gave it, for messages.

    Raises:
        UserError: naming the flag, when the file is missing or no such vocabulary.
    """

    def __init__(self, path, flag):
        try:
            tokens = read_text(path).split("\n")
        except UserError as error:
            raise UserError(f"--{flag}: cannot read {error}") from None
        self.ids = {token.rstrip("\r"): index for index, token in enumerate(tokens) if token}
        for token in (UNKNOWN, FIRST, LAST):
            if token not in self.ids:
                raise UserError(f"--{flag}: {path} is no WordPiece vocabulary: it has no {token}")

    def __call__(self, text):
        """The ids of a text's tokens, between those of [CLS] and [SEP]."""
        pieces = [piece for word in words(text) for piece in self._pieces(word)]
        return [self.ids[each] for each in (FIRST, *pieces, LAST)]

    def _pieces(self, word):
        """The longest known piece at the word's beginning, then that of the rest, and so on."""
        found, start = [], 0
        if len(word) > LONGEST_WORD:
            return [UNKNOWN]
        while start < len(word):
            prefix = CONTINUED if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.ids), None)
            if end is None:
                return [UNKNOWN]
            found.append(prefix + word[start:end])
            start = end
        return found


def words(text):
    """A text's words in lower case without accents, each punctuation mark and Chinese character a word of its own."""
    plain = "".join(_plain(character) for character in text)
    without = (each for each in unicodedata.normalize("NFD", plain.lower()) if unicodedata.category(each) != "Mn")
    return "".join(f" {each} " if _is_punctuation(each) else each for each in without).split()


def _plain(character):
    code = ord(character)
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if code in (0, 0xFFFD) or unicodedata.category(character) in ("Cc", "Cf"):
        return ""
    return f" {character} " if any(first <= code <= last for first, last in CHINESE) else character


def _is_punctuation(character):
    # ASCII's signs, such as $, are punctuation here whatever Unicode calls them.
    sign = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return sign or unicodedata.category(character).startswith("P")
