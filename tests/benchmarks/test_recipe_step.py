"""The benchmark of recipes' steps: its sides, its lines, and one whole run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.recipe_step import parse_side, report
from t2i_kd.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SIDES = (
    "--dataset=captioned_shapes --resolution=32 --text_encoder=gru --text_dim=8 --word_dim=4 --text_length=8 "
    "--teacher=none --width=0.0625 --batch_size=4 '--stage=one: objective=mirrored steps=5 tap_weights=image:1'"
)


def test_a_side_is_a_name_and_arguments():
    assert parse_side("a b: --seed=1 '--stage=one: steps=1'") == ("a b", ["--seed=1", "--stage=one: steps=1"])
    for wrong, named in (
        ("--seed=1", "is not NAME: --flag=value"),
        ("a:", "is not NAME"),
        ("a: '", "--side a: No clos"),
    ):
        with pytest.raises(UserError, match=named):
            parse_side(wrong)


def test_a_line_compares_with_the_first_side():
    firsts = {"a": {"batch_size": 8, "dtype_policy": "float32"}, "b": {"batch_size": 8, "dtype_policy": "float32"}}
    assert list(report({"a": [0.5, 0.5, 1.0], "b": [1.0, 0.5, 0.5]}, firsts)) == [
        "a (float32): 500 ms a step, 16.0 images/s",
        "b (float32): 500 ms a step, 16.0 images/s, 1.00 (0.50 to 2.00) times as long as a",
    ]


def test_a_side_runs_the_code_of_its_folder(tmp_path):
    """A stub there answers the batch size 77; the flagfile is found from here."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "recipe_worker.py").write_text(
        "import json, os, sys\n"
        "assert os.path.exists('pipelines')\n"
        "print(json.dumps({'batch_size': 77, 'dtype_policy': 'float32'}), flush=True)\n"
        "for _ in sys.stdin:\n"
        "    print(json.dumps({'seconds': 1.0, 'processor_seconds': 1.0}), flush=True)\n"
    )
    command = [sys.executable, "-m", "benchmarks.recipe_step", "--turns=1"]
    sides = [f"--side={name}@{tmp_path}: --seed=1" for name in ("one", "two")]
    done = subprocess.run([*command, *sides], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == [
        "one (float32): 1000 ms a step, 77.0 images/s",
        "two (float32): 1000 ms a step, 77.0 images/s, 1.00 (1.00 to 1.00) times as long as one",
    ], done.stderr


@pytest.mark.slow
def test_two_precisions_are_compared_and_one_side_is_not_enough():
    command = [sys.executable, "-m", "benchmarks.recipe_step", "--stage=one", "--turns=1", "--steps=1"]
    sides = [
        f"--side=float32: {SIDES} --dtype_policy=float32",
        f"--side=mixed_bfloat16: {SIDES} --dtype_policy=mixed_bfloat16",
    ]
    done = subprocess.run([*command, *sides], capture_output=True, text=True, cwd=ROOT)
    lines = [re.sub(r"[\d.]+ ms.*", "", line) for line in done.stdout.splitlines()]
    assert lines == ["float32 (float32): ", "mixed_bfloat16 (mixed_bfloat16): "], done.stderr
    for tree, line in (
        ("nowhere", "--side old: nowhere is no checkout of this project"),
        (".", "--side: old is there twice"),
    ):
        done = subprocess.run(
            [*command, f"--side=old@{tree}: --seed=1", "--side=old: --seed=1"], capture_output=True, text=True, cwd=ROOT
        )
        assert (done.returncode, done.stderr) == (2, f"error: {line}\n")
    done = subprocess.run([*command, sides[0]], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (2, "error: --side: give two or more, each with a name of its own\n")
