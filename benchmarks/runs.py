"""The trainings of a comparison: each started once, resumed, refused where its flags changed, several at a time."""

import concurrent.futures
import functools
import json
import os
import queue
import subprocess
import sys
from pathlib import Path

from absl import flags

from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.student import BEST_FILE, WEIGHTS_FILE

# Of a run's folder: the flags that it was trained with, as its checkpoints, which would say so, are dropped.
COMMAND_FILE = "command.json"


def checkpoints(run_dir):
    """The files from which a run would go on."""
    return sorted(Path(run_dir).glob("checkpoints/*/*.npz"))


def on_cores(cores, jobs):
    """Calls functions: one after another, or on each of some cores one at a time.

    What a function starts there sees that core alone, so that TensorFlow has one thread on it.

    Args:
        cores: their numbers, as `os.sched_setaffinity` takes them; empty: one after another, on all of them.
        jobs: functions without arguments.

    Raises:
        UserError: the first that a function raises; those that have not begun are left out then.
    """
    if not cores:
        for job in jobs:
            job()
        return
    free = queue.SimpleQueue()
    for core in cores:
        free.put(core)
    pool = concurrent.futures.ThreadPoolExecutor(len(cores), initializer=lambda: os.sched_setaffinity(0, {free.get()}))
    try:
        for done in concurrent.futures.as_completed([pool.submit(job) for job in jobs]):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def define_cores():
    """Defines `--cores`, see `chosen_cores`."""
    flags.DEFINE_list("cores", [], "cores on which one run is trained each, at a time; empty: one run on all of them")


def chosen_cores(values):
    """The numbers of `--cores`, checked.

    Raises:
        UserError: where one is no number, is there twice, or is no core that this process may use.
    """
    if not values:
        return []
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("--cores: this system keeps no process to a core; leave it out")
    usable = os.sched_getaffinity(0)
    for value in values:
        if not value.isdecimal() or int(value) not in usable:
            raise UserError(f"--cores: {value!r} is none of {', '.join(map(str, sorted(usable)))}")
    if len(set(values)) < len(values):
        raise UserError(f"--cores: {', '.join(values)} names a core twice")
    return [int(value) for value in values]


def chosen_seeds(values):
    """The seeds as they were given, checked.

    Raises:
        UserError: where there is none, one is no number, or one is there twice.
    """
    for value in values:
        if not value.isdecimal():
            raise UserError(f"--seeds: {value!r} is no number")
    if not values or len(set(values)) < len(values):
        raise UserError("--seeds: give one or more, each once")
    return values


def asked_of(recipe, *options, stages=None):
    """The flags of `t2i_kd.train` that a flagfile holds, without those of folders, and further ones.

    Args:
        recipe: path of the flagfile.
        options: further flags.
        stages: names of the recipe's stages to train; None: all.

    Raises:
        UserError: where the flagfile is not there.
    """
    if not Path(recipe).is_file():
        raise UserError(f"{recipe} is not here; run this from the repository's root")
    lines = [line for line in Path(recipe).read_text("utf-8").splitlines() if line.startswith("--")]
    if stages is not None:
        lines = [line for line in lines if not line.startswith("--stage=") or line[8:].partition(":")[0] in stages]
    return [*(line for line in lines if not line.startswith(("--run_dir=", "--export_dir="))), *options]


def train(run_dir, asked):
    """Runs `t2i_kd.train`, unless `run_dir` is finished and has no checkpoints any more.

    Args:
        run_dir: the run's folder.
        asked: all other flags, as `asked_of` gives them.

    Raises:
        UserError: where it fails, or `run_dir` is finished and was trained with other flags.
    """
    note = Path(run_dir) / COMMAND_FILE
    # Where there are checkpoints it may have been ended early, and its command goes on with it or ends at once.
    if (Path(run_dir) / WEIGHTS_FILE).is_file() and not checkpoints(run_dir):
        if note.is_file() and json.loads(note.read_text("utf-8")) != asked:
            raise UserError(f"--run_dir: {run_dir} was trained with other flags; remove it, or name another folder")
        print(f"{run_dir}: is finished")
        return
    if subprocess.run([sys.executable, "-m", "t2i_kd.train", *asked, f"--run_dir={run_dir}"]).returncode:
        raise UserError(f"--run_dir: training {run_dir} failed")
    write_file_atomically(note, json.dumps(asked, indent=2).encode("utf-8"))


def train_rows(rows, cores):
    """`train_row` of {folder: its flags}, `on_cores`."""
    on_cores(cores, [functools.partial(train_row, folder, asked) for folder, asked in rows.items()])


def train_row(folder, asked):
    """`train`, then drops what stages left for a run to go on from; their best students stay."""
    train(folder, asked)
    for path in folder.glob("checkpoints/*/*"):
        if path.name != BEST_FILE:
            path.unlink()
