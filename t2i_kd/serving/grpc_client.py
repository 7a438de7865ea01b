"""TF Serving's gRPC, as the client asks it."""

import os
import queue
import time

from t2i_kd.serving.client_answers import ServingError, VersionStatus, expected_form, named
from t2i_kd.serving.errors import DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE

PAUSE_MILLISECONDS = 250


class GrpcProtocol:
    """Asks over one channel."""

    @staticmethod
    def prepare():
        """Loads gRPC so that it survives a fork, where nobody has loaded it before and it is not told otherwise.

        Raises `ImportError` where what it needs is not installed.
        """
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")
        # Loading them takes seconds, which no call's time is for.
        import grpc  # noqa: F401
        from tensorflow.core.framework import types_pb2  # noqa: F401
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc  # noqa: F401

    def __init__(self, parts, model_name, version, label, timeout, connect_retries):
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self._grpc = grpc
        # Many images in one answer are more than gRPC's 4 MiB.
        options = [("grpc.max_receive_message_length", -1)]
        options += [(f"grpc.{which}_reconnect_backoff_ms", PAUSE_MILLISECONDS) for which in ("initial", "max")]
        self._channel = grpc.insecure_channel(parts.netloc, options)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._which = (model_name, version, label)
        self._netloc, self._timeout = parts.netloc, timeout
        # httpx pauses for 0, 0.5, 1, 2, ... seconds. Half a second more for what an earlier call left behind.
        self._patience = 0.5 * 2 ** max(0, connect_retries - 1)
        self._connected = False

    def predict(self, signature, name, items, seeds):
        from tensorflow.core.framework import types_pb2
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._address(request.model_spec)
        request.model_spec.signature_name = signature
        strings = request.inputs[name]
        strings.dtype = types_pb2.DT_STRING
        strings.tensor_shape.dim.add(size=len(items))
        strings.string_val.extend(item.encode("utf-8") if isinstance(item, str) else item for item in items)
        if seeds is not None:
            seed = request.inputs["seed"]
            seed.dtype = types_pb2.DT_INT64
            seed.tensor_shape.dim.add(size=len(seeds))
            seed.int64_val.extend(seeds)
        answer = self._ask(self._prediction.Predict, request)
        with expected_form():
            return list(dict(answer.outputs)["image_bytes"].string_val)

    def statuses(self):
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        self._address(request.model_spec)
        state = get_model_status_pb2.ModelVersionStatus.State
        answer = self._ask(self._models.GetModelStatus, request)
        with expected_form():
            return [
                VersionStatus(entry.version, state.Name(entry.state), entry.status.error_message)
                for entry in answer.model_version_status
            ]

    def signatures(self):
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._address(request.model_spec)
        found = get_model_metadata_pb2.SignatureDefMap()
        answer = self._ask(self._prediction.GetModelMetadata, request)
        if not answer.metadata["signature_def"].Unpack(found):
            raise ServingError(INTERNAL, "the answer holds no signatures")
        return named({name: (d.inputs, d.outputs) for name, d in found.signature_def.items()})

    def close(self):
        self._channel.close()

    def _address(self, spec):
        spec.name, version, label = self._which
        if version is not None:
            spec.version.value = version
        if label is not None:
            spec.version_label = label

    def _ask(self, method, request):
        until = time.monotonic() + self._timeout
        if not self._connected:
            self._connect(until)
        try:
            return method(request, timeout=_left(until))
        except self._grpc.RpcError as error:
            self._connected = error.code() is not self._grpc.StatusCode.UNAVAILABLE
            raise ServingError(error.code().name, error.details()) from None

    def _connect(self, until):
        """Waits for a connection about as long as REST does; gRPC itself offers not at all, or to the last."""
        states, known = queue.SimpleQueue(), self._grpc.ChannelConnectivity
        give_up, note = None, states.put
        self._channel.subscribe(note, try_to_connect=True)
        try:
            while (state := states.get(timeout=_left(until, give_up))) is not known.READY:
                if state is known.TRANSIENT_FAILURE and give_up is None:
                    give_up = time.monotonic() + self._patience
        except queue.Empty:
            if give_up is None:
                raise ServingError(DEADLINE_EXCEEDED, f"no connection to {self._netloc} in time") from None
            raise ServingError(UNAVAILABLE, f"cannot connect to {self._netloc}") from None
        finally:
            self._channel.unsubscribe(note)
        self._connected = True


def _left(*times):
    return max(0.0, min(moment for moment in times if moment is not None) - time.monotonic())
