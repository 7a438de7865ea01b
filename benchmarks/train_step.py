"""What a training step costs: this project's beside the same networks and losses in PyTorch, by turns, in one run.

    pip install -e ".[benchmarks]"
    python -m benchmarks.train_step [--objectives=mirrored,perceptual,adversarial,kd_dlgan,cycle_gan]
        [--resolution=64] [--batch_size=8] [--width=1] [--dtype_policy=mixed_bfloat16]

Each side trains in a process of its own and waits while the other works; a ratio is the median over the turns of
neighbouring pairs. TensorFlow's side is `train_stage`, the loop of `python -m t2i_kd.train`, with its input pipeline,
checkpoints left out; PyTorch's has its batch in memory. Both start from the same weights and the same batch, and the
losses of their first step must agree. Both compute in the precision that is asked for, PyTorch by `torch.autocast`.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import flags

from benchmarks import command
from t2i_kd.errors import UserError

# --dtype_policy -> how far the first losses may lie apart, as a share.
LARGEST_LOSS_DIFFERENCES = {"float32": 1e-4, "mixed_bfloat16": 2e-2}
WORKERS = {
    "tensorflow": "benchmarks.tensorflow_steps",
    "pytorch": "benchmarks.pytorch_steps",
    "tensorflow_gan": "benchmarks.tensorflow_gan_steps",
    "pytorch_gan": "benchmarks.pytorch_gan_steps",
    "tensorflow_kd_dlgan": "benchmarks.tensorflow_kd_dlgan_steps",
    "pytorch_kd_dlgan": "benchmarks.pytorch_kd_dlgan_steps",
    "tensorflow_cycle_gan": "benchmarks.tensorflow_cycle_gan_steps",
    "pytorch_cycle_gan": "benchmarks.pytorch_cycle_gan_steps",
    "recipe": "benchmarks.recipe_worker",
}
# Objectives of two optimizers -> what their workers' names end with.
ADVERSARIAL = {"adversarial": "gan", "kd_dlgan": "kd_dlgan", "cycle_gan": "cycle_gan"}
# Sides of the other objectives alone.
NOT_ADVERSARIAL = ("tensorflow_cached", "tensorflow_keras_adam")
# --clock -> the key of a worker's answer.
CLOCK_KEYS = {"wall": "seconds", "processor": "processor_seconds"}
MEASURED = ["tensorflow", "tensorflow_cached", "pytorch", "pytorch_compiled"]
# Label -> (worker, its further options).
SIDES = {
    "tensorflow": ("tensorflow", {}),
    "tensorflow_cached": ("tensorflow", {"cached": True}),
    "tensorflow_xla": ("tensorflow", {"training": {"jit_compile": True}}),
    "tensorflow_keras_adam": ("tensorflow", {"keras_adam": True}),
    "pytorch": ("pytorch", {"compiled": False}),
    "pytorch_compiled": ("pytorch", {"compiled": True}),
}


def thread_limits(threads):
    """The environment that holds both frameworks to a number of threads; 0: each as it likes."""
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return dict.fromkeys(names, str(threads)) if threads else {}


class Worker:
    """A process that trains when it is told to.

    Args:
        name: a key of `WORKERS`.
        options: of the worker, see `benchmarks/tensorflow_steps.py`; `tree`, the folder whose code it runs, where
            that is not this process's. Paths are relative to this process's folder all the same.
        log: open file for its standard error.
    """

    def __init__(self, name, options, log):
        command = [sys.executable, "-m", WORKERS[name], json.dumps(options)]
        self.name, self.log, self.clock = name, log, options["clock"]
        environment = os.environ | thread_limits(options["threads"])
        if options.get("tree"):
            environment |= {"PYTHONPATH": os.path.abspath(options["tree"]), "PYTHONSAFEPATH": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)

    def answer(self):
        """The next answer, a dict."""
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.log.seek(0)
        raise UserError(f"{self.name} stopped: {' '.join(self.log.read().split())[-400:]}")

    def turn(self):
        """Seconds a step of one turn."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()[self.clock]

    def close(self):
        """Ends the process."""
        self.process.kill()
        self.process.wait()


