"""A SavedModel in TensorFlow's C++ session, loaded by the C++ loader that TF Serving calls, through the C API.

TensorFlow's Python `tf.compat.v1.saved_model.loader` is a loader of its own; `TF_LoadSessionFromSavedModel` is
`tensorflow::LoadSavedModel` of `tensorflow/cc/saved_model/loader.cc`, as in `SavedModelBundleFactory`.
"""

import ctypes
import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

TSTRING_BYTES = 24


class _Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def library():
    """TensorFlow's C API as the wheel ships it on Linux, or None."""
    path = Path(tf.__file__).parent / "libtensorflow_cc.so.2"
    if not path.is_file():
        return None
    api = ctypes.CDLL(str(path))
    for name in [
        "TF_NewStatus",
        "TF_Message",
        "TF_NewGraph",
        "TF_NewSessionOptions",
        "TF_LoadSessionFromSavedModel",
        "TF_AllocateTensor",
        "TF_TensorData",
        "TF_GraphOperationByName",
        "TF_StringGetDataPointer",
    ]:
        getattr(api, name).restype = ctypes.c_void_p
    api.TF_Message.restype = ctypes.c_char_p
    for name in ("TF_Dim", "TF_StringGetSize"):
        getattr(api, name).restype = ctypes.c_int64
    return api


class CppSession:
    """Runs the signatures of a SavedModel. Args: api: `library()`; folder: a version's folder."""

    def __init__(self, api, folder):
        self.api, self.status, self.graph = api, _pointer(api.TF_NewStatus()), _pointer(api.TF_NewGraph())
        tags, meta = (ctypes.c_char_p * 1)(b"serve"), _Buffer()
        session = api.TF_LoadSessionFromSavedModel(
            _pointer(api.TF_NewSessionOptions()),
            None,
            str(folder).encode(),
            tags,
            1,
            self.graph,
            ctypes.byref(meta),
            self.status,
        )
        self._check()
        self.session = _pointer(session)
        self.signatures = MetaGraphDef.FromString(ctypes.string_at(meta.data, meta.length)).signature_def

    def run(self, signature_name, **inputs):
        """The signature's outputs as {name: array}, from its inputs: sequences of bytes or int64, or uint8 arrays."""
        api, signature = self.api, self.signatures[signature_name]
        feeds = (_Output * len(inputs))(*(self._output(signature.inputs[name].name) for name in inputs))
        values = (ctypes.c_void_p * len(inputs))(*map(self._tensor, inputs.values()))
        fetches = (_Output * len(signature.outputs))(*(self._output(t.name) for t in signature.outputs.values()))
        results = (ctypes.c_void_p * len(fetches))()
        api.TF_SessionRun(
            self.session,
            None,
            feeds,
            values,
            len(inputs),
            fetches,
            results,
            len(fetches),
            None,
            0,
            None,
            self.status,
        )
        self._check()
        return {name: self._array(result) for name, result in zip(signature.outputs, results, strict=True)}

    def _check(self):
        if self.api.TF_GetCode(self.status):
            raise RuntimeError(self.api.TF_Message(self.status).decode())

    def _output(self, tensor_name):
        operation, index = tensor_name.split(":")
        return _Output(self.api.TF_GraphOperationByName(self.graph, operation.encode()), int(index))

    def _tensor(self, values):
        if not isinstance(values[0], bytes):
            return self._numbers(values if isinstance(values, np.ndarray) else np.array(values, np.int64))
        api = self.api
        tensor = self._allocate(tf.string, [len(values)], TSTRING_BYTES * len(values))
        data = api.TF_TensorData(_pointer(tensor))
        for row, text in enumerate(values):
            place = _pointer(data + row * TSTRING_BYTES)
            api.TF_StringInit(place)
            api.TF_StringCopy(place, text, ctypes.c_size_t(len(text)))
        return tensor

    def _numbers(self, array):
        tensor = self._allocate(tf.as_dtype(array.dtype), array.shape, array.nbytes)
        ctypes.memmove(self.api.TF_TensorData(_pointer(tensor)), array.tobytes(), array.nbytes)
        return tensor

    def _allocate(self, dtype, shape, size):
        dims = (ctypes.c_int64 * len(shape))(*shape)
        return self.api.TF_AllocateTensor(dtype.as_datatype_enum, dims, len(shape), ctypes.c_size_t(size))

    def _array(self, result):
        api, tensor = self.api, _pointer(result)
        shape = [api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor))]
        count, data = math.prod(shape), api.TF_TensorData(tensor)
        if api.TF_TensorType(tensor) != tf.string.as_datatype_enum:
            return np.frombuffer(ctypes.string_at(data, count), np.uint8).reshape(shape)
        places = [_pointer(data + row * TSTRING_BYTES) for row in range(count)]
        strings = [
            ctypes.string_at(api.TF_StringGetDataPointer(place), api.TF_StringGetSize(place)) for place in places
        ]
        return np.array(strings, object).reshape(shape)


def _pointer(address):
    return ctypes.c_void_p(address)
