"""Makes TensorFlow repeat itself to the bit, which resuming a killed run relies on."""

import keras


def begin_names_anew():
    """Lets Keras count its automatic names from the beginning, as in a new process.

    The names reach TensorFlow's graph, and the order in which its optimiser adds gradients depends on them: a run would
    differ in the last bit with what its process had built before.
    """
    keras.utils.clear_session(free_memory=False)


def make_deterministic():
    """On TensorFlow, lets no operation depend on the order in which threads finish; JAX on a CPU needs nothing."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
