"""Keras's global dtype policy for a while."""

import contextlib

import keras


@contextlib.contextmanager
def dtype_policy(name):
    """Within it, Keras's dtype policy is `name`, such as `float32`, which layers without one of their own take."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
