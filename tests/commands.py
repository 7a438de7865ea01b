"""`python -m t2i_kd.train` in processes of its own, as a user runs it, and what its runs leave."""

import functools
import json
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# What a host without TensorFlow does with `import tensorflow`.
NO_TENSORFLOW = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
# Most of a tiny run's time goes into XLA, which is told to hurry.
ON_JAX = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
TRAIN = """
import runpy, sys
sys.argv[0] = "train"
runpy.run_module("t2i_kd.train", run_name="__main__", alter_sys=True)
"""


def environment(**changes):
    """That of the tests with this project on Python's path; a variable whose value is None is left out."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    merged = os.environ | {"PYTHONPATH": path} | changes
    return {name: value for name, value in merged.items() if value is not None}


def start(*arguments, code="", cwd=None, **changes):
    """Starts `python -m t2i_kd.train` with arguments, or `code` in its place, with changes to the environment."""
    return subprocess.Popen(
        [sys.executable, *(("-c", code) if code else ("-m", "t2i_kd.train")), *map(str, arguments)],
        env=environment(**changes),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Fork:
    """`python -m t2i_kd.train`, or another module, in a process that was forked where TensorFlow is imported already.

    Its imports take no time; flags, environment, streams, signals and exit code are those of a process that `start`
    starts, and so is what `subprocess.Popen` has of one. What is read where TensorFlow is imported cannot change.

    Args:
        arguments: of the command line.
        module: what is run.
        cwd: the folder that it is started in; None: this process's.
        devices: how many CPU devices the machine has.
        largest_file: in bytes; what is written beyond that ends in "File too large".
        changes: to the environment.
    """

    def __init__(self, *arguments, module="t2i_kd.train", cwd=None, devices=1, largest_file=None, **changes):
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("output", "errors")]
        limits = {"devices": devices, "largest_file": largest_file}
        given = (module, [*map(str, arguments)], self._streams, cwd or os.getcwd(), environment(**changes))
        self._process = _forks().Process(target=_run_module, args=given, kwargs=limits, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return tuple(path.read_text() for path in self._streams)


@functools.cache
def _forks():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["t2i_kd.sdn.trainer"])
    return context


def _run_module(module, arguments, streams, cwd, variables, devices, largest_file):
    for stream, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), stream)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    # As `python -m` has it.
    sys.path.insert(0, str(cwd))
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if devices > 1:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def start_without_tensorflow(code, *arguments):
    """Starts a program on JAX on a host without TensorFlow."""
    return start(*arguments, code=NO_TENSORFLOW + code, **ON_JAX)


def finish(process, code=0, seconds=300):
    """What a process printed, after it ended with the exit code within the time."""
    output, errors = process.communicate(timeout=seconds)
    assert process.returncode == code, output + errors
    return output


def refused(*arguments, start=start, **options):
    """The one line with which `python -m t2i_kd.train` refuses its arguments; `start` is `Fork` where that will do."""
    process = start(*arguments, **options)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 2 and output == "", errors
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    return line


def kill_after(process, run_dir, step, delay=0.0):
    """Kills a run `delay` seconds after metrics.jsonl knows of a step."""
    path = Path(run_dir) / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and f'"step": {step},' in path.read_text():
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    finish(process, -signal.SIGKILL)


def files(folder):
    """The names of all files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def arrays(path):
    """The arrays of a .npz."""
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def metrics(run_dir):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (Path(run_dir) / "metrics.jsonl").read_text().splitlines()]
