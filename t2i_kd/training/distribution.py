"""Training on several devices: one step's batch is divided among replicas, and their gradients' mean moves the weights.

`--distribute` is the machine's, not the recipe's: at an equal batch the losses are those of one device, so that a run
may be stopped on one machine and go on on two. TensorFlow only; every function works, and does nothing, without a
strategy and on JAX.
"""

import contextlib
import os
import sys

import keras
import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.files import parse_json

KINDS = ("none", "mirrored", "multi_worker")


def make_strategy(kind):
    """The `tf.distribute.Strategy` of a kind; None for `none`.

    `mirrored` takes all GPUs, or all logical CPU devices where there is no GPU. `multi_worker` takes the processes that
    the environment's TF_CONFIG names; it must be made before TensorFlow does anything else.

    Raises:
        UserError: on another backend than TensorFlow, or for a TF_CONFIG that is missing or wrong.
    """
    if kind == "none":
        return None
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"--distribute={kind}: needs KERAS_BACKEND=tensorflow, not {keras.backend.backend()}")
    if kind == "multi_worker":
        check_cluster(os.environ.get("TF_CONFIG", ""))
    import tensorflow as tf

    if kind == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def check_cluster(text):
    """Raises `UserError` unless `text` is a TF_CONFIG that names this process among a cluster's workers."""
    example = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    if not text:
        raise UserError(f"TF_CONFIG: --distribute=multi_worker needs it in the environment: {example}")
    try:
        config = parse_json(text, "TF_CONFIG")
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], task["index"]
        addresses = [address for tasks in cluster.values() for address in tasks]
        own = cluster[kind]
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"TF_CONFIG: not of the form {example}: {error!r}") from None
    if set(cluster) - {"worker", "chief"}:
        raise UserError(f"TF_CONFIG: cluster may name only worker and chief, not {', '.join(sorted(cluster))}")
    wrong = [each for each in addresses if not (isinstance(each, str) and each.rpartition(":")[2].isdigit())]
    if wrong or len(set(addresses)) < len(addresses):
        raise UserError(f"TF_CONFIG: cluster needs different addresses HOST:PORT, not {wrong or addresses}")
    if not (isinstance(index, int) and 0 <= index < len(own)):
        raise UserError(f"TF_CONFIG: task index is {index!r}, the cluster has {len(own)} of type {kind}")


def strategy():
    """The `tf.distribute.Strategy` whose scope this is in, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None


def _cluster():
    """The resolver of the cluster that this process is a worker of, or None where it trains alone."""
    ours = strategy()
    resolver = ours and ours.cluster_resolver
    return resolver if resolver and resolver.task_type else None


def is_chief():
    """Whether this process writes the run's files: the only one, or the cluster's first."""
    cluster = _cluster()
    if cluster is None:
        return True
    return cluster.task_type == "chief" or ("chief" not in cluster.cluster_spec().jobs and cluster.task_id == 0)


def check_batch_size(batch_size):
    """Raises `UserError` where a batch cannot be divided among the replicas."""
    replicas = strategy().num_replicas_in_sync if strategy() else 1
    if batch_size % replicas:
        raise UserError(f"--batch_size: {batch_size} does not divide among {replicas} replicas")


@contextlib.contextmanager
def ending_with_the_cluster():
    """Ends the process with code 1 and one line when, within it, another worker of the cluster is lost."""
    if strategy() is None:
        yield
        return
    import tensorflow as tf

    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        reason = " ".join(str(error).split())[:200]
        sys.exit(
            "error: --distribute: a worker is gone; the same command on every worker goes on from the newest "
            f"checkpoint ({reason})"
        )


def mean_over_replicas(values):
    """Means over the replicas, for gradients of losses that are means over a batch, and for the losses themselves.

    A replica's loss is the mean over its share of the batch, so the mean over replicas is that of the whole batch.
    Every trainer's gradients go through here once, before they are clipped.

    Args:
        values: list of tensors, `tf.IndexedSlices` or None, inside a replica or without a strategy.

    Returns:
        A list of dense tensors, None where there was none.
    """
    import tensorflow as tf

    if strategy() is None:
        return [None if value is None else tf.convert_to_tensor(value) for value in values]
    replica = tf.distribute.get_replica_context()
    present = [tf.convert_to_tensor(value) for value in values if value is not None]
    means = iter(replica.all_reduce(tf.distribute.ReduceOp.MEAN, present))
    return [None if value is None else next(means) for value in values]


def assign_alike(variable, value):
    """Gives a variable a value that every replica computes alike.

    Args:
        variable: a Keras variable, inside a replica or without a strategy.
        value: tensor of its shape.
    """
    if strategy() is None:
        variable.assign(value)
        return
    import tensorflow as tf

    # `assign` would ask how the replicas' values are to be made one.
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)


def gathered(values):
    """The rows of all replicas, in their order; differentiable. Without a strategy the values themselves.

    Args:
        values: tensor [batch of this replica, ...].

    Returns:
        Tensor [batch of all replicas, ...].
    """
    if strategy() is None:
        return values
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_gather(values, axis=0)


def own_rows(rows, values):
    """The rows that are this replica's, of what was computed on `gathered` ones.

    Args:
        rows: tensor [batch of all replicas, ...].
        values: tensor [batch of this replica, ...].
    """
    if strategy() is None:
        return rows
    import tensorflow as tf

    size = tf.shape(values)[0]
    first = tf.distribute.get_replica_context().replica_id_in_sync_group * size
    return rows[first : first + size]


def replica_logs(terms):
    """A replica's {name: scalar} in the form of which Keras's `fit` logs the mean over the replicas."""
    if _cluster() is None:
        return terms
    # Of several workers' values Keras takes the mean along the first axis.
    return {name: keras.ops.expand_dims(term, 0) for name, term in terms.items()}


def share(batch, replica, replicas):
    """A replica's part of a batch: {name: array [batch, ...]}, nested or not -> batch / replicas rows of each."""

    def rows(array):
        size = len(array) // replicas
        return array[replica * size : (replica + 1) * size]

    return keras.tree.map_structure(rows, batch)


