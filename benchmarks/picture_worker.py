"""One student in a process of its own, timed when it is asked: what the benchmarks of latency and memory start.

    python -m benchmarks.picture_worker --model=PATH --items=FILE --pictures=FILE.npy [--runtime=xla] [--threads=1]

It opens the model, draws the items, writes their pictures as uint8 and one line of JSON with its memory, and then, for
every line with a number that it reads, draws the first item so many times, one picture a call, and answers with the
seconds of each as JSON.
"""

import contextlib
import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import command
from t2i_kd.errors import UserError
from t2i_kd.imaging import to_uint8

RUNTIMES = ("artifact", "xla", "pytorch", "pytorch_channels_last")
MODULES = {".tflite": "ai_edge_litert.interpreter", ".onnx": "onnxruntime", "": "tensorflow"}
WARM_UP = 5


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("model", "", "a version folder, a .tflite or an .onnx; for the other runtimes a run directory")
    flags.DEFINE_enum("runtime", "artifact", RUNTIMES, "artifact: the file's own; xla: the run's Keras network in XLA")
    flags.DEFINE_integer("threads", 1, "that may work on one picture", 1)
    flags.DEFINE_string("items", "", "file of captions, one a line, or a .npy of images, uint8 [n, height, width, 3]")
    flags.DEFINE_string("pictures", "", "the .npy to write")
    flags.DEFINE_boolean("real_time", False, "time at real-time priority, on a machine that others use; Linux, root")


def memory(field):
    """The process's `VmRSS` (now) or `VmHWM` (at most, so far) in MB of 10^6 bytes; Linux only.

    Not `getrusage`, whose maximum a started process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) * 1024 / 1e6


def open_artifact(path, threads):
    """A function from one item to float32 or uint8 [1, height, width, 3], the whole way from the text or pixels."""
    from t2i_kd.loading import load_artifact

    runner = load_artifact(path, threads)
    if not Path(path).is_dir():
        return lambda item: runner.generate([item], [0])
    import tensorflow as tf

    condition, pixels = runner.condition, runner.loaded.signatures["pixels"]
    seeded = "seed" in pixels.structured_input_signature[1]
    rest = {"seed": tf.constant([0], tf.int64)} if seeded else {}
    # Not the runner's own call, which draws a lone item twice for the sake of equal bytes.
    return lambda item: pixels(**{condition.core: tf.constant(condition.core_values([item]))}, **rest)["image"].numpy()


def open_run(path, runtime, threads):
    """The same of the student of captions in a run directory, in XLA or in PyTorch."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from t2i_kd.exporting.core import core_function, core_specs
    from t2i_kd.student import load_student

    student = load_student(path)
    tokenizer = student.condition.front_end.tokenizer
    if runtime == "xla":
        core = tf.function(core_function(student, 1), input_signature=core_specs(student, 1), jit_compile=True)
        return lambda caption: core(tf.constant(tokenizer([caption])))["image"].numpy()
    import torch

    from benchmarks.pytorch_student import PyTorchStudent

    torch.set_num_threads(threads)
    twin = PyTorchStudent(student, channels_last=runtime == "pytorch_channels_last")

    def draw(caption):
        with torch.inference_mode():
            return twin(torch.from_numpy(tokenizer([caption])).long()).numpy()

    return draw


@contextlib.contextmanager
def real_time_priority():
    """All of this process's threads before any other's, while it lasts. Raises `UserError` without the right."""
    threads = [int(name) for name in os.listdir("/proc/self/task")]

    def schedule(policy, priority):
        for thread in threads:
            os.sched_setscheduler(thread, policy, os.sched_param(priority))

    try:
        schedule(os.SCHED_RR, 1)
    except PermissionError:
        raise UserError("--real_time: this user may not") from None
    try:
        yield
    finally:
        schedule(os.SCHED_OTHER, 0)


def read_items(path):
    """The items of `--items`: a list of strings, or an array of images."""
    return np.load(path) if path.endswith(".npy") else Path(path).read_text("utf-8").splitlines()


def seconds(draw, item, count):
    """The seconds of each of `count` pictures."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        draw(item)
        times.append(time.perf_counter() - began)
    return times


def main():
    """Runs the command."""
    values = flags.FLAGS
    items = read_items(values.items)
    artifact = values.runtime == "artifact"
    importlib.import_module(MODULES[Path(values.model).suffix if artifact else ""])
    before = memory("VmRSS")
    if artifact:
        draw = open_artifact(values.model, values.threads)
    else:
        draw = open_run(values.model, values.runtime, values.threads)
    seconds(draw, items[0], WARM_UP)
    peak = memory("VmHWM")
    np.save(values.pictures, np.concatenate([to_uint8(draw(item)) for item in items]))
    print(json.dumps({"peak": peak, "growth": peak - before}), flush=True)
    for line in sys.stdin:
        with real_time_priority() if values.real_time else contextlib.nullcontext():
            print(json.dumps(seconds(draw, items[0], int(line))), flush=True)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
