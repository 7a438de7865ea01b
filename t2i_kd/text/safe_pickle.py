"""Reads a pickle that holds NumPy arrays and plain containers, and nothing that could run code."""

import pickle
from collections import OrderedDict

import numpy as np

from t2i_kd.errors import UserError


def _latin1_bytes(text, encoding):
    # Python 3 writes bytes for protocol 2 as a call of `_codecs.encode`; no other codec is needed.
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text.encode("latin1")


# NumPy's own constructors of arrays and scalars, taken from what they write, since their module's name has changed.
_ARRAY = np.zeros(1).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1_bytes,
}
for _module in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _ARRAY
    _ALLOWED[f"{_module}.multiarray", "scalar"] = _SCALAR
    _ALLOWED[f"{_module}.numeric", "_frombuffer"] = _FROM_BUFFER
for _module in ("builtins", "__builtin__"):
    for _kind in (set, frozenset, bytearray):
        _ALLOWED[_module, _kind.__name__] = _kind


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"holds {module}.{name}, and only arrays and plain containers are read")
        return _ALLOWED[module, name]


def load_arrays(path):
    """What a pickle holds, of Python 2 (text as latin1) or 3.

    Returns:
        Lists, tuples, dicts, sets, strings, numbers and NumPy arrays of these.

    Raises:
        UserError: naming the file, when it cannot be read or names anything else; nothing of it has been run then.
    """
    try:
        with open(path, "rb") as file:
            return _ArrayUnpickler(file, encoding="latin1").load()
    # A damaged pickle may raise anything at all (documentation of `pickle.UnpicklingError`).
    except Exception as error:
        raise UserError(f"{path}: not a pickle of arrays: {' '.join(str(error).split())[:200]}") from None
