"""TF Serving's REST API as an ASGI application, with health, metrics and a page for browsers beside it."""

import asyncio
import json
import re

from google.protobuf import json_format as protobuf_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tensorflow_serving.apis import get_model_metadata_pb2

from t2i_kd.serving import json_format
from t2i_kd.serving.errors import INVALID_ARGUMENT, UNAVAILABLE, RequestError, invalid
from t2i_kd.serving.page_routes import page_routes

TARGET = re.compile(
    r"(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?"
    r"(?P<method>:predict|/metadata)?"
)
# What is read of a body that is too large, so that its sender hears the answer instead of a broken connection.
MOST_DRAINED = 64 << 20
LARGE_ANSWER = 1 << 16


def make_app(service):
    """The application. Args: service: a `service.Service`."""
    rest = _Rest(service)
    return Starlette(
        routes=[
            *page_routes(),
            Route("/page.json", rest.page),
            Route("/healthz", rest.health),
            Route("/monitoring/prometheus/metrics", rest.metrics),
            Route("/v1/models/{target:path}", rest.model, methods=["GET", "POST"]),
        ],
        exception_handlers={HTTPException: _unknown_path, RequestError: _error},
    )


class _Rest:
    def __init__(self, service):
        self.service, self.settings = service, service.settings

    async def page(self, request):
        """What the page must know of the newest version."""
        with self.service.repository.hold() as (model, _):
            about = {"model": self.settings.model_name, "resolution": model.resolution, "noise_dim": model.noise_dim}
        return JSONResponse(about | {"max_captions_per_request": self.settings.max_captions_per_request})

    async def health(self, request):
        """200 while a version is loaded, 503 otherwise."""
        serving = self.service.repository.ready
        return JSONResponse({"status": "serving" if serving else "not serving"}, 200 if serving else 503)

    async def metrics(self, request):
        """Prometheus's text."""
        text, content_type = self.service.metrics.text()
        return Response(text, headers={"content-type": content_type})

    async def model(self, request):
        """Everything beneath /v1/models/."""
        match = TARGET.fullmatch(request.path_params["target"])
        if match is None:
            raise invalid(f"Malformed request: {request.method} {request.url.path[:200]}", 404)
        method = match["method"] or "status"
        wanted = "POST" if method == ":predict" else "GET"
        with self.service.measured("rest", method.strip(":/")):
            if request.method != wanted:
                raise invalid(f"Malformed request: {method.strip(':/')} is asked for with {wanted}", 405)
            self.service.check_name(match["name"])
            which = (int(match["version"]) if match["version"] else None, match["label"])
            if method == ":predict":
                return await self._predict(request, which)
            return self._metadata(which) if method == "/metadata" else self._status(which)

    async def _predict(self, request, which):
        body = await self._read(request)
        wanted, signature = json_format.parse(body)
        with self.service.open(signature, *which) as (name, described, _, batcher):
            values = json_format.read_inputs(wanted, described.inputs, self.service.check_rows)
            inputs = self.service.checked(described, values)
            with self.service.room_for(len(next(iter(inputs.values())))):
                outputs = await self.service.predict(batcher, name, inputs)
                if sum(values.nbytes for values in outputs.values()) > LARGE_ANSWER:
                    # Millions of pixels as text take a while; the other requests go on meanwhile.
                    answer = await asyncio.to_thread(json_format.write_outputs, wanted, outputs)
                else:
                    answer = json_format.write_outputs(wanted, outputs)
        return Response(answer, media_type="application/json")

    async def _read(self, request):
        most, body, size = self.settings.max_body_bytes, bytearray(), 0
        too_large = RequestError(
            INVALID_ARGUMENT, f"the body has more than {most} bytes (--max_body_bytes)", http_status=413
        )
        try:
            async with asyncio.timeout(self.settings.read_timeout_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most:
                        body += chunk
                    elif size > MOST_DRAINED:
                        raise too_large
        except TimeoutError:
            seconds = self.settings.read_timeout_seconds
            raise invalid(f"the body did not arrive within {seconds:g} seconds", 408) from None
        except ClientDisconnect:
            # Nobody hears this; it only ends and counts the request.
            raise invalid("the client went away before its request was complete", 408) from None
        if size > most:
            raise too_large
        return bytes(body)

    def _status(self, which):
        return JSONResponse(
            {
                "model_version_status": [
                    {
                        "version": str(version),
                        "state": state,
                        "status": {"error_code": "UNKNOWN" if message else "OK", "error_message": message},
                    }
                    for version, state, message in self.service.repository.statuses(*which)
                ]
            }
        )

    def _metadata(self, which):
        with self.service.repository.hold(*which) as (model, _):
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.signature_defs)
            shown = protobuf_json.MessageToDict(
                signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            spec = {"name": self.settings.model_name, "signature_name": "", "version": str(model.version)}
        return JSONResponse({"model_spec": spec, "metadata": {"signature_def": shown}})


def _error(request, error):
    # After these the rest of the request may still be under way: its bytes must not be read as the next request.
    headers = {"connection": "close"} if error.http_status in (408, 413) else {}
    if error.code == UNAVAILABLE:
        headers["retry-after"] = "1"
    return JSONResponse({"error": error.message}, error.http_status, headers)


def _unknown_path(request, error):
    message = f"Malformed request: {request.method} {request.url.path[:200]}"
    return Response(json.dumps({"error": message}), error.status_code, error.headers, "application/json")
