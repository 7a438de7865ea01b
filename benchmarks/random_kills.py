"""Trainings that are killed at random moments, compared with one that nobody disturbed.

    python -m benchmarks.random_kills [--systems=sdn,icsd_gan] [--kills=50] [--seed=0] [--work_dir=FOLDER]

Each system's small training runs once undisturbed. Then it is started again and again and gets SIGKILL after a random
time, the same command going on with it each time, until it ends by itself; then it begins anew, until there were
`--kills` kills. Each that ended must have the undisturbed one's weights, bit for bit, its sheets and its losses. Exit
code 1 where one has not. Kills before the first checkpoint and after the last step are among them.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import command
from t2i_kd.errors import UserError

SHARED = (
    *("--dataset=captioned_shapes", "--resolution=32", "--text_encoder=gru", "--text_dim=16", "--word_dim=16"),
    *("--text_length=16", "--batch_size=8", "--checkpoint_every=7", "--sample_every=20", "--log_every=5"),
)
SMALL = {
    "sdn": (
        *("--teacher=vgg19_slim", "--width=0.25", "--noise_dim=8", "--ema=0.9"),
        "--stage=one: objective=mirrored steps=40",
        "--stage=two: objective=adversarial steps=40",
    ),
    "icsd_gan": (
        *("--teacher=vgg19_slim", "--image_stages=2", "--generator_channels=8", "--noise_dim=8", "--ema=0.9"),
        *("--discriminator_channels=8", "--gradient_penalty=r1", "--penalty_every=4"),
        "--stage=text: objective=ds_sje steps=20 tap_weights=pool3:1",
        "--stage=gan: objective=icsd steps=60 frozen=text_*",
    ),
}
# What a line of metrics.jsonl has of the machine.
OF_THE_MACHINE = "images_per_second"


def start(system, run_dir):
    """Starts a system's small training."""
    arguments = [f"--system={system}", *SHARED, *SMALL[system], f"--run_dir={run_dir}"]
    return subprocess.Popen(
        [sys.executable, "-m", "t2i_kd.train", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finished(process):
    """Waits for a training to end. Raises `UserError` with its last words where it failed."""
    errors = process.communicate()[1]
    if process.returncode:
        raise UserError(f"a training ended with {process.returncode}: {' '.join(errors.split())[-300:]}")


def content(run_dir):
    """What a finished run must have as another: {name: value}, arrays as their bytes."""
    found = {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in run_dir.glob("samples/*.png")}
    for path in run_dir.glob("checkpoints/*/final.npz"):
        with np.load(path) as stored:
            found |= {f"{path.relative_to(run_dir)}: {name}": stored[name].tobytes() for name in stored.files}
    for number, line in enumerate((run_dir / "metrics.jsonl").read_text("utf-8").splitlines(), 1):
        found[f"metrics.jsonl, line {number}"] = {**json.loads(line), OF_THE_MACHINE: None}
    return found


def differing(ours, theirs):
    """The names of what two runs do not have alike, in order."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def kill_at_random(system, run_dir, longest, rng, most):
    """Kills a training after random times of up to `longest` seconds, until it ends or was killed `most` times.

    Returns:
        How often it was killed; it has ended.
    """
    for killed in range(most):
        process = start(system, run_dir)
        try:
            process.wait(rng.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            continue
        finished(process)
        return killed
    finished(start(system, run_dir))
    return most


def measure(system, work_dir, kills, rng, report):
    """Tries one system.

    Args:
        system: of `SMALL`.
        work_dir: an empty folder.
        kills: how many in all.
        rng: `numpy.random.Generator`.
        report: function of a line.

    Returns:
        (kills, runs that ended, names of what differed in any).
    """
    began = time.monotonic()
    finished(start(system, work_dir / "whole"))
    longest, whole = time.monotonic() - began, content(work_dir / "whole")
    done, runs, found = 0, 0, []
    while done < kills:
        run_dir = work_dir / "killed"
        shutil.rmtree(run_dir, ignore_errors=True)
        done += kill_at_random(system, run_dir, longest, rng, kills - done)
        runs += 1
        different = differing(content(run_dir), whole)
        found += different
        report(f"{system}: {done} kills, {runs} runs ended{''.join(f', differs: {each}' for each in different[:3])}")
    return done, runs, found


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_list("systems", list(SMALL), "the systems that are tried")
    flags.DEFINE_integer("kills", 50, "of each system", 1)
    flags.DEFINE_integer("seed", 0, "of the moments", 0)
    flags.DEFINE_string("work_dir", "", "the folder of the runs; empty: a temporary one")


def main():
    """Runs the command and prints what it found."""
    values = flags.FLAGS
    for system in values.systems:
        if system not in SMALL:
            raise UserError(f"--systems: {system!r} is none of {', '.join(SMALL)}")
    rng, differ = np.random.default_rng(values.seed), []
    with tempfile.TemporaryDirectory() as temporary:
        for system in values.systems:
            folder = Path(values.work_dir or temporary) / system
            folder.mkdir(parents=True)
            *counts, found = measure(system, folder, values.kills, rng, print)
            differ += found
            print(
                f"{system}: {counts[0]} kills in {counts[1]} runs, {'bit-identical' if not found else 'NOT the same'}"
            )
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
