"""One process at a time on a folder: a lock that ends with its process, however that ends."""

import contextlib
import json
import os
import socket
import time
from pathlib import Path

from absl import logging

from t2i_kd.errors import UserError
from t2i_kd.files import read_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"


@contextlib.contextmanager
def only_process(path, what):
    """Holds the lock file `path`, in a folder that exists, and removes it at the end.

    The lock itself is the operating system's and ends with the process, also when that is killed; the file says who
    has it. On a file system without locks the work goes on without, which is told.

    Args:
        path: of the lock file.
        what: the flag and the folder, for the message.

    Raises:
        UserError: that another process holds it: which, where, and since when; or why the file cannot be made.
    """
    path = Path(path)
    try:
        file = _open_locked(path)
    except BlockingIOError:
        raise UserError(f"{what} is in use by {_holder(path)}") from None
    except OSError as error:
        raise UserError(f"{what}: {error.strerror or error}") from None
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            os.close(file)


def _open_locked(path):
    """The descriptor of the locked file, or None where there are no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file)
            # Whoever held it may have removed it in between.
            if path.exists() and os.fstat(file).st_ino == path.stat().st_ino:
                _sign(file)
                return file
        except BlockingIOError:
            os.close(file)
            raise
        except OSError as error:
            os.close(file)
            path.unlink(missing_ok=True)
            logging.warning("%s: no lock: %s; take care that no other process works there", path, error.strerror)
            return None
        os.close(file)


def _lock(file):
    if fcntl is None:
        raise OSError(0, "this platform has no file locks")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sign(file):
    signed = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    os.ftruncate(file, 0)
    os.write(file, json.dumps(signed).encode())


def _holder(path):
    try:
        signed = read_json(path)
        return f"process {signed['process']} on {signed['host']} since {signed['since']}"
    except (UserError, KeyError, TypeError):
        return "another process"
