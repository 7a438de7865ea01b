"""TF Serving's gRPC services, with its own protocol buffers."""

import contextlib

import grpc
import tensorflow as tf
from google.protobuf.message_factory import GetMessageClass
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from t2i_kd.serving.errors import UNIMPLEMENTED, RequestError, invalid
from t2i_kd.serving.signature import PIXELS, SEED, STRING

DTYPES = {STRING: tf.string, SEED: tf.int64, PIXELS: tf.uint8}


def add_services(server, service):
    """Lets a server of `grpc_paths` answer. Args: server; service: a `service.Service`."""
    for file, name, servicer in (
        (prediction_service_pb2, "PredictionService", _PredictionService(service)),
        (model_service_pb2, "ModelService", _ModelService(service)),
    ):
        described = file.DESCRIPTOR.services_by_name[name]
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                getattr(servicer, method.name),
                GetMessageClass(method.input_type).FromString,
                GetMessageClass(method.output_type).SerializeToString,
            )
            for method in described.methods
        }
        # What TF Serving's own `add_...Servicer_to_server` adds is looked for by every path, see `grpc_paths`.
        server.add_registered_method_handlers(described.full_name, handlers)


def _answering(method):
    """Turns a method that returns an answer or raises `RequestError` into gRPC's form, counted and timed."""

    async def answer(self, request, context):
        try:
            with self.service.measured("grpc", method.__name__):
                return await method(self, request, context)
        except RequestError as error:
            await context.abort(grpc.StatusCode[error.code], error.message)

    return answer


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, service):
        self.service = service

    @_answering
    async def Predict(self, request, context):
        """Generates; see `t2i_kd.exporting.saved_model` for the signatures."""
        service, spec = self.service, request.model_spec
        service.check_name(spec.name)
        with service.open(spec.signature_name, *_which(spec)) as (name, signature, model, batcher):
            unknown = set(request.output_filter) - set(signature.outputs)
            if unknown:
                raise invalid(f"output_filter: the signature has no output {min(unknown)[:100]!r}")
            service.check_names(signature, request.inputs)
            values = {key: self._values(key, request.inputs[key], spec) for key, spec in signature.inputs.items()}
            with contextlib.ExitStack() as held:
                held.enter_context(service.room_for(service.count_rows(signature, values)))
                inputs = await service.checked(signature, values)
                outputs = await service.predict(batcher, name, inputs, context.time_remaining())
                answer = predict_pb2.PredictResponse()
                for key in request.output_filter or signature.outputs:
                    answer.outputs[key].CopyFrom(_tensor(outputs[key]))
                # They count until the client has taken the answer.
                taken = held.pop_all()
                context.add_done_callback(lambda _: taken.close())
        answer.model_spec.name, answer.model_spec.signature_name = spec.name, name
        answer.model_spec.version.value = model.version
        return answer

    @_answering
    async def GetModelMetadata(self, request, context):
        """The signatures of a version."""
        self.service.check_name(request.model_spec.name)
        if not request.metadata_field or set(request.metadata_field) != {"signature_def"}:
            raise invalid("metadata_field: only signature_def is known")
        with self.service.repository.hold(*_which(request.model_spec)) as (model, _):
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.signature_defs)
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            answer.model_spec.name, answer.model_spec.version.value = request.model_spec.name, model.version
        answer.metadata["signature_def"].Pack(signatures)
        return answer

    @_answering
    async def Classify(self, request, context):
        """Not for a model that generates images."""
        raise RequestError(UNIMPLEMENTED, "a model that generates images has no Classify; use Predict")

    @_answering
    async def Regress(self, request, context):
        """Not for a model that generates images."""
        raise RequestError(UNIMPLEMENTED, "a model that generates images has no Regress; use Predict")

    @_answering
    async def MultiInference(self, request, context):
        """Not for a model that generates images."""
        raise RequestError(UNIMPLEMENTED, "a model that generates images has no MultiInference; use Predict")

    def _values(self, key, tensor, spec):
        """A `TensorProto` as `service.checked` takes it, looked at before anything of its claimed size is made."""
        expected = DTYPES[spec.dtype]
        if tensor.dtype != expected.as_datatype_enum:
            raise invalid(f"input {key!r}: its dtype is not {expected.name}")
        dims = [dim.size for dim in tensor.tensor_shape.dim]
        if tensor.tensor_shape.unknown_rank or not dims or tuple(dims[1:]) != spec.shape:
            wanted = ", ".join(["batch", *map(str, spec.shape)])
            raise invalid(f"input {key!r}: its shape is {str(dims)[:100]}, not [{wanted}]")
        self.service.check_rows(dims[0])
        try:
            values = tf.make_ndarray(tensor)
        except (ValueError, TypeError, OverflowError):
            raise invalid(f"input {key!r}: its values do not fill its shape {dims}") from None
        return values if spec.shape else values.tolist()


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, service):
        self.service = service

    @_answering
    async def GetModelStatus(self, request, context):
        """The versions and their states."""
        self.service.check_name(request.model_spec.name)
        answer = get_model_status_pb2.GetModelStatusResponse()
        states = get_model_status_pb2.ModelVersionStatus
        for version, state, message in self.service.repository.statuses(*_which(request.model_spec)):
            entry = answer.model_version_status.add(version=version, state=states.State.Value(state))
            entry.status.error_message = message
            entry.status.error_code = 2 if message else 0  # tensorflow.error.UNKNOWN and OK
        return answer

    @_answering
    async def HandleReloadConfigRequest(self, request, context):
        """Not offered: no request may name a path."""
        raise RequestError(UNIMPLEMENTED, "the configuration is given at the start")


def _which(spec):
    version = spec.version.value if spec.HasField("version") else None
    return version, spec.version_label or None


def _tensor(values):
    return tf.make_tensor_proto(values, dtype=tf.string if values.dtype == STRING else None)
