"""SDN's two objectives: compare a student's tensors with its teacher's, tap by tap.

Stage I, `mirrored`: L_I = sum_l w_l d(phi_l(x), g_l(t)), with g_l the student's own tensor of the tap's name.
Stage II, `perceptual`: L_II = sum_l w_l d(phi_l(x), phi_l(G(t))), with the teacher's view of the made image.
x is a real image, t its caption, phi the teacher, d the mean over all elements of an error.

Source: Yuan & Peng (ACM MM 2018) and the authors' code, where d is the absolute error and every w_l is 1. The other
errors and the normalised weights are ours.

Normalised taps are divided by their typical size s_l, in which raw VGG19 maps differ a thousandfold. In a normalised
Stage I the student's tensors stand for phi_l(x) / s_l themselves: a generator whose layers keep the variance starts
at that size, and would first have to learn the teacher's units. Only its image keeps 0-255.
"""

from keras import ops

OBJECTIVES = ("mirrored", "perceptual")
CHARBONNIER_EPSILON = 1e-3


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


def tap_errors(real, made, error, scales, made_scales=None, progress=0.0):
    """Each tap's error: d_l = mean e(a_l / s_l - b_l / r_l), over all elements, in float32.

    e is |u| (`l1`), u^2 (`squared`), sqrt(u^2 + 1e-6) - 1e-3 (`charbonnier`), or sqrt(u^2 + E^2) - E (`annealed`),
    where E falls from 1 to 1e-3 as 10^(-3 p) over the stage: near u^2 / 2 at its start, near |u| at its end.

    Args:
        real, made: {tap: a_l}, {tap: b_l}, tensors [batch, height, width, channels]; only the names of `scales` are
            read.
        error: a name in `ERRORS`.
        scales: {tap: s_l}, the taps that are compared; 1 for raw taps, the tap's typical size for normalised ones.
        made_scales: {tap: r_l}; None: the same as `scales`.
        progress: p, the share of the stage that is behind, 0 to 1; only `annealed` reads it.

    Returns:
        {tap: float32 scalar}.
    """
    measure = ERRORS[error]
    made_scales = made_scales or scales
    return {
        name: ops.mean(
            measure(
                ops.cast(real[name], "float32") / scale - ops.cast(made[name], "float32") / made_scales[name], progress
            )
        )
        for name, scale in scales.items()
    }
