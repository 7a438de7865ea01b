"""Requests that arrive together are run together."""

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError

import numpy as np

from t2i_kd.serving.errors import INTERNAL, RequestError

log = logging.getLogger(__name__)


class _Job:
    def __init__(self, signature, inputs, rows):
        self.signature, self.inputs, self.rows = signature, inputs, rows
        self.arrived = time.monotonic()
        self.taken = self.done = 0
        self.parts = {}
        self.future = Future()


class Batcher:
    """A queue and the threads that empty it.

    The oldest request decides which signature is run next; whatever else waits for that signature goes along, up to
    the largest batch size. A request may be spread over several batches. A batch is filled up to the next allowed size
    with copies of its first row, whose answers are dropped. When a batch fails, each of its requests is run alone, so
    that none pays for what another one holds; a batch whose outputs have another number of rows has failed.

    Args:
        run: from (signature, {name: array [batch]}) to {name: array [batch, ...]}.
        allowed_sizes: growing batch sizes.
        timeout: seconds that the oldest request may wait for company.
        observe: called with (rows, size, seconds) after each batch.
        name: of the threads.
        threads: batches that are run at the same time.
    """

    def __init__(
        self, run, allowed_sizes, timeout=0.0, observe=lambda rows, size, seconds: None, name="batcher", threads=1
    ):
        self._run, self._sizes, self._timeout, self._observe = run, tuple(allowed_sizes), timeout, observe
        self._jobs = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, signature, inputs):
        """Puts a request into the queue.

        Args:
            signature: a name.
            inputs: {name: array [n]}, n at least 1.

        Returns:
            A `concurrent.futures.Future` of {name: array [n, ...]}. Cancelled, what was not begun is not run.
        """
        job = _Job(signature, inputs, len(next(iter(inputs.values()))))
        with self._changed:
            if self._closing:
                raise RuntimeError("submitted to a batcher that was closed")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    @property
    def alive(self):
        """Whether every thread is there to run what is submitted."""
        return all(thread.is_alive() for thread in self._threads)

    def close(self):
        """Lets the threads end once everything that waits is answered; returns at once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, timeout):
        """Waits for the threads' end; returns whether they ended."""
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self):
        while True:
            with self._changed:
                self._wait_for_batch()
                if not self._jobs and self._closing:
                    return
                batch = self._take()
                if self._jobs:
                    self._changed.notify()
            if not batch:
                continue
            try:
                self._answer(batch)
            except Exception as error:  # the thread must live, whatever happened
                _fail(batch, "a batch's answers could not be given", error)

    def _wait_for_batch(self):
        while not self._closing:
            if not self._jobs:
                self._changed.wait()
                continue
            oldest = self._jobs[0]
            left = oldest.arrived + self._timeout - time.monotonic()
            if left <= 0 or self._waiting(oldest.signature) >= self._sizes[-1]:
                return
            self._changed.wait(left)

    def _waiting(self, signature):
        return sum(job.rows - job.taken for job in self._jobs if job.signature == signature)

    def _take(self):
        """[(job, first row, last row + 1)] of one signature; wholly taken and abandoned jobs leave the queue."""
        batch, kept, room = [], deque(), self._sizes[-1]
        for job in self._jobs:
            if job.future.done():
                continue
            if room and (not batch or job.signature == batch[0][0].signature):
                rows = min(job.rows - job.taken, room)
                batch.append((job, job.taken, job.taken + rows))
                job.taken += rows
                room -= rows
            if job.taken < job.rows:
                kept.append(job)
        self._jobs = kept
        return batch

    def _answer(self, batch):
        rows = sum(stop - start for _, start, stop in batch)
        size = next(size for size in self._sizes if size >= rows)
        began = time.monotonic()
        try:
            outputs = self._run(batch[0][0].signature, _stack(batch, size - rows))
            check_rows(outputs, size)
        except Exception as error:
            self._blame(batch, error)
            return
        self._observe(rows, size, time.monotonic() - began)
        at = 0
        for job, start, stop in batch:
            part = {name: values[at : at + stop - start] for name, values in outputs.items()}
            at += stop - start
            if self._put(job, start, part, stop - start):
                parts = [job.parts[start] for start in sorted(job.parts)]
                _finish(job, {name: np.concatenate([part[name] for part in parts]) for name in outputs})

    def _blame(self, batch, error):
        if len(batch) > 1:
            for alone in batch:
                self._answer([alone])
            return
        if isinstance(error, RequestError):
            _finish(batch[0][0], error=error)
        else:
            _fail(batch, "a batch failed", error)

    def _put(self, job, start, part, rows):
        """Keeps a part of a request's answer; returns whether it was the last one that was missing."""
        with self._changed:
            job.parts[start] = part
            job.done += rows
            return job.done == job.rows


def check_rows(outputs, size):
    """Raises `ValueError` unless every output of a batch has a row for each of its inputs' rows.

    Args:
        outputs: {name: array}.
        size: of the batch.
    """
    for name, values in outputs.items():
        if np.ndim(values) == 0 or len(values) != size:
            raise ValueError(f"output {name} has the shape {list(np.shape(values))} for {size} rows")


def _stack(batch, padding):
    first = batch[0][0].inputs
    pieces = {name: [job.inputs[name][start:stop] for job, start, stop in batch] for name in first}
    return {name: np.concatenate([*parts, np.repeat(parts[0][:1], padding, axis=0)]) for name, parts in pieces.items()}


def _fail(batch, what, error):
    log.error(what, exc_info=error)
    for job, *_ in batch:
        _finish(job, error=RequestError(INTERNAL, "the model could not answer this request"))


def _finish(job, result=None, error=None):
    try:
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
    except InvalidStateError:
        # Cancelled by its client, or failed with an earlier part of the same request.
        pass
