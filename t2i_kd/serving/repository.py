"""Which versions of a model are loaded: looks at its folder now and then, and never lets go of the last one."""

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path

from t2i_kd.errors import UserError
from t2i_kd.serving.batching import Batcher
from t2i_kd.serving.errors import NOT_FOUND, RequestError, invalid
from t2i_kd.serving.folders import fingerprint
from t2i_kd.versions import find_versions

log = logging.getLogger(__name__)

LOADING, AVAILABLE, UNLOADING, END = "LOADING", "AVAILABLE", "UNLOADING", "END"
REMEMBERED = 16


class _Loaded:
    """A loaded version, its queue, and how many requests hold it."""

    def __init__(self, model, batcher):
        self.model, self.batcher, self.holders, self.retired = model, batcher, 0, False


class _Refusal:
    """Why a version was refused, its files then and at the last look, and the thread that read it."""

    def __init__(self, seen, reason, reader):
        self.seen, self.reason, self.reader, self.latest = seen, reason, reader, seen

    def stands(self, seen):
        """Whether the version is to be left alone: unchanged, still changing, or still being read."""
        at_rest, self.latest = self.latest == seen, seen
        return not at_rest or self.seen == seen or self.reader.is_alive()


class Repository:
    """The versions of one model.

    Served are the newest version that can be loaded, and those that have a label. A version that is half written is
    left alone until its files have changed and are at rest; a version whose folder went away is served until another
    can be. Reading a version has a bound on its time: whatever never ends is left behind in a thread of its own.

    Args:
        settings: `settings.Settings`.
        metrics: `metrics.Metrics`.
        load: from a version's folder to a `model.Model`; raises `UserError`.
    """

    def __init__(self, settings, metrics, load):
        self._name, self._base = settings.model_name, Path(settings.model_base_path)
        self._labels = dict(settings.version_labels)
        self._settings, self._metrics, self._load = settings, metrics, load
        self._lock = threading.Lock()
        self._loaded = {}
        self._states = OrderedDict()
        self._refused = {}
        self._reader = None
        self._stop = threading.Event()
        self._thread = None

    def start(self):
        """Loads what there is, then goes on looking in a thread of its own.

        Raises:
            UserError: when the folder holds no version that can be loaded, or not one that has a label.
        """
        self.poll()
        if not self._loaded:
            reasons = (
                "; ".join(refusal.reason for refusal in self._refused.values())
                or "it holds no folder named by a number"
            )
            raise UserError(f"--model_base_path: {self._base}: nothing to serve: {reasons}")
        for label, version in self._labels.items():
            if version not in self._loaded:
                raise UserError(f"--version_label: {label}:{version}: that version cannot be loaded from {self._base}")
        self._thread = threading.Thread(target=self._keep_looking, name="versions", daemon=True)
        self._thread.start()

    def stop(self, timeout):
        """Stops looking, lets the queues empty; returns whether that was done within `timeout` seconds."""
        self._stop.set()
        with self._lock:
            batchers = [loaded.batcher for loaded in self._loaded.values()]
        for batcher in batchers:
            batcher.close()
        until = time.monotonic() + timeout
        return all(batcher.join(max(0.0, until - time.monotonic())) for batcher in batchers)

    @contextlib.contextmanager
    def hold(self, version=None, label=None):
        """The model and the queue of a version, which stays loaded while it is held.

        Args:
            version: a number; None for the newest, or the one that `label` names.
            label: a name of `--version_label`.

        Raises:
            RequestError: when there is no such version or label.
        """
        with self._lock:
            loaded = self._loaded.get(self._resolve(version, label))
            if loaded is None:
                raise RequestError(NOT_FOUND, f"Servable not found for request: {self._words(version, label)}")
            loaded.holders += 1
        try:
            yield loaded.model, loaded.batcher
        finally:
            with self._lock:
                loaded.holders -= 1
                self._let_go_if_free(loaded)

    def statuses(self, version=None, label=None):
        """[(version, state, message)], the newest version first; all of them, or only the one that is named.

        Raises:
            RequestError: when there is no such version or label.
        """
        with self._lock:
            number = self._resolve(version, label) if version is not None or label is not None else None
            found = [(known, *state) for known, state in self._states.items() if number in (None, known)]
        if not found:
            raise RequestError(NOT_FOUND, f"Could not find any versions of model {self._words(version, label)}")
        return sorted(found, reverse=True)

    @property
    def ready(self):
        """Whether a version is loaded, and each loaded one's threads are there to draw."""
        with self._lock:
            return bool(self._loaded) and all(loaded.batcher.alive for loaded in self._loaded.values())

    def poll(self):
        """Looks at the folder once; loads what is new and lets go of what is replaced."""
        on_disk = find_versions(self._base)
        for gone in self._refused.keys() - on_disk.keys():
            del self._refused[gone]
        newest = next((version for version in sorted(on_disk, reverse=True) if self._available(version, on_disk)), None)
        if newest is None:
            # Whatever is loaded is all there is.
            return
        wanted = {newest, *(version for version in self._labels.values() if self._available(version, on_disk))}
        with self._lock:
            for version in self._loaded.keys() - wanted:
                self._retire(version)

    def _keep_looking(self):
        while not self._stop.wait(self._settings.file_system_poll_wait_seconds):
            try:
                self.poll()
            except Exception:
                log.exception("looking at %s failed", self._base)

    def _available(self, version, on_disk):
        if version in self._loaded:
            return True
        folder = on_disk.get(version)
        if folder is None:
            return False
        seen = fingerprint(folder)
        if version in self._refused and self._refused[version].stands(seen):
            return False
        self._set_state(version, LOADING)
        try:
            model = self._read(version, folder)
            if fingerprint(folder) != seen:
                raise UserError(f"{folder}: its files changed while they were read")
        except UserError as error:
            self._refuse(version, seen, str(error))
            return False
        except Exception as error:  # TensorFlow's errors have no base class of their own
            self._refuse(version, seen, f"{folder}: its warm-up failed: {error}")
            return False
        self._add(version, model)
        return True

    def _read(self, version, folder):
        """A version's model, warmed up."""
        found, seconds = Future(), self._settings.load_timeout_seconds

        def read():
            try:
                model = self._load(folder)
                model.warm_up(self._settings.allowed_batch_sizes)
                found.set_result(model)
            except BaseException as error:
                found.set_exception(error)

        self._reader = threading.Thread(target=read, name=f"reader-{version}", daemon=True)
        self._reader.start()
        self._reader.join(seconds)
        if self._reader.is_alive():
            raise UserError(f"{folder}: not read and warmed up within {seconds:g} seconds (--load_timeout_seconds)")
        return found.result()

    def _add(self, version, model):
        settings = self._settings
        batcher = Batcher(
            model.run,
            settings.allowed_batch_sizes,
            settings.batch_timeout_micros / 1e6,
            self._metrics.observe_batch,
            name=f"batcher-{version}",
            threads=settings.num_batch_threads,
        )
        self._refused.pop(version, None)
        with self._lock:
            self._loaded[version] = _Loaded(model, batcher)
            self._remember(version, AVAILABLE)
        self._metrics.versions.labels(str(version)).set(1)
        log.info("version %d of %s is loaded", version, self._name)

    def _refuse(self, version, seen, reason):
        self._refused[version] = _Refusal(seen, reason, self._reader)
        self._metrics.refused.inc()
        # The reason names a file of this host: it is for the log, not for who asks.
        self._set_state(version, END, "the version cannot be loaded; the server's log says why")
        log.warning("version %d of %s is not loaded: %s", version, self._name, " ".join(reason.split()))

    def _retire(self, version):
        loaded = self._loaded.pop(version)
        loaded.retired = True
        self._remember(version, UNLOADING)
        self._let_go_if_free(loaded)

    def _let_go_if_free(self, loaded):
        if loaded.retired and not loaded.holders:
            version = loaded.model.version
            loaded.batcher.close()
            self._remember(version, END)
            self._metrics.versions.remove(str(version))
            log.info("version %d of %s is unloaded", version, self._name)

    def _set_state(self, version, state, message=""):
        with self._lock:
            self._remember(version, state, message)

    def _remember(self, version, state, message=""):
        self._states[version] = (state, message)
        self._states.move_to_end(version)
        over = [known for known, (was, _) in self._states.items() if was == END][:-REMEMBERED]
        for known in over:
            del self._states[known]

    def _resolve(self, version, label):
        if version is not None:
            return version
        if label is not None:
            if label not in self._labels:
                raise invalid(f"Unrecognized servable version label: {label[:100]}")
            return self._labels[label]
        return max(self._loaded, default=None)

    def _words(self, version, label):
        if version is not None:
            return f"Specific({self._name}, {version})"
        return f"Label({self._name}, {label})" if label is not None else f"Latest({self._name})"
