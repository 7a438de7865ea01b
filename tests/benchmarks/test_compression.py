"""The table of a compressed student says how much of its teacher's cost is left."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compression, reports
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.srpkd.networks import build_generator
from t2i_kd.student import save_network

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_puts_shares_beside_numbers():
    sizes = {"saved_model": {"size": 4_000_000}, "onnx": {"size": 3_000_000}}
    models = {
        "big": ({"parameters": 1_000_000, "artifacts": sizes}, 2e9),
        "small": ({"parameters": 250_000, "artifacts": {"saved_model": {"size": 1_000_000}}}, 5e8),
    }
    found = {
        ("big", "saved_model"): {"milliseconds": {1: 8.0, 2: 4.0}},
        ("big", "onnx"): {"milliseconds": {1: 6.0, 2: 3.0}},
        ("small", "saved_model"): {"milliseconds": {1: 2.0, 2: 3.0}},
    }
    lines = reports.markdown(compression.rows(models, found)).splitlines()
    assert lines[0] == "| model | artifact | parameters | G multiply-adds | MB | ms, 1 thread | ms, 2 threads |"
    assert lines[2] == ("| big | SavedModel | 1,000,000 (1.00) | 2 (1.00) | 4.00 (1.00) | 8.00 (1.00) | 4.00 (1.00) |")
    assert lines[-1] == (
        "| small | SavedModel | 250,000 (0.25) | 0.5 (0.25) | 1.00 (0.25) | 2.00 (0.25) | 3.00 (0.75) |"
    )


def test_multiply_adds_are_those_of_the_runs_network(tmp_path):
    network = build_generator("style", 16, 2, 1)
    save_network(network, tmp_path / "student.keras")
    ImageCondition(16).save(tmp_path)
    # 9x9 to 2, 3x3 to 4 and 8, two 3x3 of a block, 3x3 back at the input's places, 9x9 to 3.
    expected = 256 * 81 * 3 * 2 + 64 * 9 * 2 * 4 + 16 * 9 * 4 * 8 + 2 * 16 * 9 * 8 * 8
    expected += 16 * 9 * 8 * 4 + 64 * 9 * 4 * 2 + 256 * 81 * 2 * 3
    assert compression.multiply_adds_of(tmp_path) == expected


@pytest.mark.slow
def test_the_command_refuses_bad_input():
    for options, message in (
        ((), "--model: missing"),
        (("--model=one", "--model=two", "--run=three"), "--run: 1 run directories for 2 models"),
        (("--model=one", "--run=two"), "--caption: missing"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.compression", *options], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