def measure(names, options, turns):
    """Seconds a step of each side in each turn.

    Args:
        names: {label: (worker, further options)}; the first makes the weights and the batch that the others read.
        options: of all workers.
        turns: how often each side is asked, one after the other; the first turn is not counted.

    Returns:
        ({label: [seconds]}, {label: the worker's first answer}).
    """
    seconds, firsts = {label: [] for label in names}, {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        workers = {}
        for label, (worker, further) in names.items():
            log = stack.enter_context(open(Path(folder) / f"{label}.log", "w+"))
            workers[label] = Worker(worker, {**options, **further, "folder": folder}, log)
            stack.callback(workers[label].close)
            firsts[label] = workers[label].answer()
        for turn in range(turns + 1):
            for label, worker in workers.items():
                taken = worker.turn()
                if turn:
                    seconds[label].append(taken)
    return seconds, firsts


def check_losses(firsts, dtype_policy="float32"):
    """Raises `UserError` where two sides' losses of the first step differ by more than rounding in that precision."""
    (label, first), *others = firsts.items()
    for other, answer in others:
        difference = abs(answer["loss"] / first["loss"] - 1)
        if not difference < LARGEST_LOSS_DIFFERENCES[dtype_policy]:
            raise UserError(f"the losses of {label} and {other} differ: {first['loss']} and {answer['loss']}")


def ratio(slower, faster):
    """Median, lowest and highest of what one side's turns took, over the neighbouring turns of the other's."""
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def report(objective, seconds, firsts, batch_size):
    """The lines of one objective: images/s, share of the peak, ratio to the better PyTorch."""
    peak = max(first["peak"] for first in firsts.values())
    operations = firsts["tensorflow"]["operations"]
    yield f"{objective}: first loss " + ", ".join(f"{label} {first['loss']:.6f}" for label, first in firsts.items())
    yield f"  {operations / 1e9:.1f} GFLOP a step; peak of a 3x3 convolution {peak / 1e9:.0f} GFLOP/s"
    for label, taken in seconds.items():
        middle = statistics.median(taken)
        share = operations / middle / peak
        yield f"  {label}: {batch_size / middle:.2f} images/s, {middle * 1e3:.0f} ms a step, {share:.0%} of the peak"
    others = {label: taken for label, taken in seconds.items() if label.startswith("pytorch")}
    if not others:
        return
    best = min(others, key=lambda label: statistics.median(others[label]))
    for label in seconds.keys() - others.keys():
        middle, low, high = ratio(others[best], seconds[label])
        yield f"  {label} / {best}: {middle:.2f} ({low:.2f} to {high:.2f} in {len(others[best])} turns)"


def sides(frameworks, objective):
    """{label: (worker, further options)} of the frameworks' names, TensorFlow's first.

    An adversarial stage has workers of its own, and no features to keep.
    """
    for name in frameworks:
        if name not in SIDES:
            raise UserError(f"--frameworks: {name!r} is none of {', '.join(SIDES)}")
    chosen = {name: SIDES[name] for name in SIDES if name in frameworks or name == "tensorflow"}
    if objective not in ADVERSARIAL:
        return chosen
    ending = ADVERSARIAL[objective]
    return {
        name: (f"{worker}_{ending}", further)
        for name, (worker, further) in chosen.items()
        if name not in NOT_ADVERSARIAL
    }


def define_clock():
    """Defines the flags of what is measured."""
    flags.DEFINE_integer("threads", 0, "of each side; 0: as the framework chooses", 0)
    flags.DEFINE_enum(
        "clock",
        "wall",
        list(CLOCK_KEYS),
        "what is measured; processor, with --threads=1, also where other work shares the cores",
    )


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_list(
        "objectives", ["mirrored", "perceptual"], f"the stages that are measured; also {', '.join(ADVERSARIAL)}"
    )
    flags.DEFINE_list("frameworks", MEASURED, f"the sides that are measured, of {', '.join(SIDES)}")
    flags.DEFINE_integer("resolution", 64, "side of the pictures", 32)
    flags.DEFINE_integer("batch_size", 8, "pictures in a step", 1)
    flags.DEFINE_float("width", 1.0, "factor on all channel counts")
    flags.DEFINE_integer("text_dim", 256, "width of the text vector", 1)
    flags.DEFINE_enum("dtype_policy", "float32", list(LARGEST_LOSS_DIFFERENCES), "the precision of all sides")
    flags.DEFINE_integer("turns", 7, "of each side", 1)
    flags.DEFINE_integer("steps", 3, "in a turn", 1)
    define_clock()


def main():
    """Runs the command and prints what it measured."""
    values = flags.FLAGS
    for objective in values.objectives:
        names = sides(values.frameworks, objective)
        options = {
            name: getattr(values, name)
            for name in ("resolution", "batch_size", "width", "text_dim", "steps", "turns", "threads", "dtype_policy")
        }
        options |= {"objective": objective, "clock": CLOCK_KEYS[values.clock]}
        seconds, firsts = measure(names, options, values.turns)
        check_losses(firsts, values.dtype_policy)
        print("\n".join(report(objective, seconds, firsts, values.batch_size)), flush=True)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
