"""`python -m t2i_kd.train` in processes of its own, as a user runs it, and what its runs leave."""

import json
import os
import signal
import subprocess
import sys
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


def start_without_tensorflow(code, *arguments):
    """Starts a program on JAX on a host without TensorFlow."""
    return start(*arguments, code=NO_TENSORFLOW + code, **ON_JAX)


def finish(process, code=0, seconds=300):
    """What a process printed, after it ended with the exit code within the time."""
    output, errors = process.communicate(timeout=seconds)
    assert process.returncode == code, output + errors
    return output


def refused(*arguments, **options):
    """The one line with which `python -m t2i_kd.train` refuses its arguments."""
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
