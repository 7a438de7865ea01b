"""What a step needs of the whole batch when several devices share it."""

import keras


def gathered(values):
    """The rows of all devices, in their order; differentiable. On one device the values themselves.

    Args:
        values: tensor [batch of this device, ...].

    Returns:
        Tensor [batch of all devices, ...].
    """
    if keras.backend.backend() != "tensorflow":
        return values
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_gather(values, axis=0)
