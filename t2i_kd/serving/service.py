"""What both protocols do with a request, once it is read."""

import asyncio
import contextlib
import time

import numpy as np

from t2i_kd.data.captioned_images import check_caption
from t2i_kd.errors import UserError
from t2i_kd.serving.errors import DEADLINE_EXCEEDED, INTERNAL, NOT_FOUND, UNAVAILABLE, RequestError, invalid
from t2i_kd.serving.model import TEXT

DEFAULT_SIGNATURE = "serving_default"
SEEDS = np.iinfo(np.int64)


class Service:
    """The model's versions behind the endpoint's bounds.

    Args:
        settings: `settings.Settings`.
        repository: `repository.Repository`.
        metrics: `metrics.Metrics`.
    """

    def __init__(self, settings, repository, metrics):
        self.settings, self.repository, self.metrics = settings, repository, metrics
        self._pending = 0

    def check_name(self, name):
        """Raises `RequestError` unless `name` is the model that is served."""
        if name != self.settings.model_name:
            raise RequestError(NOT_FOUND, f"Servable not found for request: Latest({name[:100]})")

    @contextlib.contextmanager
    def open(self, signature, version=None, label=None):
        """A version's model and queue, and the signature asked for ("" is the default one).

        Raises:
            RequestError: when the version or the signature is unknown.
        """
        with self.repository.hold(version, label) as (model, batcher):
            name = signature or DEFAULT_SIGNATURE
            if name not in model.signatures:
                known = ", ".join(sorted(model.signatures))
                raise invalid(f'Serving signature name: "{name[:100]}" not found; there are {known}')
            yield name, model.signatures[name], model, batcher

    @contextlib.contextmanager
    def room_for(self, captions):
        """Counts captions as taken in until the block ends; the block holds their pictures and the encoded answer.

        Raises:
            RequestError: when too many are waiting already.
        """
        if self._pending + captions > self.settings.max_pending_captions:
            raise RequestError(UNAVAILABLE, f"too busy: {self._pending} captions are waiting; try again later")
        self._add_pending(captions)
        try:
            yield
        finally:
            self._add_pending(-captions)

    def check_rows(self, rows):
        """Raises `RequestError` unless a request may have this many captions. Call it before anything is copied."""
        most = self.settings.max_captions_per_request
        if not 1 <= rows <= most:
            raise invalid(f"{rows} captions in a request; 1 to {most} are allowed (--max_captions_per_request)")

    def checked(self, signature, inputs):
        """A request's values as arrays.

        Args:
            signature: a `model.Signature`.
            inputs: {name: list of bytes or of int}.

        Returns:
            {name: array [n]}.

        Raises:
            RequestError: naming the input that is missing, unknown, or of a wrong type, length or value.
        """
        for name in inputs:
            if name not in signature.inputs:
                raise invalid(f"unknown input {name[:100]!r}; the signature takes {', '.join(signature.inputs)}")
        for name in signature.inputs:
            if name not in inputs:
                raise invalid(f"input {name!r} is missing")
        lengths = {name: len(values) for name, values in inputs.items()}
        if len(set(lengths.values())) > 1:
            raise invalid(f"inputs differ in length: {', '.join(f'{name} {n}' for name, n in lengths.items())}")
        self.check_rows(next(iter(lengths.values())))
        return {name: self._array(name, dtype, inputs[name]) for name, dtype in signature.inputs.items()}

    async def predict(self, batcher, name, inputs, seconds=None):
        """Draws; raises `RequestError` when that takes longer than allowed, or than `seconds`.

        Args:
            batcher, name: from `open`.
            inputs: from `checked`.
            seconds: how long the client waits, where that is known.
        """
        limit = min(self.settings.request_timeout_seconds, seconds if seconds is not None else float("inf"))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(batcher.submit(name, inputs)), limit)
        except TimeoutError:
            raise RequestError(DEADLINE_EXCEEDED, f"not drawn within {limit:g} seconds") from None

    @contextlib.contextmanager
    def measured(self, protocol, method):
        """Counts a request and times it. Yields a list; its last item is the code that is counted."""
        began, code = time.perf_counter(), ["OK"]
        try:
            yield code
        except RequestError as error:
            code.append(error.code)
            raise
        except BaseException:
            code.append(INTERNAL)
            raise
        finally:
            self.metrics.requests.labels(protocol, method, code[-1]).inc()
            self.metrics.seconds.labels(protocol).observe(time.perf_counter() - began)

    def _array(self, name, dtype, values):
        array = np.empty(len(values), dtype)
        for row, value in enumerate(values):
            try:
                array[row] = self._text(value) if dtype == TEXT else _seed(value)
            except UserError as error:
                raise invalid(f"input {name!r}, row {row}: {error}") from None
        return array

    def _text(self, value):
        if not isinstance(value, bytes):
            raise UserError("not a string")
        most = self.settings.max_caption_bytes
        if len(value) > most:
            raise UserError(f"caption: {len(value)} bytes, more than the {most} allowed (--max_caption_bytes)")
        check_caption(value)
        return value

    def _add_pending(self, captions):
        self._pending += captions
        self.metrics.pending.set(self._pending)


def _seed(value):
    if isinstance(value, bool) or not isinstance(value, int) or not SEEDS.min <= value <= SEEDS.max:
        raise UserError("not an integer of 64 bits")
    return value
