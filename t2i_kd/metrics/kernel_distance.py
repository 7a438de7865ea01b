"""The kernel distance between a network's features of generated and of reference pictures.

Source: Bińkowski et al., "Demystifying MMD GANs" (ICLR 2018), on another network's activations; over all pairs, where
the paper averages over subsets.
"""

import numpy as np

from t2i_kd.metrics.blocks import check_finite, row_blocks
from t2i_kd.metrics.resampling import Measurement


def _weighted_sums(one, other, weights, other_weights):
    """sum_ij w_i v_j k(x_i, y_j) with k(x, y) = (x . y / dim + 1)^3 for every row of weights: float [r], in blocks."""
    totals = np.zeros(len(weights))
    for i in row_blocks(one):
        rows = np.asarray(one[i], np.float64)
        for j in row_blocks(other):
            columns = np.asarray(other[j], np.float64)
            kernel = (rows @ columns.T / rows.shape[1] + 1) ** 3
            totals += np.einsum("ri,ri->r", weights[:, i] @ kernel, other_weights[:, j])
    return totals


def _within(vectors, weights):
    """The mean of k over the pairs of different vectors, each pair (i, j) counted w_i w_j times: float [r]."""
    squares = np.concatenate(
        [np.square(vectors[rows], dtype=np.float64).sum(1) / vectors.shape[1] for rows in row_blocks(vectors)]
    )
    same = np.square(weights)
    total = _weighted_sums(vectors, vectors, weights, weights) - same @ (squares + 1) ** 3
    return total / (np.square(weights.sum(1)) - same.sum(1))


def kernel_distance(one, other, weights=None, other_weights=None):
    """The unbiased estimate of the squared maximum mean discrepancy under k(x, y) = (x . y / dim + 1)^3.

    d = sum_{i != j} k(x_i, x_j) / (n (n - 1)) + sum_{i != j} k(y_i, y_j) / (m (m - 1)) - 2 sum_ij k(x_i, y_j) / (n m)

    In a resample, a pair of a vector with its own copy is left out like that of a vector with itself.

    Args:
        one, other: float [n, dim], [m, dim]; at least two vectors each.
        weights, other_weights: how often each vector counts, float [r, n] and [r, m]; None: once, r = 1.

    Returns:
        float64 [r]; values may be a little below 0 where the two come from one distribution.

    Raises:
        ValueError: for other shapes, fewer than two vectors, NaN or infinity.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"activations of shapes {one.shape} and {other.shape}")
    if min(len(one), len(other)) < 2:
        raise ValueError(f"{len(one)} and {len(other)} activations: at least two of each are needed")
    for vectors in (one, other):
        check_finite(vectors)
    weights = np.ones((1, len(one))) if weights is None else weights
    other_weights = np.ones((1, len(other))) if other_weights is None else other_weights
    between = _weighted_sums(one, other, weights, other_weights) / (weights.sum(1) * other_weights.sum(1))
    return _within(one, weights) + _within(other, other_weights) - 2 * between


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: too few pictures, or no extractor."""
    context.check_counts("kernel", 2)
    context.check_different("kernel")
    context.check_extractor()


def measure(context):
    """The kernel distance between a student's pictures of held-out captions and the held-out pictures.

    Args:
        context: an `EvaluationContext`; its extractor's activations are compared.

    Returns:
        A `Measurement`; beside it the distance of one half of the reference pictures to the other, and that of training
        pictures to the reference ones.

    Raises:
        UserError: naming `--num_captions` or the data set, where there are too few pictures.
    """
    check(context)
    generated, reference = context.activations("generated"), context.activations("reference")
    name = f"kernel_{context.features_name}_n{len(generated)}_n{len(reference)}"

    def statistic(generated_weights, reference_weights):
        return {name: kernel_distance(generated, reference, generated_weights, reference_weights)}

    protocol = context.extractor_protocol()
    anchor = context.activations("train")
    heading, half, other_half = context.reference_halves()
    baselines = {}
    for what, one, other in ((heading, half, other_half), (f"{len(anchor)} training pictures", anchor, reference)):
        if min(len(one), len(other)) > 1:
            baselines[what] = {name: float(kernel_distance(one, other)[0])}
    return Measurement(
        protocol,
        statistic,
        len(generated),
        len(reference),
        # Two pictures of one cluster are drawn together more often than others, so that they count more in a resample.
        biased=True,
        lower_is_better=True,
        pairs=context.pairs,
        baselines=baselines,
    )
