"""Trainings that are killed at random moments: what is compared, and one that is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import random_kills

ROOT = Path(__file__).resolve().parents[2]


def write_run(folder, weight=1.0, loss=2.0, speed=3.0, sheet=b"png"):
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "one-00000001.png").write_bytes(sheet)
    (folder / "checkpoints" / "one").mkdir(parents=True)
    np.savez(folder / "checkpoints" / "one" / "final.npz", w=np.array([0.0, weight], "float32"))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": loss, "images_per_second": speed}) + "\n")
    return random_kills.content(folder)


def test_weights_sheets_and_losses_are_compared_and_speed_is_not(tmp_path):
    whole = write_run(tmp_path / "whole")
    assert random_kills.differing(write_run(tmp_path / "slower", speed=1.0), whole) == []
    last_bit = np.nextafter(np.float32(1), np.float32(2))
    for name, changes in {
        "checkpoints/one/final.npz: w": {"weight": last_bit},
        "metrics.jsonl, line 1": {"loss": 2.5},
        "samples/one-00000001.png": {"sheet": b"other"},
    }.items():
        other = write_run(tmp_path / next(iter(changes)), **changes)
        assert random_kills.differing(other, whole) == [name]
    del other["metrics.jsonl, line 1"]
    assert random_kills.differing(other, whole) == ["metrics.jsonl, line 1", "samples/one-00000001.png"]


@pytest.mark.slow
def test_a_killed_training_ends_as_an_undisturbed_one():
    command = [sys.executable, "-m", "benchmarks.random_kills", "--kills=1", "--systems=icsd_gan"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert done.returncode == 0, done.stderr
    # A training that ends before its moment came was not killed, and another is begun.
    assert re.fullmatch(r"icsd_gan: 1 kills in \d+ runs, bit-identical", done.stdout.splitlines()[-1])
