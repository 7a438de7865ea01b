"""The text encoders that are learned: token ids in, a vector a caption out.

`gru` is ours; `char_cnn_rnn` is Reed et al., "Learning Deep Representations of Fine-Grained Visual Descriptions"
(CVPR 2016), its layers from the authors' code.
"""

import keras
from keras import ops

from t2i_kd.text.tokenizer import LONGEST, SPECIAL_TOKENS


@keras.saving.register_keras_serializable(package="t2i_kd")
class MeanGRU(keras.layers.Layer):
    """A GRU over a sequence, and the mean of its hidden states over the steps that count.

    With input x_t, mask m_t in {0, 1} and state h_0 = 0:
        z, r = sigmoid(x_t W_zr + h U_zr + b_zr),  n = tanh(x_t W_n + b_n + r * (h U_n + c_n)),
        h_t = h + m_t ((1 - z) * n + z * h - h),   output = sum_t m_t h_t / max(1, sum_t m_t).
    A masked step leaves the state as it was, so padding changes nothing, in either direction.

    The loop is unrolled into plain products and the input's product is taken for all steps at once: no while loop and
    no tensor list, which LiteRT and ONNX convert badly, and faster on a CPU at these lengths. Source: Cho et al.
    (2014), with the reset gate after the product, as in cuDNN and Keras.

    Args:
        units: width of the state.
        bidirectional: also run from the last step to the first, with weights of its own; the means are concatenated.
    """

    def __init__(self, units, bidirectional=False, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.bidirectional = bidirectional

    def build(self, inputs_shape, present_shape=None):
        if inputs_shape[1] is None or inputs_shape[1] > LONGEST:
            raise ValueError(f"a sequence of {inputs_shape[1]} steps is too long to unroll")
        directions = 2 if self.bidirectional else 1
        # One weight a direction, stacked, so that both directions are one batched product.
        self.kernel = self.add_weight(
            (directions, inputs_shape[-1], 3 * self.units), _each(keras.initializers.GlorotUniform), name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            (directions, self.units, 3 * self.units), _each(keras.initializers.Orthogonal), name="recurrent_kernel"
        )
        self.bias = self.add_weight((directions, 1, 3 * self.units), "zeros", name="bias")
        self.recurrent_bias = self.add_weight((directions, 1, self.units), "zeros", name="recurrent_bias")

    def call(self, inputs, present=None):
        """Inputs float [batch, steps, width], present 0 or 1 [batch, steps] -> float [batch, units or 2 units]."""
        if present is None:
            present = ops.ones_like(inputs[:, :, 0])
        present = ops.cast(present, inputs.dtype)[:, :, None]
        directions = self.kernel.shape[0]
        step_inputs, step_masks = [], []
        for direction in range(directions):
            # Unstacked rather than indexed: the gradient of an index is a whole sequence of zeros a step.
            projected = ops.unstack(ops.matmul(inputs, self.kernel[direction]) + self.bias[direction], axis=1)
            order = slice(None, None, -1 if direction else 1)
            step_inputs.append(projected[order])
            step_masks.append(ops.unstack(present, axis=1)[order])
        state = ops.zeros_like(ops.stack([each[0][:, : self.units] for each in step_inputs]))
        total = state
        for step_input, mask in zip(zip(*step_inputs, strict=True), zip(*step_masks, strict=True), strict=True):
            mask = ops.stack(mask)
            state = state + mask * (self._step(ops.stack(step_input), state) - state)
            total = total + mask * state
        mean = total / ops.maximum(ops.sum(present, axis=1), 1)
        return ops.concatenate(ops.unstack(mean, directions), axis=-1)

    def _step(self, step_input, state):
        recurrent = ops.matmul(state, self.recurrent_kernel)
        # Split rather than sliced: TensorFlow's gradient of a slice of the last axis takes several times as long.
        (*given, own), (*before, own_before) = (ops.split(each, 3, axis=-1) for each in (step_input, recurrent))
        update, reset = (ops.sigmoid(one + other) for one, other in zip(given, before, strict=True))
        candidate = ops.tanh(own + reset * (own_before + self.recurrent_bias))
        return candidate + update * (state - candidate)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "bidirectional": self.bidirectional}


def _each(initializer):
    """An initializer that draws every slice of the first axis on its own."""
    return lambda shape, dtype: ops.stack([initializer()(shape[1:], dtype=dtype) for _ in range(shape[0])])


