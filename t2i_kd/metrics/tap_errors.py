"""How far a teacher's taps of two pictures are from each other: what stages minimise and `tap_distance` measures."""

from dataclasses import dataclass

import numpy as np
from keras import ops

CHARBONNIER_EPSILON = 1e-3
# Images that the taps' sizes are measured on, and how many of them at a time.
SCALE_IMAGES, SCALE_BATCH = 128, 16
SMALLEST_SCALE = 1e-6


def _l1(difference, progress):
    return ops.abs(difference)


def _squared(difference, progress):
    return ops.square(difference)


def _charbonnier(difference, progress, epsilon=CHARBONNIER_EPSILON):
    return ops.sqrt(ops.square(difference) + epsilon**2) - epsilon


def _annealed(difference, progress):
    return _charbonnier(difference, progress, CHARBONNIER_EPSILON**progress)


ERRORS = {"l1": _l1, "squared": _squared, "charbonnier": _charbonnier, "annealed": _annealed}
SCALINGS = ("raw", "normalised")


@dataclass(frozen=True)
class TapObjective:
    """What a stage with a teacher's taps minimises: sum_l w_l d_l, see `tap_errors`.

    Attributes:
        error: a name in `ERRORS`.
        scaling: `raw`, every s_l = 1, or `normalised`, s_l as `tap_scales` measures them on the training pictures.
        tap_weights: pairs (tap or pattern, w_l), as a stage says them; empty: every tap 1.
    """

    error: str
    scaling: str
    tap_weights: tuple[tuple[str, float], ...] = ()


def tap_errors(reference, generated, error, scales, generated_scales=None, progress=0.0, per_image=False):
    """Each tap's error: d_l = mean e(a_l / s_l - b_l / r_l), over all elements, in float32.

    e is |u| (`l1`), u^2 (`squared`), sqrt(u^2 + 1e-6) - 1e-3 (`charbonnier`), or sqrt(u^2 + E^2) - E (`annealed`),
    where E falls from 1 to 1e-3 as 10^(-3 p) over the stage: near u^2 / 2 at its start, near |u| at its end.

    Args:
        reference, generated: {tap: a_l}, {tap: b_l}, tensors [batch, height, width, channels]; only the names of
            `scales` are read.
        error: a name in `ERRORS`.
        scales: {tap: s_l}, the taps that are compared; 1 for raw taps, the tap's typical size for normalised ones.
        generated_scales: {tap: r_l}; None: the same as `scales`.
        progress: p, the share of the stage that is behind, 0 to 1; only `annealed` reads it.
        per_image: the mean over each image's elements by itself.

    Returns:
        {tap: float32 scalar}, or [batch] per image.
    """
    measure = ERRORS[error]
    generated_scales = generated_scales or scales
    errors = {
        name: measure(
            ops.cast(reference[name], "float32") / scale
            - ops.cast(generated[name], "float32") / generated_scales[name],
            progress,
        )
        for name, scale in scales.items()
    }
    return {
        name: ops.mean(each, axis=tuple(range(1, len(each.shape))) if per_image else None)
        for name, each in errors.items()
    }


def tap_scales(teacher, images):
    """The typical size of each tap: s_l = sqrt(mean (phi_l(x) - m_l)^2), m_l the tap's mean per channel.

    With these, a student that only knows each channel's mean has a squared error of 1 in every tap. Source: ours.

    Args:
        teacher: a teacher.
        images: uint8 [n, resolution, resolution, 3], an array or a reader; 128 of them, evenly spaced, are measured.

    Returns:
        {tap: float}, at least 1e-6.
    """
    chosen = np.linspace(0, len(images) - 1, min(SCALE_IMAGES, len(images))).astype(int)
    batches = [chosen[start : start + SCALE_BATCH] for start in range(0, len(chosen), SCALE_BATCH)]
    found = [_forward(teacher, np.stack([images[i] for i in batch])) for batch in batches]
    return {name: _spread(np.concatenate([batch[name] for batch in found])) for name in found[0]}


def _forward(teacher, images):
    taps = teacher(images.astype("float32"), training=False)
    return {name: ops.convert_to_numpy(values) for name, values in taps.items()}


def _spread(values):
    deviations = values - values.mean((0, 1, 2), dtype="float64")
    return max(float(np.sqrt(np.mean(np.square(deviations)))), SMALLEST_SCALE)
