"""Deep symmetric structured joint embedding: how a text encoder learns from images before it meets a student.

Source: Reed et al., "Learning Deep Representations of Fine-Grained Visual Descriptions" (CVPR 2016). The
compatibility of an image v and a text t is F(v, t) = theta(v) . phi(t), theta a learned linear map of a frozen
network's pooled features, phi the text encoder.
"""

import math

import keras
from keras import ops

MARGIN = 1.0


def ds_sje_loss(image_features, text_features, margin=MARGIN):
    """The symmetric structured hinge over a batch of one image and one text a class.

    With s_ij = f_i . t_j, over B pairs:
        L = (1 / B^2) sum_i sum_{j != i} [max(0, m + s_ij - s_ii) + max(0, m + s_ji - s_ii)].

    Args:
        image_features: f, float [batch, dim]; row i belongs to the class of text i.
        text_features: t, float [batch, dim].
        margin: m, 1 in the paper.

    Returns:
        A float32 scalar, 0 or more.
    """
    images = ops.cast(image_features, "float32")
    texts = ops.cast(text_features, "float32")
    scores = ops.matmul(images, ops.transpose(texts))
    right = ops.sum(images * texts, axis=1, keepdims=True)
    wrong_text = ops.relu(margin + scores - right)
    wrong_image = ops.relu(margin + ops.transpose(scores) - right)
    batch = ops.shape(scores)[0]
    others = 1.0 - ops.eye(batch, dtype="float32")
    return ops.sum((wrong_text + wrong_image) * others) / ops.cast(batch * batch, "float32")


def retrieval_accuracy(image_features, text_features):
    """The share of texts whose own image scores highest in the batch; 1 / batch is chance. Inputs as for the loss."""
    scores = ops.matmul(text_features, ops.transpose(image_features))
    right = ops.equal(ops.argmax(scores, axis=1), ops.arange(ops.shape(scores)[0], dtype="int32"))
    return ops.mean(ops.cast(right, "float32"))


@keras.saving.register_keras_serializable(package="t2i_kd")
class ImageProjection(keras.layers.Layer):
    """theta: a teacher's tap, averaged over each quarter of the picture, through a learned Dense to the text's width.

    Quarters, and not the whole picture as in Reed et al., so that where something is can be told from the image: ours.

    Args:
        text_dim: width of the text vector.
    """

    def __init__(self, text_dim, **kwargs):
        super().__init__(**kwargs)
        self.text_dim = text_dim
        self.dense = keras.layers.Dense(text_dim, name="dense")

    def build(self, input_shape):
        quarters = math.prod(min(2, side) for side in input_shape[1:-1])
        self.dense.build((None, quarters * input_shape[-1]))

    def call(self, tap):
        """The tap, float [batch, height, width, channels] or [batch, channels] -> float [batch, text_dim]."""
        if len(tap.shape) == 4:
            height, width = (max(1, side // 2) for side in tap.shape[1:3])
            quarters = ops.average_pool(tap[:, : 2 * height, : 2 * width], (height, width), (height, width))
            tap = ops.reshape(quarters, (-1, self.dense.kernel.shape[0]))
        return self.dense(tap)

    def get_config(self):
        return {**super().get_config(), "text_dim": self.text_dim}


def build_joint_embedding(encoder, tap_shape):
    """The network that DS-SJE trains.

    Args:
        encoder: `TextFrontEnd.build_encoder()`'s model; its weights are shared, so that training here trains it, and
            `encoder.save_weights("NAME.weights.h5")` keeps it for `--text_weights`.
        tap_shape: shape of the teacher's tap without the batch: (height, width, channels) or (channels,).

    Returns:
        A `keras.Model`, {input_name: text features, "tap": float [batch, *tap_shape]} ->
        {"image": float [batch, text_dim], "text": float [batch, text_dim]}.
    """
    tap = keras.Input(tuple(tap_shape), name="tap")
    text_inputs = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name) for name, tensor in encoder.input.items()
    }
    text = encoder(text_inputs)
    image = ImageProjection(text.shape[-1], name="image_projection")(tap)
    return keras.Model({**text_inputs, "tap": tap}, {"image": image, "text": text}, name="joint_embedding")
