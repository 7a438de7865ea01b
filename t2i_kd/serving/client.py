"""Asks an endpoint for pictures: `python -m t2i_kd.serve`'s or tensorflow_model_server's, by REST or by gRPC.

with Client("http://localhost:8501", "shapes32") as client:
    client.generate(["a small red circle"])[0].save("circle.png")
"""

import base64
import io
from dataclasses import dataclass
from urllib.parse import urlsplit

from PIL import Image

from t2i_kd.serving.errors import DEADLINE_EXCEEDED, HTTP_STATUS, INTERNAL, INVALID_ARGUMENT, UNAVAILABLE

CODES = {status: code for code, status in HTTP_STATUS.items()} | {
    408: DEADLINE_EXCEEDED,
    413: INVALID_ARGUMENT,
    415: INVALID_ARGUMENT,
    429: UNAVAILABLE,
}


class ServingError(RuntimeError):
    """The endpoint gave no pictures.

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


class Client:
    """One model behind an endpoint; may be shared by threads.

    What is tried again: connecting, and nothing else. A picture depends on caption and seed alone, so that asking
    twice would do no harm to the answer; but a request that was sent may be being drawn, and to send it again after a
    timeout, a broken connection or "too busy" is what keeps an overloaded server overloaded. That is left to the
    caller, who sees `ServingError.code`.

    Args:
        address: "http://HOST:PORT" or "https://HOST[:PORT]" for REST, "grpc://HOST:PORT" for gRPC.
        model_name: the endpoint's --model_name.
        version, label: at most one of them: a version's number or its label; the newest version without.
        timeout: seconds that a call may take. By REST these bound each wait for the server, as httpx does.
        connect_retries: REST: how often connecting is tried again, with growing pauses. gRPC: whether (> 0) a call
            waits for the server to come up, until its timeout.

    Raises:
        ValueError: for another kind of address, or a version and a label.
    """

    def __init__(self, address, model_name, *, version=None, label=None, timeout=30.0, connect_retries=2):
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https", "grpc") or not parts.netloc or parts.path.strip("/"):
            raise ValueError(f"{address!r} is none of http://HOST:PORT, https://HOST and grpc://HOST:PORT")
        if version is not None and label is not None:
            raise ValueError("give a version or a label, not both")
        protocol = _Grpc if parts.scheme == "grpc" else _Rest
        self._protocol = protocol(parts, model_name, version, label, timeout, connect_retries)

    def generate(self, captions, seeds=None):
        """Draws captions.

        Args:
            captions: strings, at least one.
            seeds: as many integers of 64 bits; all 0 without.

        Returns:
            A list of `PIL.Image.Image`, RGB.

        Raises:
            ServingError: when there is no answer or the answer is an error.
        """
        return [Image.open(io.BytesIO(png)).convert("RGB") for png in self.generate_png(captions, seeds)]

    def generate_png(self, captions, seeds=None):
        """`generate` without decoding: a list of each PNG's bytes, as the server sent them."""
        captions = [] if isinstance(captions, str) else list(captions)
        if not captions:
            raise ValueError("captions: a list of at least one string is needed")
        if seeds is None:
            return self._protocol.predict("serving_default", captions, None)
        seeds = [int(seed) for seed in seeds]
        if len(seeds) != len(captions):
            raise ValueError(f"{len(captions)} captions for {len(seeds)} seeds")
        return self._protocol.predict("seeded", captions, seeds)

    def statuses(self):
        """[`VersionStatus`] of the model. Raises `ServingError`."""
        return self._protocol.statuses()

    def signatures(self):
        """{signature: (sorted input names, sorted output names)} of the version. Raises `ServingError`."""
        return self._protocol.signatures()

    def close(self):
        """Closes the connections."""
        self._protocol.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class _Rest:
    def __init__(self, parts, model_name, version, label, timeout, connect_retries):
        import httpx

        self._httpx = httpx
        self._client = httpx.Client(
            base_url=f"{parts.scheme}://{parts.netloc}",
            timeout=timeout,
            transport=httpx.HTTPTransport(retries=connect_retries),
        )
        self._model = f"/v1/models/{model_name}"
        if version is not None:
            self._model += f"/versions/{version}"
        if label is not None:
            self._model += f"/labels/{label}"

    def predict(self, signature, captions, seeds):
        inputs = {"text": captions} if seeds is None else {"text": captions, "seed": seeds}
        body = {"signature_name": signature, "inputs": inputs}
        outputs = self._ask("POST", ":predict", json=body)["outputs"]
        return [base64.b64decode(value["b64"]) for value in outputs]

    def statuses(self):
        return [
            VersionStatus(int(entry["version"]), entry["state"], entry["status"]["error_message"])
            for entry in self._ask("GET", "")["model_version_status"]
        ]

    def signatures(self):
        found = self._ask("GET", "/metadata")["metadata"]["signature_def"]["signature_def"]
        return _names({name: (d["inputs"], d["outputs"]) for name, d in found.items()})

    def close(self):
        self._client.close()

    def _ask(self, method, what, **content):
        try:
            answer = self._client.request(method, self._model + what, **content)
        except self._httpx.TimeoutException as error:
            raise ServingError(DEADLINE_EXCEEDED, f"no answer in time: {error}") from None
        except self._httpx.HTTPError as error:
            raise ServingError(UNAVAILABLE, str(error)) from None
        if answer.status_code != 200:
            code = CODES.get(answer.status_code, INTERNAL)
            raise ServingError(code, _json_error(answer) or f"HTTP status {answer.status_code}")
        try:
            return answer.json()
        except ValueError:
            raise ServingError(INTERNAL, "the answer is not JSON; is this the REST port?") from None


