"""What stands around the REST application: the answers of a server that has too many connections, or that ends."""

import asyncio

from starlette.responses import JSONResponse

from t2i_kd.serving.errors import UNAVAILABLE, RequestError

HEALTH, METRICS = "/healthz", "/monitoring/prometheus/metrics"


def error_response(error):
    """A `RequestError` as TF Serving's JSON."""
    # After these the rest of the request may still be under way: its bytes must not be read as the next request.
    headers = {"connection": "close"} if error.http_status in (408, 413) else {}
    if error.code == UNAVAILABLE:
        headers["retry-after"] = "1"
    return JSONResponse({"error": error.message}, error.http_status, headers)


def refusing_all_but_probes(app, error):
    """An application that answers with an error, unless it is asked for its health or its metrics; then it hangs up."""

    async def refuse(scope, receive, send):
        async def send_last(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        answer = app if scope["path"] in (HEALTH, METRICS) else error_response(error)
        await answer(scope, receive, send_last)

    return refuse


def answering_when_cancelled(app):
    """An application that says so when its time is over: nothing cancels a request but the end of a shutdown."""

    async def answer(scope, receive, send):
        begun = False

        async def noted_send(message):
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, noted_send)
        except asyncio.CancelledError:
            if not begun:
                stopping = RequestError(UNAVAILABLE, "the server stopped before this was done")
                await error_response(stopping)(scope, receive, send)

    return answer
