"""WordPiece against ids worked out by hand, and against a vocabulary of 30,522 pieces."""

import pytest

from t2i_kd.errors import UserError
from t2i_kd.text.wordpiece import WordPiece, words

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "un", "##believ", "##able", "cat", "!", "naive", "##s"]


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return WordPiece(path, "sentence_vocabulary")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("A photo", ["a", "photo"]),
        ("unbelievable cats!", ["un", "##believ", "##able", "cat", "##s", "!"]),
        ("na\u00efve\u200b\tCAT", ["naive", "cat"]),
        ("a dog", ["a", "[UNK]"]),
        ("uncat" + "s" * 100, ["[UNK]"]),
        ("", []),
    ],
)
def test_the_longest_pieces_first(tokenizer, text, pieces):
    assert tokenizer(text) == [VOCABULARY.index(each) for each in ("[CLS]", *pieces, "[SEP]")]


def test_signs_and_chinese_characters_are_words():
    assert words("don't $5, \u4e2d\u6587ok") == ["don", "'", "t", "$", "5", ",", "\u4e2d", "\u6587", "ok"]


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"--sentence_vocabulary: .*words.txt is no WordPiece vocabulary: .*\[UNK\]"):
        WordPiece(path, "sentence_vocabulary")
    with pytest.raises(UserError, match=r"--sentence_vocabulary: cannot read .*none.txt"):
        WordPiece(tmp_path / "none.txt", "sentence_vocabulary")


@pytest.mark.shared
def test_berts_own_ids(shared_data):
    tokenizer = WordPiece(shared_data / "minilm_vocab.txt", "sentence_vocabulary")
    # "unaffable" is una ##ffa ##ble: the longest piece first, whatever the word's parts mean.
    assert tokenizer("a photo of an unaffable cat") == [101, 1037, 6302, 1997, 2019, 14477, 20961, 3468, 4937, 102]
