"""A part of the training images, the same for the same seed: what a data-limited training learns from."""

import dataclasses

import numpy as np

from t2i_kd.data.captioned_images import Chosen
from t2i_kd.errors import UserError

# Sets this draw apart from the others that derive from the seed.
_DOMAIN = 0x5B


def check_subset(data):
    """Raises `UserError` for `DataOptions` whose part of the training images cannot be drawn from any data set."""
    if not 0 < data.data_fraction <= 1:
        raise UserError(f"--data_fraction: {data.data_fraction} is not above 0 and up to 1")
    if data.max_examples < 0:
        raise UserError(f"--max_examples: {data.max_examples} is negative")
    if data.data_fraction < 1 and data.max_examples:
        raise UserError("--data_fraction: give it or --max_examples, not both")
    if data.balance_classes and not trains_on_a_part(data):
        raise UserError("--balance_classes: only --data_fraction and --max_examples draw a part that it balances")


def trains_on_a_part(data):
    """Whether `DataOptions` ask for a part of the training images."""
    return data.data_fraction < 1 or data.max_examples > 0


def subset_indices(labels, count, seed, balanced=False):
    """Which images make up the part.

    `balanced`: as many of each class as of any other, as far as it has them: the classes' first images of a random
    order, then their second ones, and so on, those of the last round again in a random order. Otherwise each image is
    as likely as any other, whatever its class.

    Args:
        labels: int [images], each image's class.
        count: images of the part, 1 to all.
        seed: the run's.
        balanced: whether classes are.

    Returns:
        int64 [count], ascending.
    """
    rng, labels = np.random.default_rng([seed, _DOMAIN]), np.asarray(labels)
    order = rng.permutation(len(labels))
    if balanced:
        # The rank of each image, in the random order, among those of its class.
        shuffled = labels[order]
        rank = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            rank[shuffled == label] = np.arange((shuffled == label).sum())
        order = order[np.argsort(rank, kind="stable")]
    return np.sort(order[:count])


def training_subset(dataset, data, seed):
    """The part of a training split that `DataOptions` ask for.

    Args:
        dataset: the training `CaptionedImages`.
        data: `DataOptions`.
        seed: the run's.

    Returns:
        `CaptionedImages`, in the order of the whole; `dataset` itself where all of it is asked for.

    Raises:
        UserError: naming `--data_fraction` or `--max_examples`, where the part is empty, larger than the whole, or
            leaves a class without an image.
    """
    check_subset(data)
    if not trains_on_a_part(data):
        return dataset
    flag = "max_examples" if data.max_examples else "data_fraction"
    count = data.max_examples or round(data.data_fraction * len(dataset))
    if not 1 <= count <= len(dataset):
        raise UserError(f"--{flag}: {count} of {len(dataset)} images of {dataset.name}")
    chosen = subset_indices(dataset.labels, count, seed, data.balance_classes)
    empty = sorted(set(map(int, dataset.labels)) - set(map(int, dataset.labels[chosen])))
    if empty:
        name = dataset.label_names[empty[0]]
        hint = "" if data.balance_classes else "; --balance_classes draws as many of each"
        raise UserError(
            f"--{flag}: {count} of {len(dataset)} images of {dataset.name} leave {len(empty)} of its classes empty, "
            f"the first {name!r}{hint}"
        )
    return picked(dataset, chosen)


def picked(dataset, indices):
    """The images of a set that have these indices, with all that belongs to them."""

    def of(values):
        return tuple(values[index] for index in indices) if values else values

    return dataclasses.replace(
        dataset,
        images=Chosen(dataset.images, indices),
        captions=of(dataset.captions),
        labels=dataset.labels[indices],
        attributes=of(dataset.attributes),
        file_names=of(dataset.file_names),
        digests=of(dataset.digests),
    )
