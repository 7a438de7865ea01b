"""How sure a measured number is: bootstrap intervals, and whether two students differ by more than noise.

A resample of n pictures is written as n weights: how often each picture was drawn. Every metric is a statistic of such
weights, so that no picture goes through a network twice. Generated pictures that share a caption, or the reference
picture of their captions, say less than as many others, so that whole clusters of them are drawn. Sources: Efron,
"Bootstrap Methods" (1979); Davison & Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

CONFIDENCE = 0.95
# Sets the two draws of one seed apart.
_GENERATED, _REFERENCE = range(2)
# Fewer clusters than this say nothing of others that might have been drawn.
FEWEST_CLUSTERS = 20


@dataclass(frozen=True)
class Measurement:
    """What a metric found for one student.

    Attributes:
        protocol: what was done, so that nobody compares two numbers that were made differently.
        statistic: (generated_weights float [r, generated], reference_weights float [r, reference]) -> {line: float64
            [r]}; one value for each row of weights, a line of the printed table each. Weights of 1 give the number
            itself.
        generated, reference: how many pictures of each kind are resampled; 0 where they are not drawn anew.
        biased: whether the statistic of a resample lies, on average, elsewhere than the statistic itself.
        lower_is_better: for the page's best and worst pictures.
        samples: {line: float [generated]}, what each generated picture contributes, for the lines that are means over
            pictures; a page orders its pictures by the first.
        pairs: (picture of the test split, caption) of each generated picture; see `clusters_of`. Empty: each generated
            picture is drawn by itself.
        pictures: uint8 [generated, side, side, 3], where `samples` is given.
        beside: further columns, {heading: {line: number}}.
        intervals: {line: (low, high)} that are known better than by bootstrap.
    """

    protocol: dict
    statistic: Callable
    generated: int
    reference: int = 0
    biased: bool = False
    lower_is_better: bool = False
    samples: dict = field(default_factory=dict)
    pairs: list = field(default_factory=list)
    pictures: np.ndarray | None = None
    baselines: dict = field(default_factory=dict)
    intervals: dict = field(default_factory=dict)


def mean_of(values):
    """A `Measurement.statistic` for means over generated pictures: {line: sum_i w_i v_i / sum_i w_i}.

    Args:
        values: {line: float [generated]}.

    Raises:
        ValueError: for a value that is NaN or infinite.
    """
    for line, each in values.items():
        if not np.isfinite(each).all():
            raise ValueError(f"{line}: a value is NaN or infinite")

    def statistic(generated_weights, reference_weights):
        total = generated_weights.sum(1)
        return {line: generated_weights @ np.asarray(each, np.float64) / total for line, each in values.items()}

    return statistic


def draw_weights(count, repeats, seed):
    """Weights of `repeats` resamples with replacement, below a first row of ones.

    Args:
        count: n, pictures.
        repeats: r; 0 gives the row of ones alone.
        seed: an int or a sequence of them, the only source of chance.

    Returns:
        float64 [1 + r, n]; every row's sum is n.
    """
    rows = [np.ones((1, count))]
    if repeats and count:
        rows.append(np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=repeats))
    elif repeats:
        rows.append(np.ones((repeats, 0)))
    return np.concatenate(rows).astype(np.float64)


def clusters_of(pairs):
    """Which generated pictures are drawn together: those of one test picture, or of one caption, whichever are fewer.

    However often a pair is repeated, nothing is learned about captions or pictures that were not asked for. Of fewer
    than 20 captions, such as the three that a hundred cats have, it is taken that there are no others, and pictures are
    drawn. So it is the other way round; where both are so few, those that are more.

    Args:
        pairs: n (picture of the test split, caption).

    Returns:
        int64 [n], the cluster of each pair, numbered from 0 in the order in which they come first.
    """
    numbered = []
    for each in zip(*pairs, strict=True):
        number = {key: i for i, key in enumerate(dict.fromkeys(each))}
        numbered.append(np.array([number[key] for key in each]))
    if not numbered:
        return np.zeros(0, np.int64)
    enough = [each for each in numbered if each.max() + 1 >= FEWEST_CLUSTERS]
    return min(enough, key=np.max) if enough else max(numbered, key=np.max)


def resampled(measurement, repeats, seed):
    """A measurement's statistic on all pictures and on resamples of them: {line: float64 [1 + repeats]}.

    Generated pictures are drawn in the clusters of `clusters_of`. Two students' rows of the same index are drawn from
    the same captions and the same reference pictures.
    """
    clusters = clusters_of(measurement.pairs) if measurement.pairs else np.arange(measurement.generated)
    generated = draw_weights(len(np.unique(clusters)), repeats, [seed, _GENERATED])[:, clusters]
    return measurement.statistic(generated, draw_weights(measurement.reference, repeats, [seed, _REFERENCE]))


def interval(rows, biased=False):
    """The 95 % bootstrap interval of a statistic, as (low, high).

    The 2.5 and 97.5 % quantiles of the resamples' values b; where these are biased, of b - mean(b) + t, t the value on
    all pictures. Drawing pictures twice shifts some statistics (Fréchet's covariances shrink), and what is wanted is
    the spread.

    Args:
        rows: float [1 + repeats], as `resampled` gives them; at least two resamples.
        biased: see `Measurement`.
    """
    draws = rows[1:] - rows[1:].mean() + rows[0] if biased else rows[1:]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def compare(one, other, biased=False):
    """Whether two students differ by more than the noise of the captions and pictures that were drawn.

    Args:
        one, other: what `resampled` gave for each, with the same repeats and seed.
        biased: see `Measurement`.

    Returns:
        {line: {"difference": other - one, "interval": (low, high) of it or None without resamples,
        "larger_than_noise": whether the interval leaves out 0, or None}}, for the lines that both have.
    """
    found = {}
    for line in one:
        if line not in other:
            continue
        rows = other[line] - one[line]
        span = interval(rows, biased) if len(rows) > 2 else None
        found[line] = {
            "difference": float(rows[0]),
            "interval": span,
            "larger_than_noise": None if span is None else not span[0] <= 0 <= span[1],
        }
    return found
