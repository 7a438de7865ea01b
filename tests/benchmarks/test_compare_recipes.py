"""The comparison of recipes: its sides, its table, and one whole run."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.compare_recipes import OWN, check_own, markdown
from t2i_kd.errors import UserError
from tests.benchmarks.test_recipe_step import SIDES

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_has_a_row_for_each_line_and_a_column_for_each_side():
    evaluated = {
        (side, seed): {"kernel": value + shift, "recall": 0.5}
        for side, value in (("single", 4.0), ("half", 3.0))
        for seed, shift in (("0", 0.0), ("1", 1.0))
    }
    assert markdown(evaluated, ["single", "half"], ["0", "1"]).splitlines() == [
        "|  | single | half |",
        "| --- | --- | --- |",
        "| kernel | 4.5 | 3.5 (-1 ± 0) |",
        "| recall | 0.5 | 0.5 (+0 ± 0) |",
    ]
    assert markdown(evaluated, ["single", "half"], ["1"]).splitlines()[2] == "| kernel | 5 | 4 (-1) |"


@pytest.mark.parametrize("arguments", [["--seed=3"], ["-seed", "3"], ["--flagfile=a", "--run_dir=b"]])
def test_what_the_command_gives_is_refused(arguments):
    with pytest.raises(UserError, match=r"--side a: leave --(seed|run_dir) out"):
        check_own("--side a", arguments, OWN)
    check_own("--side a", ["--seed_text=3", "seed=1", "--stage=x: seed=1"], OWN)


@pytest.mark.slow
def test_two_recipes_are_trained_once_and_compared(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compare_recipes", f"--run_dir={tmp_path / 'runs'}", "--seeds=0,1"]
    # Initial weights of which even an untrained student's images are no plain black.
    common = f"{SIDES} --initializer=looks_linear --image_output=centred"
    sides = [f"--side={name}: {common} {further}" for name, further in (("plain", ""), ("noisy", "--noise_dim=2"))]
    evaluation = "--evaluation=--dataset=captioned_shapes --metrics=ssim --num_captions=8"
    command += [*sides, evaluation + f" --cache_dir={tmp_path / 'cache'}", "--cores=0"]
    tables = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        tables.append(done.stdout[done.stdout.index("|  | plain | noisy |") :])
    assert tables[0] == tables[1] and done.stdout.count("is finished") == 4
    cells = tables[0].splitlines()[2].split(" | ")
    assert cells[0].startswith("| ssim") and 0 < abs(float(cells[1])) <= 1 and "±" in cells[2]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()) == [
        f"{name}-seed{seed}" for name in ("noisy", "plain") for seed in (0, 1)
    ]
    # A student that has become another is measured anew.
    student = tmp_path / "runs" / "noisy-seed0" / "student.keras"
    student.write_bytes((tmp_path / "runs" / "noisy-seed1" / "student.keras").read_bytes())
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout[done.stdout.index("|  | plain | noisy |") :] != tables[0], done.stderr
    wrong = subprocess.run([*command, "--side=plain: --seed=1"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "--side: give two or more, each with a name of its own" in wrong.stderr
