"""How discriminators tell real from generated, and what they pay for steep slopes.

Scores are high for real. With s a score:

    hinge: l_real(s) = max(0, 1 - s),    l_fake(s) = max(0, 1 + s),    generator: -s
    bce:   l_real(s) = log(1 + e^-s),    l_fake(s) = log(1 + e^s),     generator: l_real(s)
    lsgan: l_real(s) = (1 - s)^2,        l_fake(s) = s^2,              generator: l_real(s)

Sources: hinge, Lim & Ye, "Geometric GAN" (2017); bce with the non-saturating generator, Goodfellow et al. (NIPS 2014);
lsgan, Mao et al. (ICCV 2017); r1, Mescheder et al. (ICML 2018); ma_gp, Tao et al., "DF-GAN" (CVPR 2022).
"""

import keras
from keras import ops

from t2i_kd.imaging import HALF_RANGE

# Of r1, in gamma / 2 sum g^2; of ma_gp, DF-GAN's k, whose exponent is 6.
USUAL_WEIGHTS = {"r1": 1.0, "ma_gp": 2.0}
MA_GP_EXPONENT = 6


KINDS = {
    "hinge": (lambda scores: ops.relu(1 - scores), lambda scores: ops.relu(1 + scores)),
    "bce": (lambda scores: ops.softplus(-scores), ops.softplus),
    "lsgan": (lambda scores: ops.square(1 - scores), ops.square),
}


def real_loss(kind, scores):
    """l_real of each score. Args: kind: of `KINDS`; scores: float array."""
    return KINDS[kind][0](scores)


def fake_loss(kind, scores):
    """l_fake of each score. Args: kind: of `KINDS`; scores: float array."""
    return KINDS[kind][1](scores)


def generator_loss(kind, scores):
    """The generator's loss of each score. Args: kind: of `KINDS`; scores: float array."""
    return -scores if kind == "hinge" else real_loss(kind, scores)


def input_gradients(function, inputs):
    """Each row's gradient of its own score, on TensorFlow and on JAX.

    Args:
        function: from the inputs to scores [batch], a row's score a function of that row alone.
        inputs: list of tensors [batch, ...].

    Returns:
        A list of tensors of the inputs' shapes, differentiable themselves.
    """
    if keras.backend.backend() == "jax":
        import jax

        return list(jax.grad(lambda given: ops.sum(function(*given)))(list(inputs)))
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        scores = function(*inputs)
    return tape.gradient(scores, inputs)


def squared_norm(values):
    """Sum v^2 of each row, float32 [batch]."""
    values = ops.cast(values, "float32")
    return ops.sum(ops.square(values), axis=tuple(range(1, len(values.shape))))


def gradient_penalty(kind, score, images, texts, weight=0.0):
    """What a discriminator pays for its slopes at real pictures with their own captions.

    With g_x the gradient of a score to the picture, in half ranges (127.5), and g_t that to the text vector:

        r1:    w / 2 mean |g_x|^2
        ma_gp: w mean (|g_x|^2 + |g_t|^2)^(p / 2), p = 6. DF-GAN's code takes the two norms together, as here.

    Args:
        kind: `r1` or `ma_gp`.
        score: from (images, texts) to scores [batch].
        images: float [batch, side, side, 3] in 0-255.
        texts: float [batch, dim].
        weight: w; 0: the method's usual one.

    Returns:
        A float32 scalar.
    """
    weight = weight or USUAL_WEIGHTS[kind]
    if kind == "r1":
        (slope,) = input_gradients(lambda pictures: score(pictures, texts), [images])
        return weight / 2 * ops.mean(squared_norm(slope * HALF_RANGE))
    slope, text_slope = input_gradients(score, [images, texts])
    squared = squared_norm(slope * HALF_RANGE) + squared_norm(text_slope)
    return weight * ops.mean(squared ** (MA_GP_EXPONENT // 2))
