"""TF Serving's REST API as an ASGI application, with health, metrics and a page for browsers beside it."""

import asyncio
import contextlib
import json
import re
import zlib

from google.protobuf import json_format as protobuf_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tensorflow_serving.apis import get_model_metadata_pb2

from t2i_kd.data.captioned_images import check_caption
from t2i_kd.serving import json_format
from t2i_kd.serving.asgi import HEALTH, METRICS, error_response
from t2i_kd.serving.errors import RequestError, invalid
from t2i_kd.serving.page_routes import page_routes
from t2i_kd.serving.sites import refusing_other_sites
from t2i_kd.versions import LARGEST_VERSION

MODEL = r"(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
TARGETS = {
    "POST": re.compile(MODEL + r":(?P<what>predict)"),
    "GET": re.compile(MODEL + r"(?:/(?P<what>metadata))?"),
}
# What is read of a body that is too large, so that its sender hears the answer instead of a broken connection.
MOST_DRAINED = 64 << 20
# `curl -d` says that it sends a form. So may a page, but not without an Origin.
BODY_TYPES = re.compile(r"application/(?:(?:[a-z0-9.-]+\+)?json|x-www-form-urlencoded)")
LARGE_ANSWER = 1 << 16
PAGE_LIMITS = ("max_items_per_request", "max_item_bytes", "max_body_bytes")


def make_app(service):
    """The application. Args: service: a `service.Service`."""
    rest = _Rest(service)
    app = Starlette(
        routes=[
            *page_routes(),
            Route("/page.json", rest.page),
            Route("/unread.json", rest.unread, methods=["POST"]),
            Route(HEALTH, rest.health),
            Route(METRICS, rest.metrics),
            Route("/v1/models/{target:path}", rest.model, methods=["GET", "POST"]),
        ],
        exception_handlers={HTTPException: _unknown_path, RequestError: _error},
    )
    app.router.redirect_slashes = False
    return refusing_other_sites(app, service.settings)


class _Rest:
    def __init__(self, service):
        self.service, self.settings = service, service.settings

    async def page(self, request):
        """What the page must know of the newest version."""
        with self.service.repository.hold() as (model, _):
            about = {"resolution": model.resolution, "noise_dim": model.noise_dim}
            condition = {key: model.condition[key] for key in ("kind", "request", "inputs")}
        limits = {name: getattr(self.settings, name) for name in PAGE_LIMITS}
        return JSONResponse({"model": self.settings.model_name, "condition": condition, **about, **limits})

    async def unread(self, request):
        """For the page: a JSON list of captions to what of each the newest version cannot read, lists of sentences."""
        body = self._unpacked(request, await self._read(request))
        try:
            captions = json.loads(body)
            if not isinstance(captions, list):
                raise ValueError
            captions = [check_caption(caption) for caption in captions if isinstance(caption, str)]
        except (ValueError, TypeError, RecursionError):
            raise invalid("not a JSON list of captions") from None
        with self.service.repository.hold() as (model, _):
            return JSONResponse([model.unread(caption) for caption in captions])

    async def health(self, request):
        """200 while a version is loaded and images are drawn, 503 otherwise."""
        serving = self.service.repository.ready
        return JSONResponse({"status": "serving" if serving else "not serving"}, 200 if serving else 503)

    async def metrics(self, request):
        """Prometheus's text."""
        text, content_type = self.service.metrics.text()
        return Response(text, headers={"content-type": content_type})

    async def model(self, request):
        """Everything beneath /v1/models/."""
        target = TARGETS.get(request.method)
        match = target and target.fullmatch(request.path_params["target"])
        if not match:
            raise _malformed(request)
        what = match["what"] or "status"
        with self.service.measured("rest", what):
            self.service.check_name(match["name"])
            which = (_version(match["version"]), match["label"])
            if what == "predict":
                return await self._predict(request, which)
            return self._metadata(which) if what == "metadata" else self._status(which)

    async def _predict(self, request, which):
        form, content, signature = json_format.parse(self._unpacked(request, await self._read(request)))
        with self.service.open(signature, *which) as (name, described, _, batcher), contextlib.ExitStack() as held:
            values = json_format.read_inputs(form, content, described.inputs, self.service.check_rows)
            held.enter_context(self.service.room_for(self.service.count_rows(described, values)))
            inputs = await self.service.checked(described, values)
            # Lists of pixels are many times as large as what is kept of them.
            del content, values
            outputs = await self.service.predict(batcher, name, inputs)
            if sum(values.nbytes for values in outputs.values()) > LARGE_ANSWER:
                # Millions of pixels as text take a while; the other requests go on meanwhile.
                answer = await asyncio.to_thread(json_format.write_outputs, form, outputs)
            else:
                answer = json_format.write_outputs(form, outputs)
            return _Images(answer, held.pop_all())

    async def _read(self, request):
        for content_type in request.headers.getlist("content-type"):
            if not BODY_TYPES.fullmatch(content_type.partition(";")[0].strip().lower()):
                raise invalid(f"Content-Type {content_type[:100]!r} is not known; application/json is", 415)
        most, body, size = self.settings.max_body_bytes, bytearray(), 0
        too_large = invalid(f"the body has more than {most} bytes (--max_body_bytes)", 413)
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

    def _unpacked(self, request, body):
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding == "identity":
            return body
        if encoding != "gzip":
            raise invalid(f"Content-Encoding {encoding[:100]!r} is not known; gzip is", 415)
        most, reader = self.settings.max_body_bytes, zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            unpacked = reader.decompress(body, most + 1)
        except zlib.error:
            raise invalid("the body is not gzip, though its Content-Encoding says so") from None
        if len(unpacked) > most:
            raise invalid(f"the unpacked body has more than {most} bytes (--max_body_bytes)", 413)
        if not reader.eof:
            raise invalid("the body is the beginning of something larger in gzip")
        return unpacked

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


class _Images(Response):
    """An answer that holds something until the client has taken it, but for what fits into a socket's buffers."""

    media_type = "application/json"

    def __init__(self, content, held):
        super().__init__(content)
        self._held = held

    async def __call__(self, scope, receive, send):
        with self._held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            # Waits, as every piece does, for the one before it.
            await send({"type": "http.response.body", "body": b""})


def _error(request, error):
    return error_response(error)


def _version(digits):
    if digits is None:
        return None
    significant = digits.lstrip("0") or "0"
    if len(significant) > len(str(LARGEST_VERSION)) or int(significant) > LARGEST_VERSION:
        raise invalid(f"Failed to convert version: {digits[:100]} to numeric.")
    return int(significant)


def _malformed(request, http_status=None):
    return invalid(f"Malformed request: {request.method} {request.url.path[:200]}", http_status)


def _unknown_path(request, error):
    # Beneath /v1/ TF Serving knows but one answer to whatever it does not.
    if request.url.path.startswith("/v1/"):
        return error_response(_malformed(request))
    answer = error_response(_malformed(request, error.status_code))
    answer.headers.update(error.headers or {})
    return answer
