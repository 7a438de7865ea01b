"""Silence while converters work."""

import contextlib
import logging
import warnings


@contextlib.contextmanager
def quiet_converters():
    """Hides what is logged and warned of; errors still raise, and the proof after a conversion is what counts.

    TensorFlow logs each input that it renames, the LiteRT converter calibrates with its own deprecated interpreter,
    and tf2onnx logs the traceback of each optimisation that it skips.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