@keras.saving.register_keras_serializable(package="t2i_kd")
class OneHotCharacters(keras.layers.Layer):
    """Token ids to one-hot rows over the alphabet; padding and unknown are all zero, as in Reed's code.

    Args:
        characters: size of the alphabet.
    """

    def __init__(self, characters, **kwargs):
        super().__init__(**kwargs)
        self.characters = characters

    def call(self, tokens):
        """int32 [batch, length] -> float [batch, length, characters]."""
        special = len(SPECIAL_TOKENS)
        return ops.one_hot(tokens, special + self.characters, dtype=self.compute_dtype)[..., special:]

    def compute_output_spec(self, tokens):
        return keras.KerasTensor((*tokens.shape, self.characters), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "characters": self.characters}


@keras.saving.register_keras_serializable(package="t2i_kd")
class TokenMask(keras.layers.Layer):
    """1 where there is a token, 0 where there is padding."""

    def call(self, tokens):
        """int32 [batch, length] -> float [batch, length]."""
        return ops.cast(ops.not_equal(tokens, 0), self.compute_dtype)

    def compute_output_spec(self, tokens):
        return keras.KerasTensor(tokens.shape, self.compute_dtype)


def build_gru(vocabulary_size, length, word_dim, text_dim):
    """Word vectors, a GRU in both directions with twice `word_dim` units each, mean over the words, Dense.

    Args:
        vocabulary_size: ids, padding and unknown included.
        length: tokens a caption.
        word_dim: width of a word's vector.
        text_dim: width of the text vector.

    Returns:
        A `keras.Model`, {"tokens": int32 [batch, length]} -> float [batch, text_dim]. Our reconstruction: the paper
        takes Reed's vectors as they are.
    """
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    # Keras's default of +-0.05 would leave the states, and so the student's input, next to nothing at first.
    words = keras.layers.Embedding(
        vocabulary_size, word_dim, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0), name="words"
    )(tokens)
    states = MeanGRU(2 * word_dim, bidirectional=True, name="gru")(words, present=TokenMask(name="mask")(tokens))
    vector = keras.layers.Dense(text_dim, name="text_vector")(states)
    return keras.Model({"tokens": tokens}, vector, name="text_encoder")


def build_char_cnn_rnn(characters, length, text_dim, cnn_dim=512):
    """Reed's char-CNN-RNN: characters to a text vector.

    One-hot 201 x 70; conv 4 to 384, ReLU, max pooling 3 (66 steps); conv 4 to 512, ReLU, pooling 3 (21);
    conv 4 to `cnn_dim`, ReLU (18); GRU of `cnn_dim` over the 18 steps, mean of its states; Dense to `text_dim`.

    Args:
        characters: size of the alphabet, 70 in Reed's.
        length: characters of a caption, 201 in Reed's.
        text_dim: width of the text vector, 1024 in Reed's.
        cnn_dim: 512 for birds.

    Returns:
        A `keras.Model`, {"tokens": int32 [batch, length]} -> float [batch, text_dim].
    """
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    features = OneHotCharacters(characters, name="one_hot")(tokens)
    for index, filters in enumerate((384, 512), 1):
        features = keras.layers.Conv1D(filters, 4, activation="relu", name=f"conv{index}")(features)
        features = keras.layers.MaxPooling1D(3, name=f"pool{index}")(features)
    features = keras.layers.Conv1D(cnn_dim, 4, activation="relu", name="conv3")(features)
    mean = MeanGRU(cnn_dim, name="gru")(features)
    vector = keras.layers.Dense(text_dim, name="text_vector")(mean)
    return keras.Model({"tokens": tokens}, vector, name="text_encoder")


def build_vector_encoder(embedding_dim, text_dim):
    """The encoder behind vectors of another network: identity, or a Dense where the widths differ.

    Returns:
        A `keras.Model`, {"embedding": float32 [batch, embedding_dim]} -> float [batch, text_dim].
    """
    embedding = keras.Input((embedding_dim,), name="embedding")
    if embedding_dim == text_dim:
        vector = keras.layers.Identity(name="text_vector")(embedding)
    else:
        vector = keras.layers.Dense(text_dim, name="text_vector")(embedding)
    return keras.Model({"embedding": embedding}, vector, name="text_encoder")
