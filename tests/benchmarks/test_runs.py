"""The trainings of a comparison: once each, never with other flags, and each on a core of its own where asked."""

import functools
import os
import subprocess
import sys
import threading
import time

import pytest

from benchmarks import runs
from t2i_kd.errors import UserError

keeps_to_cores = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="keeps no process to a core")


def test_a_finished_run_of_other_flags_is_refused(tmp_path, monkeypatch, capsys):
    recipe, run = tmp_path / "all.flags", tmp_path / "run"
    recipe.write_text("# What.\n--seed=1\n--run_dir=elsewhere\n")
    run.mkdir()
    trained = []

    def start(command):
        trained.append(command[3:])
        (run / "student.keras").write_bytes(b"")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(runs.subprocess, "run", start)
    for _ in range(2):
        runs.train(run, runs.asked_of(recipe, "--steps=3"))
    assert trained == [["--seed=1", "--steps=3", f"--run_dir={run}"]] and "is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="run was trained with other flags"):
        runs.train(run, runs.asked_of(recipe, "--steps=4"))
    # One with checkpoints may have been ended early: its command decides.
    checkpoint = run / "checkpoints" / "gan" / "step-00000003.npz"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"")
    runs.train(run, runs.asked_of(recipe, "--steps=3"))
    assert len(trained) == 2


def test_the_best_student_alone_is_kept(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints" / "gan"
    folder.mkdir(parents=True)
    for name in ("best.keras", "step-00000003.npz", "student.keras"):
        (folder / name).write_bytes(b"")
    monkeypatch.setattr(runs, "train", lambda run_dir, asked: None)
    runs.train_row(tmp_path, [])
    assert [path.name for path in folder.iterdir()] == ["best.keras"]


def test_without_cores_jobs_are_done_in_their_order():
    done = []
    runs.on_cores([], [functools.partial(done.append, number) for number in range(3)])
    assert done == [0, 1, 2]


def seen_cores():
    """The cores that a process sees which this thread starts."""
    told = "import os; print(sorted(os.sched_getaffinity(0)))"
    return subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout.strip()


@keeps_to_cores
def test_each_job_starts_processes_on_one_core_and_cores_work_at_the_same_time():
    cores = sorted(os.sched_getaffinity(0))[:2]
    together = threading.Barrier(len(cores), timeout=60)
    seen = []

    def job():
        together.wait()
        seen.append(seen_cores())

    runs.on_cores(cores, [job] * (2 * len(cores)))
    assert sorted(seen) == sorted(2 * [f"[{core}]" for core in cores])
    assert os.sched_getaffinity(0) >= set(cores)


@keeps_to_cores
def test_a_job_that_fails_ends_what_has_not_begun():
    done = []

    def fail():
        raise UserError("no disk")

    def slow():
        time.sleep(0.2)
        done.append(1)

    with pytest.raises(UserError, match="no disk"):
        runs.on_cores([min(os.sched_getaffinity(0))], [fail] + 20 * [slow])
    assert len(done) < 20


@keeps_to_cores
def test_cores_that_are_not_here_are_named():
    first = min(os.sched_getaffinity(0))
    assert runs.chosen_cores([]) == [] and runs.chosen_cores([str(first)]) == [first]
    for wrong, named in ((["9999"], "--cores: '9999' is none of"), (["x"], "'x'"), (2 * [str(first)], "twice")):
        with pytest.raises(UserError, match=named):
            runs.chosen_cores(wrong)


def test_seeds_are_numbers_each_once():
    assert runs.chosen_seeds(["0", "7"]) == ["0", "7"]
    for wrong, named in ((["-1"], "'-1' is no number"), ([], "one or more"), (["1", "1"], "each once")):
        with pytest.raises(UserError, match=f"--seeds: .*{named}"):
            runs.chosen_seeds(wrong)
