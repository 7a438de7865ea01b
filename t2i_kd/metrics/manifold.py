"""Whether made pictures lie where real ones do, and real ones where made ones do: nearest neighbours of activations.

Sources: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models" (NeurIPS 2019), and
Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (ICML 2020).
"""

import numpy as np
from scipy.spatial.distance import cdist

from t2i_kd.metrics.blocks import check_finite, row_blocks
from t2i_kd.metrics.resampling import Measurement

NEIGHBOURS = 5


def manifold_contributions(made, real, neighbours=NEIGHBOURS):
    """What each picture contributes to precision, density, recall and coverage, which are their means.

    With r(x) the distance from x to its k-th nearest neighbour in its own set, itself left out, y_i made, x_j real:

        precision_i = [|y_i - x_j| <= r(x_j) for some j],   density_i = #{j: |y_i - x_j| <= r(x_j)} / k,
        recall_j = [|y_i - x_j| <= r(y_i) for some i],      coverage_j = [|y_i - x_j| <= r(x_j) for some i].

    Balls are closed, as in Kynkäänniemi et al., equation 1, so that repeated pictures, whose r is 0, find each other.

    Args:
        made, real: float [n, dim], [m, dim]; more than k vectors each.
        neighbours: k.

    Returns:
        {"precision", "density": float64 [n], "recall", "coverage": float64 [m]}; 0 or 1, density 0 to m / k.

    Raises:
        ValueError: for other shapes, k vectors or fewer, NaN or infinity.
    """
    if made.ndim != 2 or real.ndim != 2 or made.shape[1] != real.shape[1]:
        raise ValueError(f"activations of shapes {made.shape} and {real.shape}")
    if min(len(made), len(real)) <= neighbours:
        raise ValueError(f"{len(made)} and {len(real)} activations: more than {neighbours} of each are needed")
    for vectors in (made, real):
        check_finite(vectors)
    made_radii, real_radii = _radii(made, neighbours), _radii(real, neighbours)
    precision, density = np.zeros(len(made)), np.zeros(len(made))
    recall, coverage = np.zeros(len(real)), np.zeros(len(real))
    for rows in row_blocks(made):
        for columns, distances in _distances(made[rows], real):
            in_real = distances <= real_radii[columns]
            precision[rows] = np.maximum(precision[rows], in_real.any(1))
            density[rows] += in_real.sum(1) / neighbours
            coverage[columns] = np.maximum(coverage[columns], in_real.any(0))
            recall[columns] = np.maximum(recall[columns], (distances <= made_radii[rows, None]).any(0))
    return {"precision": precision, "density": density, "recall": recall, "coverage": coverage}


def _distances(block, vectors):
    """Blocks of the vectors' rows, with the Euclidean distances of a block of others to them, float64.

    Differences are squared, not x.x - 2 x.y + y.y, whose rounding would decide about pictures that are the same.
    """
    block = np.asarray(block, np.float64)
    for columns in row_blocks(vectors):
        yield columns, cdist(block, np.asarray(vectors[columns], np.float64))


def _radii(vectors, neighbours):
    radii = np.empty(len(vectors))
    for rows in row_blocks(vectors):
        # The nearest of all is the vector itself.
        nearest = np.empty((len(radii[rows]), 0))
        for _, distances in _distances(vectors[rows], vectors):
            nearest = np.concatenate([nearest, distances], axis=1)
            nearest.partition(min(neighbours, nearest.shape[1] - 1), axis=1)
            nearest = nearest[:, : neighbours + 1]
        radii[rows] = nearest.max(1)
    return radii


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: too few pictures, or no extractor."""
    context.check_counts("manifold", NEIGHBOURS + 1)
    context.check_extractor()


def measure(context):
    """Precision and density of a student's pictures, recall and coverage of the held-out ones.

    Resamples weigh the contributions of `manifold_contributions`; the sets that span the manifolds, and so the radii,
    stay whole.

    Args:
        context: an `EvaluationContext`; all pictures of the test split are the real ones.

    Returns:
        A `Measurement` with lines precision_, density_, recall_ and coverage_{view}_n{made}_n{real};
        beside it one half of the real pictures as if made, with the other as real, and training pictures as if made.

    Raises:
        UserError: naming `--num_captions` or the data set, where there are too few pictures.
    """
    check(context)
    made, real = context.num_captions, len(context.split("test"))
    found = manifold_contributions(context.activations("made"), context.activations("real"))
    suffix = f"{context.view}_n{made}_n{real}"

    def statistic(made_weights, real_weights):
        over = {"precision": made_weights, "density": made_weights, "recall": real_weights, "coverage": real_weights}
        return {f"{name}_{suffix}": weights @ found[name] / weights.sum(1) for name, weights in over.items()}

    counts = {"neighbours": NEIGHBOURS, "made": made, "real": real}
    protocol = context.extractor_protocol() | counts
    beside, anchor = {}, context.activations("train")
    heading, half, other_half = context.real_halves()
    training = (f"{len(anchor)} training pictures", anchor, context.activations("real"))
    for what, one, other in ((heading, half, other_half), training):
        if min(len(one), len(other)) > NEIGHBOURS:
            of_anchor = manifold_contributions(one, other)
            beside[what] = {f"{name}_{suffix}": float(values.mean()) for name, values in of_anchor.items()}
    return Measurement(protocol, statistic, made, real, pairs=context.pairs, beside=beside)
