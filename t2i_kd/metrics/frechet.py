"""The Fréchet distance between a network's features of generated and of reference pictures.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (NeurIPS 2017), on another network's activations.
"""

import numpy as np
from tqdm import tqdm

from t2i_kd.metrics.blocks import row_blocks
from t2i_kd.metrics.moments import Moments
from t2i_kd.metrics.resampling import Measurement


def frechet_distance(one, other):
    """d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), of two Gaussians with these means and covariances.

    tr (C_1 C_2)^(1/2) is the sum of the square roots of the eigenvalues of R C_2 R, R the symmetric root of C_1, which
    are real and not negative also where the covariances are singular.

    Args:
        one, other: `Moments` of the same dim, each of more vectors than dim.

    Returns:
        A float, 0 or more.

    Raises:
        ValueError: for different dims, or no more vectors than dim, where the covariance says nothing about some
            directions and the distance depends on the number of vectors.
    """
    for moments in (one, other):
        if moments.mean is None or moments.count <= len(moments.mean):
            dim = 0 if moments.mean is None else len(moments.mean)
            raise ValueError(
                f"{moments.count} activations of {dim} dimensions: more of them than dimensions are needed"
            )
    if len(one.mean) != len(other.mean):
        raise ValueError(f"activations of {len(one.mean)} and of {len(other.mean)} dimensions")
    return _distance(one, other)


def _distance(one, other):
    values, directions = np.linalg.eigh(one.covariance)
    root = (directions * np.sqrt(np.maximum(values, 0))) @ directions.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other.covariance @ root), 0)).sum()
    distance = np.square(one.mean - other.mean).sum() + np.trace(one.covariance) + np.trace(other.covariance)
    return float(max(distance - 2 * shared, 0.0))


def moments_of(activations, weights):
    """The `Moments` of float [n, dim] activations, each counted as often as its weight says, in blocks."""
    found = Moments()
    for rows in row_blocks(activations):
        found.update(activations[rows], weights[rows])
    return found


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: fewer pictures than numbers of the extractor, or no extractor."""
    context.check_counts("frechet", 1 + context.check_extractor())
    context.check_different("frechet")


def measure(context):
    """The Fréchet distance between a student's pictures of held-out captions and the held-out pictures.

    Args:
        context: an `EvaluationContext`; its extractor's activations are compared.

    Returns:
        A `Measurement`; beside it the distance of one half of the reference pictures to the other, and that of training
        pictures to the reference ones, where they are more than activations.

    Raises:
        UserError: naming `--num_captions` or the data set, where there are too few pictures.
    """
    check(context)
    generated, reference = context.activations("generated"), context.activations("reference")
    dim = generated.shape[1]
    name = f"frechet_{context.features_name}_n{len(generated)}_n{len(reference)}"

    def statistic(generated_weights, reference_weights):
        rows = list(zip(generated_weights, reference_weights, strict=True))
        bar = tqdm(rows, desc="frechet", unit="resample", delay=5, leave=False, disable=None)
        # A resample may hold fewer vectors than all are: clusters are of different sizes.
        return {name: np.array([_distance(moments_of(generated, w), moments_of(reference, v)) for w, v in bar])}

    protocol = context.extractor_protocol()
    anchor = context.activations("train")
    heading, half, other_half = context.reference_halves()
    baselines = {}
    for what, one, other in ((heading, half, other_half), (f"{len(anchor)} training pictures", anchor, reference)):
        if min(len(one), len(other)) > dim:
            distance = frechet_distance(*(moments_of(each, np.ones(len(each))) for each in (one, other)))
            baselines[what] = {name: distance}
    return Measurement(
        protocol,
        statistic,
        len(generated),
        len(reference),
        biased=True,
        lower_is_better=True,
        pairs=context.pairs,
        baselines=baselines,
    )
