"""What a signature takes and gives, and JSON's numbers as one of its inputs."""

import itertools
from dataclasses import dataclass

import numpy as np

from t2i_kd.errors import UserError

DEFAULT_SIGNATURE = "serving_default"
STRING, SEED, PIXELS = np.dtype(object), np.dtype(np.int64), np.dtype(np.uint8)


@dataclass(frozen=True)
class Input:
    """One input of a signature, [batch, *shape].

    Attributes:
        dtype: `STRING`, `SEED` or `PIXELS`.
        shape: of one row.
    """

    dtype: np.dtype
    shape: tuple[int, ...] = ()

    def numbers(self, value):
        """One row.

        Args:
            value: an int, or lists of them in lists.

        Returns:
            Array of `dtype` and `shape`.

        Raises:
            UserError: when the value has another shape, or holds anything but integers that `dtype` can hold.
        """
        flat = [value]
        for size in self.shape:
            if not all(isinstance(part, list) and len(part) == size for part in flat):
                raise UserError(self._expected())
            flat = list(itertools.chain.from_iterable(flat))
        bounds = np.iinfo(self.dtype)
        if set(map(type, flat)) != {int} or min(flat) < bounds.min or max(flat) > bounds.max:
            raise UserError(self._expected())
        return np.array(flat, self.dtype).reshape(self.shape)

    def _expected(self):
        if not self.shape:
            return "not an integer of 64 bits"
        return f"not lists in the shape {list(self.shape)} of integers from 0 to 255"


@dataclass(frozen=True)
class Signature:
    """What a signature takes and gives.

    Attributes:
        inputs: {name: `Input`}.
        outputs: names, each [batch, ...].
    """

    inputs: dict[str, Input]
    outputs: tuple[str, ...]


def describe(where, function, request):
    """The `Signature` of a loaded function.

    Args:
        where: the beginning of an error's words.
        function: a `ConcreteFunction` of `tf.saved_model.load(...).signatures`.
        request: the name of the input that holds strings.

    Raises:
        UserError: naming an input that is neither the request's strings, nor seeds, nor uint8 images.
    """
    inputs = {}
    for name, spec in function.structured_input_signature[1].items():
        batch, *shape = spec.shape.as_list() if spec.shape.rank else [0]
        dtype = STRING if spec.dtype.name == "string" else np.dtype(spec.dtype.as_numpy_dtype)
        rank = 3 if dtype == PIXELS else 0
        known = name == request if dtype == STRING else dtype in (SEED, PIXELS)
        if not known or batch is not None or len(shape) != rank or None in shape:
            raise UserError(f"{where} takes {name} as {spec.dtype.name} {spec.shape}, which is not served")
        inputs[name] = Input(dtype, tuple(shape))
    return Signature(inputs, tuple(sorted(function.structured_outputs)))
