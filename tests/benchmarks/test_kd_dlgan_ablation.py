"""KD-DLGAN's ablation: its rows differ in what their names say, its table and curves show what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.kd_dlgan_ablation import BEST, COLUMNS, LAST, ROWS, SETS, curve, markdown, row_flags, students
from benchmarks.reports import kept
from t2i_kd.student import WEIGHTS_FILE
from tests.systems import recipe_and_others

ROOT = Path(__file__).resolve().parents[2]


def recipe(name, row, **options):
    given = row_flags(SETS[name], row, 7, 3, ["--teacher_weights=W.npz"], **options)
    recipe, others = recipe_and_others(f"--flagfile={ROOT / SETS[name].recipe}", "--data_dir=D", *given)
    assert others == {}
    return recipe


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_its_terms_and_the_teacher_that_they_need(name, row):
    found = recipe(name, row)
    discriminator, terms, _ = ROWS[row]
    cgkd = SETS[name].cgkd_weights[discriminator]
    assert (found.kd.agkd_weight, found.kd.cgkd_weight) == (0.5 * ("agkd" in terms), cgkd * ("cgkd" in terms))
    assert found.kd.discriminator == discriminator and found.training.seed == 3
    assert [(stage.objective, stage.steps) for stage in found.stages] == [("kd_dlgan", 7)]
    assert found.teacher.teacher == ("conse" if terms else "none")
    assert found.teacher.teacher_weights == ("W.npz" if terms else "imagenet")
    assert bool(found.kd.diversity_weight) == ("diversity" in terms)
    assert bool(found.kd.lecam_weight) == (row == "lecam")
    assert found.training.dtype_policy == ("float32" if row.endswith("float32") else "mixed_bfloat16")
    assert found.kd.agkd_length == (10 if "agkd" in terms else 1)
    assert bool(found.gan.augmentation) == (row != "no_augmentation")


def test_the_length_of_the_teachers_vectors_may_be_another():
    found, plain = (recipe("cats", row, agkd_length=2.5) for row in ("both", "cgkd"))
    assert (found.kd.agkd_length, plain.kd.agkd_length) == (2.5, 1)


@pytest.mark.parametrize(("name", "images"), [("cifar10", 5000), ("cifar10_fifth", 10000)])
def test_a_set_says_how_many_images_are_trained_on(name, images):
    assert recipe(name, "both").data.max_examples == images


def test_the_table_compares_with_the_same_discriminator_seed_by_seed():
    base = {"diffaugment": 4.0, "both": 3.0, "teacher": 2.0, "teacher_both": 1.5}
    evaluated = {
        (row, seed): {which: dict.fromkeys(COLUMNS, value + shift) for which in (LAST, BEST)}
        for row, value in base.items()
        for seed, shift in (("0", 0.0), ("1", 1.0))
    }
    del evaluated["teacher_both", "1"][BEST]
    lines = markdown(evaluated, list(base), ["0", "1"]).splitlines()
    assert lines[0] == f"| row | student | {' | '.join(COLUMNS)} |"
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        ["| diffaugment", "last", "4.5"],
        ["| diffaugment", "best", "4.5"],
        ["| both", "last", "3.5 (-1 ± 0)"],
        ["| both", "best", "3.5 (-1 ± 0)"],
        ["| teacher", "last", "2.5"],
        ["| teacher", "best", "2.5"],
        ["| teacher_both", "last", "2 (-0.5 ± 0)"],
    ]


def test_a_curve_is_the_measurements_alone(tmp_path):
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "overfitting": 0.25, "loss": 1.0}, {"step": 4, "overfitting": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert curve(tmp_path) == ([2, 4], [0.25, 0.5])


def test_the_best_student_is_evaluated_where_there_is_one(tmp_path):
    assert students(tmp_path) == {LAST: tmp_path / WEIGHTS_FILE}
    best = tmp_path / "checkpoints" / "gan" / "best.keras"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"")
    assert students(tmp_path) == {LAST: tmp_path / WEIGHTS_FILE, BEST: best}


def test_what_is_kept_is_measured_again_where_another_thing_is_asked(tmp_path):
    measured = []

    def ask(asked):
        return kept(tmp_path / "kept.json", asked, lambda: measured.append(asked) or len(measured))

    assert [ask({"n": 1, "of": ("a",)}), ask({"n": 1, "of": ("a",)}), ask({"n": 2}), ask({"n": 1})] == [1, 1, 2, 3]


@pytest.mark.slow
def test_two_rows_are_trained_once_evaluated_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    lines = []
    for index in range(250):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"{index}.png")
        split = "train" if index < 110 else "test"
        lines.append({"file_name": f"{index}.png", "captions": ["noise"], "split": split})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = ["--set=cats", f"--data_dir={tmp_path}", f"--run_dir={tmp_path / 'runs'}", "--rows=diffaugment,lecam"]
    options += ["--seeds=0", "--steps=2", "--num_captions=140", f"--cache_dir={tmp_path / 'cache'}"]
    options += [f"--plot={tmp_path / 'curves.png'}"]
    command = [sys.executable, "-m", "benchmarks.kd_dlgan_ablation", *options]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        table = done.stdout[done.stdout.index("| row |") :].splitlines()
        assert [line.split(" | ")[:2] for line in table[2:6]] == [
            [f"| {row}", which] for row in ("diffaugment", "lecam") for which in (LAST, BEST)
        ]
    assert "is finished" in done.stdout and Image.open(tmp_path / "curves.png").width > 100
    wrong = subprocess.run([*command, "--rows=everything"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "--rows: 'everything' is none of diffaugment" in wrong.stderr
