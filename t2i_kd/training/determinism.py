"""Makes TensorFlow repeat itself to the bit, which resuming a killed run relies on."""

import keras


def make_deterministic():
    """On TensorFlow, lets no operation depend on the order in which threads finish; JAX on a CPU needs nothing."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
