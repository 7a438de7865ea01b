"""How different a student's pictures are: of different captions, and of one caption with different noise.

Source: ours; distances in a network's activations, as Zhu et al., "Toward Multimodal Image-to-Image Translation"
(NeurIPS 2017), section 5.2, take them between pictures of one input.
"""

import itertools

import numpy as np
from scipy.spatial.distance import cdist

from t2i_kd.metrics.blocks import check_finite, row_blocks
from t2i_kd.metrics.resampling import Measurement

CAPTIONS_OVER_SEEDS = 50
SEEDS = 4
# More than anyone's captions, so that no seed is one of those that `context.generated` was drawn with.
SEED_STRIDE = 1_000_003


def mean_pair_distance(activations, weights):
    """The weighted mean Euclidean distance between two different pictures, for many rows of weights at once.

    D = sum_{i != j} w_i w_j |x_i - x_j| / (n^2 - sum_i w_i^2),   n = sum_i w_i

    A picture that a resample holds twice is no pair with itself.

    Args:
        activations: float [n, dim].
        weights: float [r, n], not negative.

    Returns:
        float64 [r], 0 or more; 0 for a row that holds one picture alone.

    Raises:
        ValueError: for another shape, fewer than two vectors, NaN or infinity.
    """
    _check(activations, "[n, dim]", 2)
    if len(activations) < 2:
        raise ValueError(f"{len(activations)} activations: at least two are needed")
    total = np.zeros(len(weights))
    for rows in row_blocks(activations):
        one = np.asarray(activations[rows], np.float64)
        for columns in row_blocks(activations):
            distances = cdist(one, np.asarray(activations[columns], np.float64))
            total += np.einsum("rn,rn->r", weights[:, rows] @ distances, weights[:, columns])
    pairs = weights.sum(1) ** 2 - np.square(weights).sum(1)
    return np.divide(total, pairs, out=np.zeros(len(weights)), where=pairs > 0)


def distance_over_seeds(activations):
    """The mean Euclidean distance between a caption's pictures, over all pairs of seeds.

    Args:
        activations: float [captions, seeds, dim], at least two seeds.

    Returns:
        float64 [captions], 0 or more.

    Raises:
        ValueError: for another shape, fewer than two seeds, NaN or infinity.
    """
    _check(activations, "[captions, seeds, dim]", 3)
    if activations.shape[1] < 2:
        raise ValueError(f"{activations.shape[1]} seeds: at least two are needed")
    vectors = np.asarray(activations, np.float64)
    pairs = itertools.combinations(range(vectors.shape[1]), 2)
    return np.mean([np.linalg.norm(vectors[:, one] - vectors[:, other], axis=1) for one, other in pairs], axis=0)


def within_classes(activations, labels):
    """The mean over classes of the mean Euclidean distance between two different pictures of one.

    Args:
        activations: float [n, dim].
        labels: int [n]; all the same: there are no classes.

    Returns:
        float, or None where there are no classes, or none has two pictures.
    """
    groups = [activations[labels == label] for label in np.unique(labels)]
    found = [float(mean_pair_distance(group, np.ones((1, len(group))))[0]) for group in groups if len(group) > 1]
    return float(np.mean(found)) if len(groups) > 1 and found else None


def _check(activations, form, axes):
    if activations.ndim != axes:
        raise ValueError(f"activations of shape {activations.shape} are not {form}")
    check_finite(activations)


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: too few pictures, or no extractor."""
    context.check_counts("diversity", 2)
    context.check_extractor()


def measure(context):
    """How far apart the pictures of different captions are, beside the reference ones, and those of one caption.

    Over seeds: the first 50 captions, or all of fewer, the i-th drawn with seed + i + 1000003 s for s = 1 to 4.

    Args:
        context: an `EvaluationContext`; all pictures of the test split are the reference ones.

    Returns:
        A `Measurement` with lines diversity_captions_{features}_n{generated} and
        diversity_seeds_{features}_n{captions}x4, which is 0 for a student without noise. Beside the first stand the
        reference pictures; beside the second, where they have classes, those of one class; see `within_classes`.

    Raises:
        UserError: naming `--num_captions` or the data set, where there are too few pictures.
    """
    check(context)
    of_generated, reference = context.activations("generated"), len(context.split("test"))
    generated = len(of_generated)
    captions = min(CAPTIONS_OVER_SEEDS, generated)
    over_seeds = distance_over_seeds(_drawn_again(context, captions))
    between = f"diversity_captions_{context.features_name}_n{generated}"
    within = f"diversity_seeds_{context.features_name}_n{captions}x{SEEDS}"

    def statistic(generated_weights, reference_weights):
        first = generated_weights[:, :captions]
        return {between: mean_pair_distance(of_generated, generated_weights), within: first @ over_seeds / first.sum(1)}

    activations = context.activations("reference")
    of_reference = mean_pair_distance(activations, np.ones((1, reference)))
    counts = {"generated": generated, "reference": reference, "captions over seeds": captions, "seeds a caption": SEEDS}
    protocol = context.extractor_protocol() | counts
    baselines = {"real pictures": {between: float(of_reference[0])}}
    of_classes = within_classes(activations, context.split("test").labels)
    if of_classes is not None:
        baselines["real pictures of one class"] = {within: of_classes}
    return Measurement(protocol, statistic, generated, pairs=context.pairs, baselines=baselines)


def _drawn_again(context, count):
    """Activations of the first captions' pictures with further seeds: float32 [count, SEEDS, dim]."""
    asked = [(caption, i, s) for i, (_, caption) in enumerate(context.pairs[:count]) for s in range(1, SEEDS + 1)]
    seeds = [context.seed + i + SEED_STRIDE * s for _, i, s in asked]
    images = context.student.generate([caption for caption, _, _ in asked], seeds)
    # Equal pictures go through the network once: their place in a batch must not tell them apart.
    flat = images.reshape(len(images), -1)
    _, first, inverse = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    return np.asarray(context.features_of(images[first]))[inverse.ravel()].reshape(count, SEEDS, -1)