def shares(batches, index, replicas, count):
    """The parts of some replicas of a batch; where `batches` can say `rows`, no others are read.

    Args:
        batches: `keras.utils.PyDataset`.
        index: the batch's.
        replicas: whose parts.
        count: how many replicas there are.

    Yields:
        A part for each, see `share`.
    """
    if hasattr(batches, "rows"):
        size = batches.batch_size // count
        yield from (batches.rows(index, replica * size, (replica + 1) * size) for replica in replicas)
    else:
        batch = batches[index]
        yield from (share(batch, replica, count) for replica in replicas)


def distribute_batches(batches, divided=True):
    """What `keras.Model.fit` reads: each replica's share of every batch, in order.

    Args:
        batches: `keras.utils.PyDataset`.
        divided: False gives every replica the whole batch, for losses that compare a batch's examples with each other.

    Returns:
        `batches` itself without a strategy, else a distributed `tf.data.Dataset`.
    """
    ours = strategy()
    if ours is None:
        return batches
    import tensorflow as tf

    def pipeline(context):
        own = context.num_replicas_in_sync // context.num_input_pipelines
        replicas = range(context.input_pipeline_id * own, (context.input_pipeline_id + 1) * own)
        count = context.num_replicas_in_sync

        def parts():
            for index in range(len(batches)):
                if divided:
                    yield from shares(batches, index, replicas, count)
                else:
                    yield from [batches[index]] * len(replicas)

        signature = keras.tree.map_structure(
            lambda array: tf.TensorSpec(np.shape(array), np.asarray(array).dtype),
            next(iter(shares(batches, 0, [0], count))) if divided else batches[0],
        )
        return tf.data.Dataset.from_generator(parts, output_signature=signature).prefetch(tf.data.AUTOTUNE)

    return ours.distribute_datasets_from_function(pipeline)


def predict(model, inputs, batch_size):
    """`keras.Model.predict`, which under a strategy would divide the inputs among the workers: here each sees them all.

    Args:
        model: a `keras.Model`.
        inputs: array, or {name: array}.
        batch_size: rows at a time.

    Returns:
        NumPy arrays in the structure of the model's outputs.
    """
    if strategy() is None:
        return model.predict(inputs, batch_size=batch_size, verbose=0)
    count = len(keras.tree.flatten(inputs)[0])
    outputs = []
    for start in range(0, count, batch_size):
        some = keras.tree.map_structure(lambda array, start=start: array[start : start + batch_size], inputs)
        outputs.append(keras.tree.map_structure(np.asarray, model(some, training=False)))
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *outputs)
