"""FSIM: how alike a generated picture and its caption's reference picture are where either has edges or corners.

Source: Zhang, Zhang, Mou & Zhang, "FSIM: A Feature Similarity Index for Image Quality Assessment" (IEEE TIP 2011),
section III, on luminance; constants, borders and downsampling are those of the authors' FeatureSIM.m. Phase congruency:
Kovesi, "Image Features from Phase Congruency" (Videre 1999).
"""

import functools

import numpy as np
from scipy import ndimage

from t2i_kd.metrics.structural_similarity import LEVELS, check_pictures, check_side, measure_similarity

LUMINANCE = (0.299, 0.587, 0.114)
# The side, in pixels, that pictures are averaged down to.
VIEWED_SIDE = 256
SCALES, ORIENTATIONS = 4, 4
# Of the smallest scale, in pixels; each further scale's is twice the one before.
WAVELENGTH, WAVELENGTH_FACTOR = 6, 2
RADIAL_SIGMA = 0.55
ANGULAR_SIGMA = np.pi / ORIENTATIONS / 1.2
CUTOFF, ORDER = 0.45, 15
NOISE_SIGMAS, NOISE_SCALE = 2.0, 1.7
# Keeps the mean phase defined where nothing answers.
EPSILON = 1e-4
T1, T2 = 0.85, 160
SCHARR = np.array([[3, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16


def fsim(one, other):
    """FSIM = sum S_PC S_G PC_m / sum PC_m over all pixels of the luminance 0.299 R + 0.587 G + 0.114 B.

    S_PC = (2 PC_1 PC_2 + T_1) / (PC_1^2 + PC_2^2 + T_1),  S_G = (2 G_1 G_2 + T_2) / (G_1^2 + G_2^2 + T_2)

    PC is `phase_congruency`, PC_m = max(PC_1, PC_2), G the length of the Scharr gradient with zeros outside of the
    picture, T_1 = 0.85, T_2 = 160. Where PC_m is 0 everywhere (no structure in either picture), the weights are equal.
    Pictures of 384 pixels or more are averaged in squares of max(1, round(shorter side / 256)) pixels first.

    Args:
        one, other: uint8 or float [n, height, width, 3] in 0-255, sides of 6 (the shortest wavelength) or more.

    Returns:
        float64 [n] in 0-1, above 0; 1 for equal luminance.

    Raises:
        ValueError: as `check_pictures` does.
    """
    one, other = (_downsampled(each @ LUMINANCE) for each in check_pictures(one, other, WAVELENGTH))
    congruency_one, congruency_other = phase_congruency(one), phase_congruency(other)
    similarity = _similarity(congruency_one, congruency_other, T1) * _similarity(_gradient(one), _gradient(other), T2)
    weights = np.maximum(congruency_one, congruency_other)
    weights[~weights.any((1, 2))] = 1
    return (similarity * weights).sum((1, 2)) / weights.sum((1, 2))


def phase_congruency(luminance):
    """PC = sum_o max(E_o - T_o, 0) / sum_o sum_s |r_so|, r_so the responses of complex log-Gabor filters.

    E_o = sum_s Re(r_so u_o*) - |Im(r_so u_o*)|,  u_o = sum_s r_so / (|sum_s r_so| + epsilon)

    T_o = (tau sqrt(pi / 2) + 2 tau sqrt(2 - pi / 2)) / 1.7 is the energy that noise alone would have, with
    tau^2 = median |r_1o|^2 / (ln 2 sum F_1o^2) * N sum (sum_s Re f_so)^2, F the filters, f their inverse transforms, N
    the number of pixels: noise is estimated from the smallest scale and carried over to the sum of all.

    Args:
        luminance: float64 [n, h, w].

    Returns:
        float64 [n, h, w] in 0-1; 0 where no filter answers (the authors' code has 0 / 0 there).
    """
    # No filter answers to the level; without it, nor do they to its rounding errors.
    spectrum = np.fft.fft2(luminance - luminance[:, :1, :1])
    energy, amplitude = np.zeros(luminance.shape), np.zeros(luminance.shape)
    for filters, noise_gain in zip(*_log_gabor_filters(*luminance.shape[1:]), strict=True):
        responses = np.fft.ifft2(spectrum[:, None] * filters)
        total = responses.sum(1, keepdims=True)
        aligned = responses * (total / (np.abs(total) + EPSILON)).conj()
        tau = np.sqrt(np.median(np.abs(responses[:, 0]) ** 2, (1, 2), keepdims=True) * noise_gain)
        noise = tau * (np.sqrt(np.pi / 2) + NOISE_SIGMAS * np.sqrt(2 - np.pi / 2)) / NOISE_SCALE
        energy += np.maximum((aligned.real - np.abs(aligned.imag)).sum(1) - noise, 0)
        amplitude += np.abs(responses).sum(1)
    return np.divide(energy, amplitude, out=np.zeros_like(energy), where=amplitude > 0)


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: pictures smaller than the shortest wavelength."""
    check_side(context, "fsim", WAVELENGTH)


def measure(context):
    """The mean `fsim` of a student's pictures of held-out captions to the reference pictures of these captions.

    Args:
        context: an `EvaluationContext`.

    Returns:
        The `Measurement` that `measure_similarity` describes; its line is `fsim_RESOLUTION_nPAIRS`.
    """
    constants = {
        "channels": "luminance of YIQ",
        "L": LEVELS,
        "T1": T1,
        "T2": T2,
        "phase congruency": f"{SCALES} scales from {WAVELENGTH} pixels by {WAVELENGTH_FACTOR}, "
        f"{ORIENTATIONS} orientations",
    }
    check(context)
    return measure_similarity(context, "fsim", fsim, constants)


@functools.lru_cache(maxsize=4)
def _log_gabor_filters(height, width):
    """Transfer functions, float64 [orientations, scales, height, width], and each orientation's tau^2 / median."""
    # With an odd side the authors stretch the frequencies so that the outermost is 0.5.
    vertical, horizontal = (np.fft.fftfreq(side, 1 / side) / (side - side % 2) for side in (height, width))
    radius, angle = np.hypot(vertical[:, None], horizontal), np.arctan2(-vertical[:, None], horizontal)
    low_pass = 1 / (1 + (radius / CUTOFF) ** (2 * ORDER))
    radius[0, 0] = 1
    wavelengths = WAVELENGTH * WAVELENGTH_FACTOR ** np.arange(SCALES)[:, None, None]
    radial = np.exp(-(np.log(radius * wavelengths) ** 2) / (2 * np.log(RADIAL_SIGMA) ** 2)) * low_pass
    radial[:, 0, 0] = 0
    directions = np.arange(ORIENTATIONS)[:, None, None] * np.pi / ORIENTATIONS
    angular = np.exp(-(np.angle(np.exp(1j * (angle - directions))) ** 2) / (2 * ANGULAR_SIGMA**2))
    filters = angular[:, None] * radial
    power = np.square(np.fft.ifft2(filters).real.sum(1)).sum((1, 2)) * height * width
    return filters, power / np.square(filters[:, 0]).sum((1, 2)) / np.log(2)


def _downsampled(luminance):
    """Averages squares of [n, h, w], as MATLAB's conv2 with zeros outside and every factor-th pixel."""
    # Half up, as MATLAB rounds.
    factor = max(1, int(min(luminance.shape[1:]) / VIEWED_SIDE + 0.5))
    for axis in (1, 2):
        luminance = ndimage.convolve1d(luminance, np.full(factor, 1 / factor), axis, mode="constant")
    return luminance[:, ::factor, ::factor]


def _gradient(luminance):
    kernels = SCHARR[None], SCHARR.T[None]
    return np.hypot(*(ndimage.convolve(luminance, kernel, mode="constant") for kernel in kernels))


def _similarity(one, other, constant):
    return (2 * one * other + constant) / (one**2 + other**2 + constant)
