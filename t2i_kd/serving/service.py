"""What both protocols do with a request, once it is read."""

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.serving.errors import DEADLINE_EXCEEDED, INTERNAL, NOT_FOUND, UNAVAILABLE, RequestError, invalid
from t2i_kd.serving.signature import DEFAULT_SIGNATURE, STRING


class Service:
    """The model's versions behind the endpoint's bounds.

    Args:
        settings: `settings.Settings`, with the limits of `condition`.
        condition: the `Condition` class of what the model is asked with.
        repository: `repository.Repository`.
        metrics: `metrics.Metrics`.
    """

    def __init__(self, settings, condition, repository, metrics):
        self.settings, self.condition, self.repository, self.metrics = settings, condition, repository, metrics
        self._pending = 0
        # Images are decoded here; as many at once as batches are run, which bounds the memory.
        self._checkers = ThreadPoolExecutor(settings.num_batch_threads, "checker")

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
    def room_for(self, items):
        """Counts items as taken in until the block ends; the block holds their images and the encoded answer.

        Raises:
            RequestError: when too many are waiting already.
        """
        if self._pending + items > self.settings.max_pending_items:
            raise RequestError(
                UNAVAILABLE, f"too busy: {self._pending} {self.condition.kind}s are waiting; try again later"
            )
        self._add_pending(items)
        try:
            yield
        finally:
            self._add_pending(-items)

    def check_rows(self, rows):
        """Raises `RequestError` unless a request may have this many items. Call it before anything is copied."""
        most = self.settings.max_items_per_request
        if not 1 <= rows <= most:
            what = f"{self.condition.kind}s in a request"
            raise invalid(f"{rows} {what}; 1 to {most} are allowed (--max_items_per_request)")

    def check_names(self, signature, names):
        """Raises `RequestError` unless `names` are a signature's inputs, naming one that is missing or unknown."""
        for name in names:
            if name not in signature.inputs:
                raise invalid(f"unknown input {name[:100]!r}; the signature takes {', '.join(signature.inputs)}")
        for name in signature.inputs:
            if name not in names:
                raise invalid(f"input {name!r} is missing")

    def count_rows(self, signature, inputs):
        """The number of a request's rows.

        Args:
            signature: a `signature.Signature`.
            inputs: {name: list or array}.

        Raises:
            RequestError: naming an input that is missing, unknown, or of another length than the others.
        """
        self.check_names(signature, inputs)
        lengths = {name: len(values) for name, values in inputs.items()}
        if len(set(lengths.values())) > 1:
            raise invalid(f"inputs differ in length: {', '.join(f'{name} {n}' for name, n in lengths.items())}")
        rows = next(iter(lengths.values()))
        self.check_rows(rows)
        return rows

    async def checked(self, signature, inputs):
        """A request's values as arrays.

        Args:
            signature: a `signature.Signature`.
            inputs: {name: list of bytes or of JSON's values, or an array that is right already}, from `count_rows`.

        Returns:
            {name: array [n, ...]}.

        Raises:
            RequestError: naming the input and the row of a wrong type, size or value.
        """
        if self.condition.quick:
            return self._arrays(signature, inputs)
        return await asyncio.get_running_loop().run_in_executor(self._checkers, self._arrays, signature, inputs)

    async def predict(self, batcher, name, inputs, seconds=None):
        """Generates; raises `RequestError` when that takes longer than allowed, or than `seconds`.

        Args:
            batcher, name: from `open`.
            inputs: from `checked`.
            seconds: how long the client waits, where that is known.
        """
        limit = min(self.settings.request_timeout_seconds, seconds if seconds is not None else float("inf"))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(batcher.submit(name, inputs)), limit)
        except TimeoutError:
            raise RequestError(DEADLINE_EXCEEDED, f"not generated within {limit:g} seconds") from None

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

    def _arrays(self, signature, inputs):
        return {name: self._array(name, spec, inputs[name]) for name, spec in signature.inputs.items()}

    def _array(self, name, spec, values):
        if isinstance(values, np.ndarray):
            return values
        array = np.empty((len(values), *spec.shape), spec.dtype)
        for row, value in enumerate(values):
            try:
                array[row] = self._item(value) if spec.dtype == STRING else spec.numbers(value)
            except UserError as error:
                raise invalid(f"input {name!r}, row {row}: {error}") from None
        return array

    def _item(self, value):
        if not isinstance(value, bytes):
            raise UserError("not a string")
        most = self.settings.max_item_bytes
        if len(value) > most:
            raise UserError(
                f"{self.condition.kind}: {len(value)} bytes, more than the {most} allowed (--max_item_bytes)"
            )
        return self.condition.check_request(value)

    def _add_pending(self, items):
        self._pending += items
        self.metrics.pending.set(self._pending)
