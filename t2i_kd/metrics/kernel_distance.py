"""The kernel distance between what a network sees in made and in real pictures.

Source: Bińkowski et al., "Demystifying MMD GANs" (ICLR 2018), on another network's activations; over all pairs, where
the paper averages over subsets.
"""

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.metrics.activations import activation_batches, activation_protocol

BLOCK = 512


def _kernel_sum(one, other):
    """The sum over all pairs of k(x, y) = (x . y / dim + 1)^3, in blocks."""
    total = 0.0
    for i in range(0, len(one), BLOCK):
        for j in range(0, len(other), BLOCK):
            total += float(((one[i : i + BLOCK] @ other[j : j + BLOCK].T / one.shape[1] + 1) ** 3).sum())
    return total


def kernel_distance(one, other):
    """The unbiased estimate of the squared maximum mean discrepancy under k(x, y) = (x . y / dim + 1)^3.

    d = sum_{i != j} k(x_i, x_j) / (n (n - 1)) + sum_{i != j} k(y_i, y_j) / (m (m - 1)) - 2 sum_ij k(x_i, y_j) / (n m)

    Args:
        one, other: float [n, dim], [m, dim]; at least two vectors each.

    Returns:
        A float; it may be a little below 0 where the two come from one distribution.

    Raises:
        ValueError: for other shapes, fewer than two vectors, NaN or infinity.
    """
    one, other = (np.asarray(each, np.float64) for each in (one, other))
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"activations of shapes {one.shape} and {other.shape}")
    if min(len(one), len(other)) < 2:
        raise ValueError(f"{len(one)} and {len(other)} activations: at least two of each are needed")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("activations hold NaN or infinity")
    within = 0.0
    for each in (one, other):
        diagonal = ((np.square(each).sum(1) / each.shape[1] + 1) ** 3).sum()
        within += (_kernel_sum(each, each) - diagonal) / (len(each) * (len(each) - 1))
    return float(within - 2 * _kernel_sum(one, other) / (len(one) * len(other)))


def measure(context):
    """The kernel distance between a student's pictures of held-out captions and the held-out pictures.

    Args:
        context: an `EvaluationContext`; see `activation_batches`.

    Raises:
        UserError: naming `--num_captions` or the data set, where there are too few pictures.
    """
    found = {name: np.concatenate(list(batches)) for name, batches in activation_batches(context).items()}
    made, real = found["made"], found["real"]
    for flag, count in (("--num_captions", len(made)), ("--dataset", len(real))):
        if count < 2:
            raise UserError(f"{flag}: kernel_distance needs at least two pictures, not {count}")
    name, protocol = activation_protocol(context, "kernel", len(made), len(real))
    return {"protocol": protocol, "values": {name: kernel_distance(made, real)}}
