"""An affine map that makes text vectors white, for a student to start from."""

import numpy as np

# Variances below this share of the largest are not blown up further.
FLOOR = 1e-3
# Vectors whose largest variance is below this share of their mean square differ by rounding alone.
ROUNDING = 1e-10


def whitening_map(vectors):
    """The symmetric (ZCA) whitening of a set of vectors.

    With mean m and covariance C = U diag(l) U^T: y = (x - m) U diag((l + 1e-3 max l)^-1/2) U^T, so that y has mean 0
    and, but for directions that hardly vary, covariance I; of vectors that are all alike y = x - m. Source: Bell
    & Sejnowski (1997).

    Args:
        vectors: float [n, width].

    Returns:
        (kernel float32 [width, width], bias float32 [width]) of a dense layer y = x kernel + bias.
    """
    vectors = np.asarray(vectors, np.float64)
    mean = vectors.mean(0)
    variances, directions = np.linalg.eigh(np.cov(vectors - mean, rowvar=False))
    variances = np.maximum(variances, 0)
    if variances.max() <= ROUNDING * np.mean(np.square(vectors)):
        scales = np.ones_like(variances)
    else:
        scales = 1 / np.sqrt(variances + FLOOR * variances.max())
    kernel = (directions * scales) @ directions.T
    return kernel.astype("float32"), (-mean @ kernel).astype("float32")
