"""Do generated pictures show their captions' classes, and can a classifier learn the classes from them?

`classification`: the share of generated pictures that a classifier of real pictures gives the class of their caption.
`classification_reverse`: the share of real test pictures that a classifier of generated pictures names right.
Source: the second is Ravuri & Vinyals' "Classification Accuracy Score" (NeurIPS 2019); the network is our own.
"""

import dataclasses

import numpy as np

from t2i_kd.data.captioned_images import Chosen
from t2i_kd.errors import UserError
from t2i_kd.metrics import sampling
from t2i_kd.metrics.extractors import features_name
from t2i_kd.metrics.image_classifier import train_image_classifier
from t2i_kd.metrics.resampling import Measurement, mean_of

REVERSE_PICTURES = 2000
REVERSE_STEPS = 400
PROTOCOL = {"classifier": "our convolutional network"}


def hits(logits, labels):
    """1 where the largest logit is the label's, else 0: float64 [n].

    Args:
        logits: float [n, classes].
        labels: int [n].

    Raises:
        ValueError: for NaN or infinity, or as many rows as labels are not.
    """
    if len(logits) != len(labels):
        raise ValueError(f"{len(logits)} predictions for {len(labels)} labels")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    return (np.argmax(logits, 1) == np.asarray(labels)).astype(np.float64)


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: a data set without classes that its splits share."""
    train, test = context.split("train"), context.split("test")
    if test.attributes:
        raise UserError(f"--dataset: {context.dataset_name} has attributes, not classes; ask for attribute_accuracy")
    if not np.isin(np.unique(test.labels), np.unique(train.labels)).all() or len(np.unique(test.labels)) < 2:
        raise UserError(f"--dataset: {context.dataset_name} has no classes that its train and test splits share")


def measure(context):
    """The share of generated pictures that a classifier trained on real ones gives their caption's class.

    Args:
        context: an `EvaluationContext` whose data set has classes that train and test share.

    Returns:
        A `Measurement`.

    Raises:
        UserError: naming `--dataset`, where it has no such classes.
    """
    check(context)
    test = context.split("test")
    classifier = context.own_classifier
    labels = test.labels[[picture for picture, _ in context.pairs]]
    name = f"classification_{_view(classifier)}_n{len(labels)}"
    reference = context.shared(
        ("classification", context.sides),
        lambda: float(hits(classifier.logits(test.images), test.labels).mean()),
    )
    samples = {name: hits(classifier.logits(context.generated), labels)}
    return Measurement(
        protocol=context.protocol()
        | PROTOCOL
        | {"trained on": "the real training split", "extractor_sha256": classifier.extractor().fingerprint},
        statistic=mean_of(samples),
        generated=len(labels),
        samples=samples,
        pairs=context.pairs,
        pictures=context.generated,
        baselines={"real test pictures": {name: reference}, "chance": {name: 1 / len(np.unique(test.labels))}},
    )


def measure_reverse(context):
    """The share of real test pictures that a classifier trained on generated ones names right.

    The student draws captions of the training split, its pictures taken in turn; beside it stands a classifier trained
    as long on the reference pictures of the same captions.

    Args:
        context: as for `measure`.

    Returns:
        A `Measurement`, resampled over the real test pictures; it does not cover the chance of training.

    Raises:
        UserError: naming `--dataset`, where it has no such classes.
    """
    check(context)
    train, test = context.split("train"), context.split("test")
    count = min(REVERSE_PICTURES, len(train))
    pairs = sampling.draw_pairs(train.captions, [[i] for i in range(len(train))], count, context.seed)
    chosen = [picture for picture, _ in pairs]
    learnt = dataclasses.replace(
        train,
        images=sampling.generate(context.student, [caption for _, caption in pairs], context.seed),
        captions=tuple((caption,) for _, caption in pairs),
        labels=train.labels[chosen],
        file_names=(),
    )

    def of_reference():
        reference = dataclasses.replace(learnt, images=Chosen(train.images, chosen))
        evaluator = train_image_classifier(reference, context.seed, REVERSE_STEPS)
        return float(hits(evaluator.logits(test.images), test.labels).mean())

    classifier = train_image_classifier(learnt, context.seed, REVERSE_STEPS)
    name = f"classification_reverse_{_view(classifier)}_n{count}_n{len(test)}"
    found = hits(classifier.logits(test.images), test.labels)
    reference = context.shared(("classification_reverse", context.sides, count), of_reference)
    return Measurement(
        protocol=context.protocol() | PROTOCOL | {"trained on": f"{count} generated pictures of training captions"},
        statistic=lambda generated_weights, reference_weights: {
            name: reference_weights @ found / reference_weights.sum(1)
        },
        generated=0,
        reference=len(test),
        baselines={"trained on real": {name: reference}, "chance": {name: 1 / len(np.unique(test.labels))}},
    )


def _view(classifier):
    side, own_side = classifier.sides
    return features_name("own", own_side, side)
