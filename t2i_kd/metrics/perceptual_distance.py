"""How different a made picture looks from the real picture of its caption: a distance between directions in VGG19.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018), section 3,
without the learned weights (w = 1), in VGG19 where the paper takes VGG16: the last convolution of each block. Not to be
compared with numbers of LPIPS.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.metrics.finite import require_finite
from t2i_kd.metrics.structural_similarity import measure_similarity

BATCH = 16
TAPS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")
# What a place of zeros is divided by; the authors' code has the same.
EPSILON = 1e-10


def lpips_like(taps_one, taps_other):
    """d_i = sum_l mean_p |u_l(p) - v_l(p)|^2 over taps l and places p of picture i.

    u_l(p) = phi_l(p) / (|phi_l(p)| + 1e-10), the direction of the channels' vector phi_l(p); v_l is that of the other
    picture.

    Args:
        taps_one, taps_other: {tap: float [n, height, width, channels]}, the same taps and shapes, of n pictures each.

    Returns:
        float64 [n], 0 or more; at most 2 for each tap where no activation is negative.

    Raises:
        ValueError: for no taps, where taps or shapes differ, or for NaN or infinity.
    """
    if not taps_one or set(taps_one) != set(taps_other):
        raise ValueError(f"no taps, or taps differ: {sorted(taps_one)} and {sorted(taps_other)}")
    total = 0.0
    for tap in taps_one:
        one, other = np.asarray(taps_one[tap]), np.asarray(taps_other[tap])
        if one.shape != other.shape or one.ndim != 4:
            raise ValueError(f"{tap}: shapes {one.shape} and {other.shape} are not one [n, height, width, channels]")
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            raise ValueError(f"{tap}: a value is NaN or infinite")
        # A picture at a time: a batch of shallow maps in float64 is large.
        apart = [np.square(_unit(u) - _unit(v)).sum(-1).mean() for u, v in zip(one, other, strict=True)]
        total = total + np.asarray(apart, np.float64)
    return total


def _unit(features):
    features = features.astype(np.float64)
    return features / (np.linalg.norm(features, axis=-1, keepdims=True) + EPSILON)


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: no teacher, or one that cannot be had."""
    if context.teacher.teacher == "none":
        raise UserError("--teacher: none sees nothing; perceptual_distance needs vgg19 or vgg19_slim")
    context.loaded_teacher  # noqa: B018 (loads it, or says why not)


def measure(context):
    """The mean `lpips_like` between a student's pictures of held-out captions and the real pictures of these captions.

    Args:
        context: an `EvaluationContext`; its teacher is the network that looks.

    Returns:
        The `Measurement` that `measure_similarity` describes, of a distance; its line is
        `lpips_like_TEACHER_POOLING_RESOLUTION_nPAIRS`.

    Raises:
        UserError: naming `--teacher` where there is none.
    """
    check(context)
    teacher = context.loaded_teacher
    network = keras.Model(teacher.input, {tap: teacher.output[tap] for tap in TAPS})
    protocol = context.teacher_protocol() | {"taps": " ".join(TAPS), "tap_weights": "1 each"}

    def distance(one, other):
        batches = [slice(start, start + BATCH) for start in range(0, len(one), BATCH)]
        return np.concatenate([lpips_like(_look(network, one[at]), _look(network, other[at])) for at in batches])

    measured = measure_similarity(context, f"lpips_like_{context.teacher_name}", distance, protocol)
    return dataclasses.replace(measured, lower_is_better=True)


def _look(network, images):
    taps = network(np.asarray(images, "float32"), training=False)
    return {tap: require_finite("--teacher", tap, ops.convert_to_numpy(value)) for tap, value in taps.items()}