class _Grpc:
    def __init__(self, parts, model_name, version, label, timeout, connect_retries):
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self._grpc = grpc
        # Many pictures in one answer are more than gRPC's 4 MiB.
        self._channel = grpc.insecure_channel(parts.netloc, [("grpc.max_receive_message_length", -1)])
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._which = (model_name, version, label)
        self._call_options = {"timeout": timeout, "wait_for_ready": connect_retries > 0}

    def predict(self, signature, captions, seeds):
        from tensorflow.core.framework import types_pb2
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._address(request.model_spec)
        request.model_spec.signature_name = signature
        text = request.inputs["text"]
        text.dtype = types_pb2.DT_STRING
        text.tensor_shape.dim.add(size=len(captions))
        text.string_val.extend(caption.encode("utf-8") for caption in captions)
        if seeds is not None:
            seed = request.inputs["seed"]
            seed.dtype = types_pb2.DT_INT64
            seed.tensor_shape.dim.add(size=len(seeds))
            seed.int64_val.extend(seeds)
        return list(self._ask(self._prediction.Predict, request).outputs["image_bytes"].string_val)

    def statuses(self):
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        self._address(request.model_spec)
        state = get_model_status_pb2.ModelVersionStatus.State
        return [
            VersionStatus(entry.version, state.Name(entry.state), entry.status.error_message)
            for entry in self._ask(self._models.GetModelStatus, request).model_version_status
        ]

    def signatures(self):
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._address(request.model_spec)
        found = get_model_metadata_pb2.SignatureDefMap()
        self._ask(self._prediction.GetModelMetadata, request).metadata["signature_def"].Unpack(found)
        return _names({name: (d.inputs, d.outputs) for name, d in found.signature_def.items()})

    def close(self):
        self._channel.close()

    def _address(self, spec):
        spec.name, version, label = self._which
        if version is not None:
            spec.version.value = version
        if label is not None:
            spec.version_label = label

    def _ask(self, method, request):
        try:
            return method(request, **self._call_options)
        except self._grpc.RpcError as error:
            raise ServingError(error.code().name, error.details()) from None


def _names(signatures):
    """Without TensorFlow's own ones, such as `__saved_model_init_op`."""
    return {
        name: (sorted(inputs), sorted(outputs))
        for name, (inputs, outputs) in signatures.items()
        if not name.startswith("__")
    }


def _json_error(answer):
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return ""
