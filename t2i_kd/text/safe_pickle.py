"""Reads a pickle that holds NumPy arrays and plain containers, and nothing that could run code or take memory over.

NumPy's own constructors believe the state that they are given: a dtype's may hide pointers in numbers. They are never
called here. What stands for them keeps what the file says, and arrays of plain dtypes are made of it once it is whole.
"""

import io
import math
import pickle
import pickletools
import re
import sys
from collections import OrderedDict

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.files import read_bytes

# Of a file: bytes, and operations, of which an array has some 20.
LARGEST_FILE, MOST_OPERATIONS = 2**29, 4_000_000

# What a dtype may be called: booleans, integers, floats, complex numbers, bytes, text and objects.
_DTYPE = re.compile(r"b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU][1-9][0-9]{0,5}|O8?")
_OBJECTS = ("O", "O8")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


def _refuse(what):
    raise pickle.UnpicklingError(what)


def _latin1_bytes(text, encoding):
    # Python 3 writes bytes for protocol 2 as a call of `_codecs.encode`; no other codec is needed.
    if not isinstance(text, str) or encoding != "latin1":
        _refuse(f"codec {encoding!r} is not allowed")
    return text.encode("latin1")


def _bytes(*content):
    # So Python 3 writes empty bytes for protocol 2.
    return b"" if not content else _refuse("bytes of something else")


def _bytearray(content=b"", encoding="latin-1"):
    if isinstance(content, str) and encoding == "latin-1":
        return bytearray(content, encoding)
    # Of a number it would be as many zeros.
    return bytearray(content) if isinstance(content, bytes) else _refuse("a bytearray of something else than bytes")


class _Constructor:
    """What a name in a file stands for: it can be called, and nothing of it can be changed."""

    def __init__(self, call):
        self.call = call

    def __call__(self, *arguments):
        return self.call(*arguments)

    def __setstate__(self, state):
        _refuse("a state for what is no array")


class _Dtype:
    """What a file says of a dtype: its name, and its byte order, which comes later."""

    __hash__ = None

    def __init__(self, name, align=False, copy=False):
        if not isinstance(name, str) or not _DTYPE.fullmatch(name):
            _refuse(f"holds the dtype {str(name)[:20]!r}, and only numbers, text and objects are read")
        self.name, self.order = name, "|"

    def __setstate__(self, state):
        version, order, subarray, names, fields, *sizes = state
        plain = (subarray, names, fields) == (None, None, None) and all(type(size) is int for size in sizes)
        if type(version) is not int or order not in ("<", ">", "|", "=") or not plain or len(sizes) > 3:
            _refuse(f"holds a dtype {self.name} with parts")
        self.order = order

    @property
    def dtype(self):
        return np.dtype(object if self.name in _OBJECTS else f"{self.order}{self.name}")


class _Array:
    """What a file says of an array: its shape, its dtype and its values."""

    __hash__ = None

    def __init__(self, state=None):
        self.state = state

    def __setstate__(self, state):
        self.state = state

    def array(self):
        """The array, of one's own memory, its objects as the file has them."""
        _, shape, described, fortran, values = self.state
        whole = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
        if not whole or len(shape) > 32 or not isinstance(described, _Dtype):
            _refuse("an array without a shape or a dtype")
        count, dtype = math.prod(shape), described.dtype
        if dtype.kind == "O":
            if not isinstance(values, list) or len(values) != count:
                _refuse("an array of objects with another number of them")
            made = np.empty(count, object)
            for index, value in enumerate(values):
                made[index] = value
        else:
            values = values.encode("latin1") if isinstance(values, str) else values
            if not isinstance(values, bytes | bytearray) or len(values) != count * dtype.itemsize:
                _refuse("an array with another number of bytes")
            made = np.ndarray((count,), dtype, bytes(values)).copy()
            if dtype.kind == "U" and made.view(f"{dtype.byteorder}u4").max(initial=0) > sys.maxunicode:
                _refuse("an array of text that is none")
        return made.reshape(shape, order="F" if fortran else "C")


class _Scalar(_Array):
    """What a file says of a scalar: an array of no sides."""

    def __init__(self, described, content):
        super().__init__((1, (), described, False, content))

    def array(self):
        return super().array()[()]


_NDARRAY = _Constructor(None)


def _reconstruct(kind, shape, typecode):
    return _Array() if kind is _NDARRAY else _refuse("an array of another kind")


def _from_buffer(content, described, shape, order):
    return _Array((1, shape, described, order == "F", content))


_ALLOWED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Constructor(_Dtype),
    ("collections", "OrderedDict"): _Constructor(OrderedDict),
    ("_codecs", "encode"): _Constructor(_latin1_bytes),
}
for _module in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _Constructor(_reconstruct)
    _ALLOWED[f"{_module}.multiarray", "scalar"] = _Constructor(_Scalar)
    _ALLOWED[f"{_module}.numeric", "_frombuffer"] = _Constructor(_from_buffer)
for _module in ("builtins", "__builtin__"):
    for _name, _call in (
        ("set", set),
        ("frozenset", frozenset),
        ("bytes", _bytes),
        ("bytearray", _bytearray),
    ):
        _ALLOWED[_module, _name] = _Constructor(_call)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            _refuse(f"holds {module}.{name}, and only arrays and plain containers are read")
        return _ALLOWED[module, name]


def _check_sizes(content):
    """Refuses what claims more than the file holds: `pickle` takes the memory first and looks then.

    A byte can be a list of its own, of 60 bytes, so that their number is bounded, too.
    """
    for count, (code, argument, _) in enumerate(pickletools.genops(content)):
        if count > MOST_OPERATIONS:
            _refuse(f"has more than {MOST_OPERATIONS:,} operations")
        if code.name in _PUTS and argument > count:
            _refuse(f"puts its object number {count} in place {argument}")


def _finished(value, memo):
    """A value with arrays in the place of what stands for them; lists and dicts are changed themselves."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, _Constructor):
        _refuse("holds a constructor")
    made = value
    if isinstance(value, _Dtype):
        made = value.dtype
    elif isinstance(value, _Array):
        made = value.array()
        if made.dtype.kind == "O":
            for index in np.ndindex(made.shape):
                made[index] = _finished(made[index], memo)
    elif isinstance(value, list):
        memo[id(value)] = value
        value[:] = [_finished(each, memo) for each in value]
    elif isinstance(value, dict):
        memo[id(value)] = value
        value.update({key: _finished(each, memo) for key, each in value.items()})
    elif isinstance(value, tuple):
        made = tuple([_finished(each, memo) for each in value])
    memo[id(value)] = made
    return made


def load_arrays(path):
    """What a pickle holds, of Python 2 (text as latin1) or 3.

    Returns:
        Lists, tuples, dicts, sets, strings, numbers and NumPy arrays of these.

    Raises:
        UserError: naming the file, when it cannot be read, names anything else, or claims more than it holds; nothing
            of it has been run then.
    """
    try:
        content = read_bytes(path, LARGEST_FILE)
        _check_sizes(content)
        return _finished(_ArrayUnpickler(io.BytesIO(content), encoding="latin1").load(), {})
    except UserError:
        raise
    # A damaged pickle may raise anything at all (documentation of `pickle.UnpicklingError`).
    except Exception as error:
        raise UserError(f"{path}: not a pickle of arrays: {' '.join(str(error).split())[:200]}") from None
