"""Does the picture show what the caption asked for? Each attribute's accuracy on unseen attribute combinations.

Our own metric. Every number comes with what the classifier itself gets right on real held-out pictures, with what
guessing would get, and with a 95 % interval.
"""

import math

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.metrics import sampling
from t2i_kd.metrics.attribute_classifier import SIDE, train_attribute_classifier
from t2i_kd.metrics.extractors import features_name
from t2i_kd.metrics.resampling import Measurement, clusters_of, mean_of

REQUIRED_OF_CLASSIFIER = 0.98
NORMAL_QUANTILE = 1.959963984540054
CLASSIFIER = "convolutional network, one softmax head per attribute, trained on the real training split only"


def attribute_hits(predicted, wanted):
    """In which pictures each attribute is as wanted, and each picture's share of right attributes.

    Args:
        predicted: for each picture what it shows, {attribute: value}.
        wanted: for each picture what it was asked to show, {attribute: value}, with the same attributes.

    Returns:
        {attribute: float64 [n] of 0 and 1, ..., "mean": their mean, [n]}.

    Raises:
        ValueError: for no picture, or lists of different lengths.
    """
    if not wanted or len(predicted) != len(wanted):
        raise ValueError(f"{len(predicted)} predictions for {len(wanted)} pictures")
    pairs = list(zip(predicted, wanted, strict=True))
    hits = {name: np.array([shown[name] == asked[name] for shown, asked in pairs], np.float64) for name in wanted[0]}
    return {**hits, "mean": np.mean(list(hits.values()), axis=0)}


def wilson_interval(share, count):
    """Wilson's 95 % interval of a probability of which `share` was seen in `count` independent trials, as (low, high).

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n); Wilson, JASA 22 (1927).
    """
    z2 = NORMAL_QUANTILE**2
    centre = share + z2 / (2 * count)
    half = NORMAL_QUANTILE * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, (centre - half) / (1 + z2 / count)), min(1.0, (centre + half) / (1 + z2 / count))


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: a data set without attributes."""
    for split in ("test", "train"):
        if not context.split(split).attributes:
            raise UserError(f"--dataset: {context.dataset_name} has no attributes, which attribute_accuracy needs")


def measure(context):
    """Asks a student for held-out captions and has a classifier say what its pictures show.

    The captions cover the attribute combinations of the test split as evenly as possible; the training split has
    none of these combinations.

    Args:
        context: an `EvaluationContext` whose data set has attributes.

    Returns:
        A `Measurement`; its lines attribute_{name}_classifier_{side}_n{captions} are the means of `attribute_hits`,
        with Wilson's intervals, whose trials are the clusters of `clusters_of`: a caption that is asked again is no
        new trial.

    Raises:
        UserError: where the data set has no attributes, or the classifier gets an attribute right on less than
            98 % of the real test pictures, so that it cannot evaluate.
    """
    check(context)
    test = context.split("test")
    evaluator, reference_accuracy = context.shared(
        ("attribute_classifier", context.sides), lambda: _tested_evaluator(context, test)
    )
    combinations = _pictures_by_combination(test.attributes)
    pairs = sampling.draw_pairs(test.captions, list(combinations.values()), context.num_captions, context.seed)
    captions, trials = [caption for _, caption in pairs], int(clusters_of(pairs).max()) + 1
    generated = sampling.generate(context.student, captions, context.seed)
    wanted = [test.attributes[picture] for picture, _ in pairs]
    right = attribute_hits(evaluator.predict(generated), wanted)
    suffix = f"{features_name('classifier', SIDE, context.student.resolution)}_n{len(pairs)}"

    def named(values):
        return {f"attribute_{what}_{suffix}": each for what, each in values.items()}

    return Measurement(
        protocol=context.protocol()
        | {
            "classifier": CLASSIFIER,
            "extractor_sha256": evaluator.fingerprint,
            "distinct_captions": len(set(captions)),
            "trials": trials,
            "combinations": len({_combination(values) for values in wanted}),
        },
        statistic=mean_of(named(right)),
        generated=len(pairs),
        samples=named({"mean": right["mean"]}),
        pairs=pairs,
        pictures=generated,
        intervals=named({name: wilson_interval(float(right[name].mean()), trials) for name in evaluator.values}),
        baselines={"classifier on real": named(reference_accuracy), "chance": named(_chance(evaluator.values))},
    )


def _tested_evaluator(context, test):
    evaluator = train_attribute_classifier(
        context.split("train"), context.seed, cache=context.arrays, key=context.digest_of("train")
    )
    hits = attribute_hits(evaluator.predict(test.images), test.attributes)
    accuracy = {name: float(values.mean()) for name, values in hits.items()}
    worst = min(evaluator.values, key=accuracy.get)
    if accuracy[worst] < REQUIRED_OF_CLASSIFIER:
        raise UserError(
            f"--metrics: attribute_accuracy cannot evaluate {context.dataset_name}: its classifier gets {worst} right "
            f"on {accuracy[worst]:.1%} of the real test pictures, and {REQUIRED_OF_CLASSIFIER:.0%} is required"
        )
    return evaluator, accuracy


def _combination(attributes):
    return tuple(sorted(attributes.items()))


def _pictures_by_combination(attributes):
    pictures = {}
    for index, values in enumerate(attributes):
        pictures.setdefault(_combination(values), []).append(index)
    return pictures


def _chance(values):
    shares = {name: 1 / len(choices) for name, choices in values.items()}
    return {**shares, "mean": float(np.mean(list(shares.values())))}
