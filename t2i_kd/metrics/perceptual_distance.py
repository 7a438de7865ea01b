"""How different a generated picture looks from its caption's reference picture: directions of a teacher's features.

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
VGG19_TAPS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")
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


def compared_taps(teacher):
    """The taps whose directions are compared: VGG19's `VGG19_TAPS`, of another teacher the last map of each side.

    Args:
        teacher: `keras.Model` from images to {tap: map}; its `image`, the pixels themselves, is no feature.

    Returns:
        Names in the teacher's order; none where it has no map.
    """
    if set(VGG19_TAPS) <= set(teacher.output):
        return VGG19_TAPS
    maps = {name: map_ for name, map_ in teacher.output.items() if name != "image" and len(map_.shape) == 4}
    last_of_side = {map_.shape[1:3]: name for name, map_ in maps.items()}
    return tuple(name for name in maps if name in last_of_side.values())


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: no teacher, or one that cannot be had."""
    if not compared_taps(context.loaded_teacher):
        raise UserError(f"--teacher: {context.teacher.teacher} has no feature maps, which perceptual_distance compares")


def measure(context):
    """The mean `lpips_like` between a student's pictures of held-out captions and the reference pictures of these.

    Args:
        context: an `EvaluationContext`; the features are its teacher's, at `compared_taps`.

    Returns:
        The `Measurement` that `measure_similarity` describes, of a distance; its line is
        `lpips_like_TEACHER_POOLING_RESOLUTION_nPAIRS`.

    Raises:
        UserError: naming `--teacher` where there is none.
    """
    check(context)
    teacher = context.loaded_teacher
    protocol = context.teacher_protocol() | {"taps": " ".join(compared_taps(teacher)), "tap_weights": "1 each"}
    measured = measure_similarity(context, f"lpips_like_{context.teacher_name}", distance_by(teacher), protocol)
    return dataclasses.replace(measured, lower_is_better=True)


def distance_by(teacher):
    """A function from two sets of pictures, uint8 [n, side, side, 3], to their `lpips_like` in `compared_taps`."""
    network = keras.Model(teacher.input, {tap: teacher.output[tap] for tap in compared_taps(teacher)})

    def distance(one, other):
        batches = [slice(start, start + BATCH) for start in range(0, len(one), BATCH)]
        return np.concatenate(
            [lpips_like(_features(network, one[at]), _features(network, other[at])) for at in batches]
        )

    return distance


def _features(network, images):
    taps = network(np.asarray(images, "float32"), training=False)
    return {tap: require_finite("--teacher", tap, ops.convert_to_numpy(value)) for tap, value in taps.items()}
