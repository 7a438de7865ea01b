"""Signals that ask a process to end: at once with one line, or, while it trains, after the step and its checkpoint."""

import contextlib
import signal

POLITE = (signal.SIGINT, signal.SIGTERM)

_asked_by = None


class Stopped(BaseException):
    """A signal asks the process to end; no handler of mistakes catches it."""


def asked():
    """The name of the signal that asked to end, or None."""
    return _asked_by


def end_at_once():
    """From now on a polite signal raises `Stopped`."""
    for number in POLITE:
        signal.signal(number, _raise)


@contextlib.contextmanager
def ending_after_the_step():
    """Within it the first polite signal only lets `asked` say so; the second raises `Stopped`."""
    global _asked_by
    _asked_by = None
    before = [signal.signal(number, _remember) for number in POLITE]
    try:
        yield
    finally:
        for number, handler in zip(POLITE, before, strict=True):
            signal.signal(number, handler)


def _remember(number, frame):
    global _asked_by
    if _asked_by:
        _raise(number, frame)
    _asked_by = signal.Signals(number).name


def _raise(number, frame):
    raise Stopped(signal.Signals(number).name)
