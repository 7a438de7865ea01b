"""What the client makes of answers, whichever the protocol."""

import contextlib
from dataclasses import dataclass

from t2i_kd.serving.errors import INTERNAL


class ServingError(RuntimeError):
    """The endpoint gave no images.

    Attributes:
        code: gRPC's name of the reason, whichever the protocol: INVALID_ARGUMENT (the request can never succeed),
            NOT_FOUND (model, version or label), UNAVAILABLE (nobody there, or too busy), DEADLINE_EXCEEDED, ...
        message: one line.
    """

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


@dataclass(frozen=True)
class VersionStatus:
    """A version's number, its state (AVAILABLE, LOADING, ...), and what went wrong, or ""."""

    version: int
    state: str
    error: str


@contextlib.contextmanager
def expected_form():
    """Whatever an answer lacks is the server's fault."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"the answer has not TF Serving's form: {type(error).__name__}: {error}"
        raise ServingError(INTERNAL, message) from None


def named(signatures):
    """{name: (inputs, outputs)} with sorted names, without TensorFlow's own ones, such as `__saved_model_init_op`."""
    return {
        name: (sorted(inputs), sorted(outputs))
        for name, (inputs, outputs) in signatures.items()
        if not name.startswith("__")
    }
