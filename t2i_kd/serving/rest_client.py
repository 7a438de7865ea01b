"""TF Serving's REST, as the client asks it."""

import asyncio
import base64
import threading

from t2i_kd.serving.client_answers import ServingError, VersionStatus, expected_form, named
from t2i_kd.serving.errors import DEADLINE_EXCEEDED, HTTP_STATUS, INTERNAL, INVALID_ARGUMENT, UNAVAILABLE

CODES = {status: code for code, status in HTTP_STATUS.items()} | {
    408: DEADLINE_EXCEEDED,
    413: INVALID_ARGUMENT,
    415: INVALID_ARGUMENT,
    429: UNAVAILABLE,
}


SPARE_SECONDS = 5.0


class RestProtocol:
    """Asks on an event loop in a thread of its own: nothing else bounds the time of a whole call."""

    @staticmethod
    def prepare():
        """Raises `ImportError` where what it needs is not installed."""
        import httpx  # noqa: F401

    def __init__(self, parts, model_name, version, label, timeout, connect_retries):
        import httpx

        self._httpx, self._timeout = httpx, timeout
        self._client = httpx.AsyncClient(
            base_url=f"{parts.scheme}://{parts.netloc}",
            timeout=None,
            transport=httpx.AsyncHTTPTransport(retries=connect_retries),
        )
        self._model = f"/v1/models/{model_name}"
        if version is not None:
            self._model += f"/versions/{version}"
        if label is not None:
            self._model += f"/labels/{label}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint client", daemon=True)
        self._thread.start()

    def predict(self, signature, name, items, seeds):
        values = [item if isinstance(item, str) else {"b64": base64.b64encode(item).decode()} for item in items]
        inputs = {name: values} if seeds is None else {name: values, "seed": seeds}
        answer = self._ask("POST", ":predict", json={"signature_name": signature, "inputs": inputs})
        with expected_form():
            return [base64.b64decode(value["b64"], validate=True) for value in answer["outputs"]]

    def statuses(self):
        answer = self._ask("GET", "")
        with expected_form():
            return [
                VersionStatus(int(entry["version"]), str(entry["state"]), str(entry["status"]["error_message"]))
                for entry in answer["model_version_status"]
            ]

    def signatures(self):
        answer = self._ask("GET", "/metadata")
        with expected_form():
            found = answer["metadata"]["signature_def"]["signature_def"]
            return named({name: (d["inputs"], d["outputs"]) for name, d in found.items()})

    def close(self):
        if not self._loop.is_closed():
            self._run(self._client.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, coroutine):
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            # The loop itself bounds the time; longer than this it can only be gone.
            return future.result(self._timeout + SPARE_SECONDS)
        finally:
            # Where the waiting itself was interrupted.
            future.cancel()

    def _ask(self, method, what, **content):
        try:
            answer = self._run(self._request(method, self._model + what, content))
        except TimeoutError:
            raise ServingError(DEADLINE_EXCEEDED, f"no answer in time, {self._timeout:g} seconds") from None
        except self._httpx.HTTPError as error:
            raise ServingError(UNAVAILABLE, str(error)) from None
        if answer.status_code != 200:
            code = CODES.get(answer.status_code, INTERNAL)
            raise ServingError(code, _json_error(answer) or f"HTTP status {answer.status_code}")
        try:
            return answer.json()
        except ValueError:
            raise ServingError(INTERNAL, "the answer is not JSON; is this the REST port?") from None

    async def _request(self, method, path, content):
        async with asyncio.timeout(self._timeout):
            return await self._client.request(method, path, **content)


def _json_error(answer):
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return ""
