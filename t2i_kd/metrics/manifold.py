"""Whether generated pictures lie where reference ones do, and the other way round: nearest neighbours of features.

Sources: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models" (NeurIPS 2019), and
Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (ICML 2020).
"""

import numpy as np
from scipy.spatial.distance import cdist

from t2i_kd.metrics.blocks import check_finite, row_blocks
from t2i_kd.metrics.resampling import Measurement

NEIGHBOURS = 5


def manifold_contributions(generated, reference, neighbours=NEIGHBOURS):
    """What each picture contributes to precision, density, recall and coverage, which are their means.

    With r(x) the distance from x to its k-th nearest neighbour in its own set, itself left out, y_i generated, x_j
    of the reference:

        precision_i = [|y_i - x_j| <= r(x_j) for some j],   density_i = #{j: |y_i - x_j| <= r(x_j)} / k,
        recall_j = [|y_i - x_j| <= r(y_i) for some i],      coverage_j = [|y_i - x_j| <= r(x_j) for some i].

    Balls are closed, as in Kynkäänniemi et al., equation 1, so that repeated pictures, whose r is 0, find each other.

    Args:
        generated, reference: float [n, dim], [m, dim]; more than k vectors each.
        neighbours: k.

    Returns:
        {"precision", "density": float64 [n], "recall", "coverage": float64 [m]}; 0 or 1, density 0 to m / k.

    Raises:
        ValueError: for other shapes, k vectors or fewer, NaN or infinity.
    """
    if generated.ndim != 2 or reference.ndim != 2 or generated.shape[1] != reference.shape[1]:
        raise ValueError(f"activations of shapes {generated.shape} and {reference.shape}")
    if min(len(generated), len(reference)) <= neighbours:
        raise ValueError(
            f"{len(generated)} and {len(reference)} activations: more than {neighbours} of each are needed"
        )
    for vectors in (generated, reference):
        check_finite(vectors)
    generated_radii, reference_radii = _radii(generated, neighbours), _radii(reference, neighbours)
    precision, density = np.zeros(len(generated)), np.zeros(len(generated))
    recall, coverage = np.zeros(len(reference)), np.zeros(len(reference))
    for rows in row_blocks(generated):
        for columns, distances in _distances(generated[rows], reference):
            in_reference = distances <= reference_radii[columns]
            precision[rows] = np.maximum(precision[rows], in_reference.any(1))
            density[rows] += in_reference.sum(1) / neighbours
            coverage[columns] = np.maximum(coverage[columns], in_reference.any(0))
            recall[columns] = np.maximum(recall[columns], (distances <= generated_radii[rows, None]).any(0))
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
    context.check_different("manifold")
    context.check_extractor()


def measure(context):
    """Precision and density of a student's pictures, recall and coverage of the held-out ones.

    Resamples weigh the contributions of `manifold_contributions`; the sets that span the manifolds, and so the radii,
    stay whole.

    Args:
        context: an `EvaluationContext`; all pictures of the test split are the reference ones.

    Returns:
        A `Measurement` with lines precision_, density_, recall_ and coverage_{features}_n{generated}_n{reference};
        its baselines take one half of the reference pictures, with the other as reference, and training pictures in the
        place of the generated ones.

    Raises:
        UserError: naming `--num_captions` or the data set, where there are too few pictures.
    """
    check(context)
    activations = [context.activations(kind) for kind in ("generated", "reference")]
    found = manifold_contributions(*activations)
    generated, reference = map(len, activations)
    suffix = f"{context.features_name}_n{generated}_n{reference}"

    def statistic(generated_weights, reference_weights):
        over = {
            "precision": generated_weights,
            "density": generated_weights,
            "recall": reference_weights,
            "coverage": reference_weights,
        }
        return {f"{name}_{suffix}": weights @ found[name] / weights.sum(1) for name, weights in over.items()}

    counts = {"neighbours": NEIGHBOURS, "generated": generated, "reference": reference}
    protocol = context.extractor_protocol() | counts
    baselines, anchor = {}, context.activations("train")
    heading, half, other_half = context.reference_halves()
    training = (f"{len(anchor)} training pictures", anchor, context.activations("reference"))
    for what, one, other in ((heading, half, other_half), training):
        if min(len(one), len(other)) > NEIGHBOURS:
            of_anchor = manifold_contributions(one, other)
            baselines[what] = {f"{name}_{suffix}": float(values.mean()) for name, values in of_anchor.items()}
    return Measurement(protocol, statistic, generated, reference, pairs=context.pairs, baselines=baselines)
