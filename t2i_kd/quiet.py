"""Silence while libraries load and convert; what fails still says why."""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import warnings

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def wants_everything():
    """Whether the environment asks for all of TensorFlow's own lines."""
    return os.environ.get(LEVEL) == "0"


@contextlib.contextmanager
def standard_error_held(shown=False):
    """Within it, what the process writes to standard error, libraries in C++ included, is held back.

    It is shown afterwards where something fails, and where `shown` or the environment's TF_CPP_MIN_LOG_LEVEL=0 say so.
    """
    if shown or wants_everything():
        yield
        return
    sys.stderr.flush()
    own = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)
            os.close(own)
            if failed:
                held.seek(0)
                with open(2, "wb", closefd=False) as stream:
                    shutil.copyfileobj(held, stream)


@contextlib.contextmanager
def quiet_converters():
    """Hides what is logged and warned of; errors still raise, and the proof after a conversion is what counts.

    TensorFlow logs each input that it renames, the LiteRT converter calibrates with its own deprecated interpreter,
    and tf2onnx logs the traceback of each optimisation that it skips.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), standard_error_held():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
