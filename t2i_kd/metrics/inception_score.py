"""How sure a classifier is of each generated picture, and how many classes it finds among them.

Source: Salimans et al., "Improved Techniques for Training GANs" (NeurIPS 2016), section 4, on any classifier. It uses
no reference picture: a student that draws one perfect picture of every class, whatever the caption, has the best score.
"""

import numpy as np
from scipy.special import xlogy

from t2i_kd.errors import UserError
from t2i_kd.metrics.blocks import row_blocks
from t2i_kd.metrics.resampling import Measurement

SPLITS = 10
# Splits of fewer pictures cannot show many classes.
FEWEST_IN_SPLIT = 10
# What rows may sum to beside 1: half precision's rounding.
TOLERANCE = 1e-3


def inception_score(probabilities, weights):
    """exp(mean KL(p(y|x) || p(y))), for many rows of weights at once.

    With p(y) = sum_i w_i p(y|x_i) / sum_i w_i the mean is a difference of entropies, H(p(y)) - mean H(p(y|x)):

        IS = exp(sum_i w_i sum_y p(y|x_i) log p(y|x_i) / sum_i w_i - sum_y p(y) log p(y)),   0 log 0 = 0

    Args:
        probabilities: float [n, classes], rows that sum to 1.
        weights: float [r, n], not negative.

    Returns:
        float64 [r], 1 to the number of classes; NaN for a row of zeros, which holds no picture.

    Raises:
        ValueError: for another shape, NaN, infinity, a negative number, or a row whose sum is not within 1e-3 of 1.
    """
    if probabilities.ndim != 2 or not len(probabilities):
        raise ValueError(f"probabilities of shape {probabilities.shape} are not [n, classes]")
    with np.errstate(invalid="ignore"):
        shares = weights / weights.sum(1, keepdims=True)
    together, negative_entropy = np.zeros((len(weights), probabilities.shape[1])), np.zeros(len(weights))
    for rows in row_blocks(probabilities):
        block = _checked(probabilities[rows])
        together += shares[:, rows] @ block
        negative_entropy += shares[:, rows] @ xlogy(block, block).sum(1)
    return np.exp(negative_entropy - xlogy(together, together).sum(1))


def _checked(block):
    block = np.asarray(block, np.float64)
    if not np.isfinite(block).all():
        raise ValueError("probabilities hold NaN or infinity")
    if (block < 0).any() or (np.abs(block.sum(1) - 1) > TOLERANCE).any():
        raise ValueError("probabilities are negative or do not sum to 1")
    return block


def split_inception_score(probabilities, weights):
    """The mean score of ten splits, the field's protocol; split s holds pictures s, s + 10, s + 20, ...

    A resample leaves out the splits of which it holds no picture.

    Args:
        probabilities, weights: as for `inception_score`; ten pictures or more.

    Returns:
        float64 [r].
    """
    splits = [slice(start, None, SPLITS) for start in range(SPLITS)]
    return np.nanmean([inception_score(probabilities[split], weights[:, split]) for split in splits], axis=0)


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: too few captions, or an extractor that is no classifier."""
    fewest = SPLITS * FEWEST_IN_SPLIT
    if context.num_captions < fewest:
        raise UserError(f"--num_captions: inception_score needs at least {fewest} pictures, not {context.num_captions}")
    context.check_different("inception_score")
    context.check_extractor(probabilities=True)


def measure(context):
    """The inception score of a student's pictures, beside that of the held-out ones.

    Args:
        context: an `EvaluationContext` whose extractor is a classifier; all pictures of the test split are the real
            ones. Where they are fewer than 100, they have no score.

    Returns:
        A `Measurement` with the line inception_score_{features}_n{generated}_splits10.

    Raises:
        UserError: naming `--num_captions` for fewer than 100 pictures, or `--extractor` where it is no classifier.
    """
    check(context)
    probabilities, reference = context.probabilities("generated"), len(context.split("test"))
    generated = len(probabilities)
    line = f"inception_score_{context.features_name}_n{generated}_splits{SPLITS}"

    def statistic(generated_weights, reference_weights):
        return {line: split_inception_score(probabilities, generated_weights)}

    baselines = {}
    if reference >= SPLITS * FEWEST_IN_SPLIT:
        of_reference = split_inception_score(context.probabilities("reference"), np.ones((1, reference)))
        baselines["real pictures"] = {line: float(of_reference[0])}
    counts = {"splits": SPLITS, "generated": generated, "reference": reference}
    protocol = context.extractor_protocol() | counts
    # A resample has fewer different pictures.
    return Measurement(protocol, statistic, generated, biased=True, pairs=context.pairs, baselines=baselines)
