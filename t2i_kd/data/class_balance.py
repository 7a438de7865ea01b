"""Batches of one picture a class: which pictures a step takes."""

import numpy as np

from t2i_kd.errors import UserError

# Sets this draw apart from the others that derive from (seed, step).
_DOMAIN = 0xD5


def classes_of(labels):
    """Each image's class, int array [images]; where all labels are the same, every image is a class of its own."""
    labels = np.asarray(labels)
    return np.arange(len(labels)) if len(labels) and (labels == labels[0]).all() else labels


def class_balanced_indices(labels, batch_size, seed, step):
    """Which images a step takes: one image of each of `batch_size` classes, the same for the same arguments.

    Args:
        labels: int array [images], each image's class.
        batch_size: images in a step, at most the number of classes.
        seed: the run's, 0 or more.
        step: the global step, 0 or more.

    Returns:
        int64 array [batch_size], indices of images with distinct labels.

    Raises:
        UserError: naming `--batch_size`, when there are fewer classes than that.
    """
    order = np.argsort(labels, kind="stable")
    classes, starts, counts = np.unique(np.asarray(labels)[order], return_index=True, return_counts=True)
    if not 1 <= batch_size <= len(classes):
        raise UserError(
            f"--batch_size: ds_sje takes one image a class, and there are {len(classes)} classes for {batch_size}"
        )
    rng = np.random.default_rng((seed, step, _DOMAIN))
    chosen = rng.permutation(len(classes))[:batch_size]
    return order[starts[chosen] + rng.integers(0, counts[chosen])]
