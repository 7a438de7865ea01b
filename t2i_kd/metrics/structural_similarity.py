"""SSIM: how alike a generated picture and its caption's reference picture are, in brightness, contrast and structure.

Source: Wang, Bovik, Sheikh & Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity"
(IEEE TIP 2004), section III-B and C, with the authors' constants, on the three colour channels.
"""

import numpy as np
from scipy import ndimage

from t2i_kd.errors import UserError
from t2i_kd.metrics import resampling, sampling

BATCH = 32
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
LEVELS = 255


def ssim(one, other):
    """The mean over channels and over all whole windows of

    (2 m_x m_y + C_1) (2 s_xy + C_2) / ((m_x^2 + m_y^2 + C_1) (s_x^2 + s_y^2 + C_2)),  C_i = (K_i L)^2

    m, s^2 and s_xy are the means, variances and covariance under a Gaussian window of 11 x 11 pixels with standard
    deviation 1.5 and sum 1 (s_xy = E[xy] - m_x m_y), K_1 = 0.01, K_2 = 0.03, L = 255. The paper has grey pictures.

    Args:
        one, other: uint8 or float [n, height, width, 3] in 0-255, sides of 11 or more.

    Returns:
        float64 [n] in -1 to 1; 1 for equal pictures.

    Raises:
        ValueError: as `check_pictures` does.
    """
    one, other = check_pictures(one, other, WINDOW)
    mean_one, mean_other = _windowed(one), _windowed(other)
    variances = _windowed(one**2) - mean_one**2 + _windowed(other**2) - mean_other**2
    covariance = _windowed(one * other) - mean_one * mean_other
    c1, c2 = (K1 * LEVELS) ** 2, (K2 * LEVELS) ** 2
    luminance = (2 * mean_one * mean_other + c1) / (mean_one**2 + mean_other**2 + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean((1, 2, 3))


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: pictures that no window fits into."""
    check_side(context, "ssim", WINDOW)


def measure(context):
    """The mean `ssim` of a student's pictures of held-out captions to the reference pictures of these captions.

    Args:
        context: an `EvaluationContext`.

    Returns:
        The `Measurement` that `measure_similarity` describes; its line is `ssim_RESOLUTION_nPAIRS`.
    """
    constants = {
        "window": f"Gaussian {WINDOW} x {WINDOW}, sigma {SIGMA}",
        "K1": K1,
        "K2": K2,
        "L": LEVELS,
        "channels": "mean of red, green, blue",
    }
    check(context)
    return measure_similarity(context, "ssim", ssim, constants)


def check_side(context, metric, smallest):
    """Raises `UserError` where a student's pictures are smaller than a metric needs."""
    if context.student.resolution < smallest:
        raise UserError(
            f"--metrics: {metric} needs pictures of {smallest} pixels or more, not of {context.student.resolution}"
        )


def check_pictures(one, other, smallest):
    """Two sets of pictures as float64.

    Args:
        one, other: uint8 or float [n, height, width, 3] in 0-255.
        smallest: the least height and width.

    Raises:
        ValueError: for other shapes, shapes that differ, a side below `smallest`, NaN, or values outside 0-255.
    """
    one, other = (np.asarray(each, np.float64) for each in (one, other))
    if one.shape != other.shape or one.ndim != 4 or one.shape[3] != 3:
        raise ValueError(f"pictures of shapes {one.shape} and {other.shape}: both must be the same [n, h, w, 3]")
    if min(one.shape[1:3]) < smallest:
        raise ValueError(f"pictures of {one.shape[1]} x {one.shape[2]} pixels: sides of {smallest} or more are needed")
    for each in (one, other):
        if np.isnan(each).any():
            raise ValueError("pictures hold NaN")
        if each.size and not (each.min() >= 0 and each.max() <= LEVELS):
            raise ValueError(f"pictures hold values from {each.min():g} to {each.max():g}, outside 0-{LEVELS}")
    return one, other


def measure_similarity(context, name, similarity, constants):
    """How similar a student's pictures of held-out captions are to the reference pictures of these captions.

    Its baseline is what unrelated pictures get: the mean similarity of every reference picture that was asked for to
    another one, half of their number further on in the random order of the pairs.

    Args:
        context: an `EvaluationContext`.
        name: of the metric, for the line NAME_RESOLUTION_nPAIRS.
        similarity: (uint8 [n, h, w, 3], uint8 [n, h, w, 3]) -> float64 [n].
        constants: what the protocol says of the metric.

    Returns:
        A `Measurement` with a sample per pair; the column `another real picture` needs two pictures or more.
    """
    images, pictures = context.split("test").images, [picture for picture, _ in context.pairs]
    line = f"{name}_{context.student.resolution}_n{len(pictures)}"
    found = np.concatenate(
        [
            similarity(context.generated[start : start + BATCH], _stacked(images, pictures[start : start + BATCH]))
            for start in range(0, len(pictures), BATCH)
        ]
    )
    distinct, others = ([pictures[row] for row in rows] for rows in sampling.unrelated(context.pairs))
    unrelated = [
        similarity(_stacked(images, distinct[start : start + BATCH]), _stacked(images, others[start : start + BATCH]))
        for start in range(0, len(distinct) if len(distinct) > 1 else 0, BATCH)
    ]
    return resampling.Measurement(
        protocol={**context.protocol(), "pictures": len(distinct), **constants},
        statistic=resampling.mean_of({line: found}),
        generated=len(pictures),
        samples={line: found},
        pairs=context.pairs,
        pictures=context.generated,
        baselines={"another real picture": {line: float(np.concatenate(unrelated).mean())}} if unrelated else {},
    )


def _windowed(values):
    """Gaussian means over the whole windows of [n, h, w, 3]."""
    margin = WINDOW // 2
    window = np.exp(-np.square(np.arange(-margin, margin + 1)) / (2 * SIGMA**2))
    window /= window.sum()
    for axis in (1, 2):
        values = ndimage.correlate1d(values, window, axis)
    return values[:, margin:-margin, margin:-margin]


def _stacked(images, indices):
    return np.stack([images[index] for index in indices])
