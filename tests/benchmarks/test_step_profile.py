"""The profile of a step: what a span is, whose time it is, and one whole run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.step_profile import kind_of, markdown, own_times, part_of, totals
from tests.benchmarks.test_recipe_step import SIDES

ROOT = Path(__file__).resolve().parents[2]
STEP = "__inference/StatefulPartitionedCall/"
EXECUTOR = "ExecutorState::Process#id=1,iter_num=0#"
# Of 8 ms, in picoseconds: 1 ms of the executor's own, a convolution's 4, its gradient's 2, a sum's 1.
SPANS = [
    (EXECUTOR, 0, 8_000_000_000),
    (f"{STEP}heads_1/down/BiasAdd:_MklNativeFusedConv2D#x#", 0, 4_000_000_000),
    (
        f"{STEP}gradient_tape/heads_1/down/Conv2DBackpropInput:_MklNativeConv2DBackpropInput",
        4_000_000_000,
        2_000_000_000,
    ),
    (f"{STEP}add_3:AddV2", 6_500_000_000, 1_000_000_000),
    ("AssignVariableOp", 9_000_000_000, 5_000_000_000),
]


def test_a_spans_own_time_is_without_those_within_it():
    spans = [("c", 6, 2), ("a", 0, 10), ("b", 1, 5), ("d", 2, 1), ("e", 10, 3)]
    assert own_times(spans) == [("a", 3), ("b", 4), ("d", 1), ("c", 2), ("e", 3)]


@pytest.mark.parametrize(
    "name, kind, part",
    [
        (f"{STEP}student_1/generator_1/mul:Mul", "Mul", "student_1"),
        (f"{STEP}gradient_tape/heads_1/down/Grad:_MklNativeConv2D", "Conv2D", "gradient of heads_1"),
        (f"{STEP}add_3:AddV2", "AddV2", "no part"),
    ],
)
def test_a_node_of_the_graph_has_a_kind_and_a_part(name, kind, part):
    assert (kind_of(name), part_of(name)) == (kind, part)


@pytest.mark.parametrize("name", ["AssignVariableOp", "PyFunc:PyFunc", "TFE_Py_FastPathExecute_C"])
def test_what_is_outside_of_the_step_is_of_no_kind(name):
    assert kind_of(name) is None


def test_both_tables_add_up_to_the_step():
    kinds, parts = totals([SPANS], steps=2)
    assert kinds == {
        "FusedConv2D": (pytest.approx(2e-3), 0.5),
        "Conv2DBackpropInput": (pytest.approx(1e-3), 0.5),
        "the executor itself": (pytest.approx(0.5e-3), 0.5),
        "AddV2": (pytest.approx(0.5e-3), 0.5),
    }
    assert parts == {
        "heads_1": pytest.approx(2e-3),
        "gradient of heads_1": pytest.approx(1e-3),
        "the executor itself": pytest.approx(0.5e-3),
        "no part": pytest.approx(0.5e-3),
    }
    first, second = markdown(kinds, parts, rows=2).split("\n\n")
    assert first.splitlines()[2:] == [
        "| FusedConv2D | 2.0 | 50.0% | 0 |",
        "| Conv2DBackpropInput | 1.0 | 25.0% | 0 |",
        "| all others | 1.0 | 25.0% |  |",
    ]
    assert second.splitlines()[-1] == "| all others | 1.0 | 25.0% |"


@pytest.mark.slow
def test_a_recipes_step_is_profiled():
    command = [sys.executable, "-m", "benchmarks.step_profile", "--stage=one", "--steps=2"]
    done = subprocess.run([*command, f"--training={SIDES}"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| Conv2DBackpropFilter\w* \|", done.stdout, re.M), done.stdout
    assert re.search(r"^\| gradient of student_1 \|", done.stdout, re.M), done.stdout
    done = subprocess.run([*command, "--training=--seed=x"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: --training: ") and done.stderr.count("\n") == 1
