"""How much of what the full teacher knows a slim one has kept: linear probes of both."""

import keras
import numpy as np
from keras import ops

from t2i_kd.metrics.linear_probe import probe_accuracy
from t2i_kd.teacher_slim.objective import POOLS

PROBE_CLASSES = 30


def fidelity(networks, train_set, test_set):
    """Held-out accuracy of linear probes on each network's pools, averaged over the image.

    Args:
        networks: {name: `keras.Model` with the pools among its outputs}.
        train_set, test_set: labelled `CaptionedImages`; the 30 classes with most training images are probed.

    Returns:
        {"classes": 30, "train_images": n, "test_images": n, name: {pool: accuracy}}.
    """
    classes, counts = np.unique(train_set.labels, return_counts=True)
    classes = classes[np.argsort(-counts, kind="stable")[:PROBE_CLASSES]]
    chosen = [np.flatnonzero(np.isin(each.labels, classes)) for each in (train_set, test_set)]
    labels = [each.labels[rows] for each, rows in zip((train_set, test_set), chosen, strict=True)]
    images = [
        np.stack([each.images[i] for i in rows]) for each, rows in zip((train_set, test_set), chosen, strict=True)
    ]
    report = {"classes": len(classes), "train_images": len(labels[0]), "test_images": len(labels[1])}
    for name, network in networks.items():
        averages = keras.Model(network.input, {pool: ops.mean(network.output[pool], axis=(1, 2)) for pool in POOLS})
        train, test = (averages.predict(each.astype("float32"), batch_size=32, verbose=0) for each in images)
        report[name] = {pool: round(probe_accuracy(train[pool], labels[0], test[pool], labels[1]), 4) for pool in POOLS}
    return report
