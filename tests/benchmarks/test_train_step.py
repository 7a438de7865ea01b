"""The step benchmark counts, compares and reports what it says; its TensorFlow side is the real loop."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from benchmarks import train_step
from t2i_kd.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"resolution": 32, "batch_size": 2, "width": 1 / 16, "text_dim": 8, "steps": 1, "turns": 1}
SMALL |= {"threads": 1, "clock": "seconds", "dtype_policy": "float32"}


def test_a_ratio_is_that_of_neighbouring_turns():
    assert train_step.ratio([2.0, 4.0, 9.0], [1.0, 1.0, 3.0]) == (3.0, 2.0, 4.0)


def test_losses_that_differ_are_told():
    firsts = {"tensorflow": {"loss": 1.0}, "pytorch": {"loss": 1.00005}}
    train_step.check_losses(firsts)
    for wrong in (1.001, float("nan")):
        firsts["pytorch"]["loss"] = wrong
        with pytest.raises(UserError, match="the losses of tensorflow and pytorch differ"):
            train_step.check_losses(firsts)


def test_the_better_pytorch_is_the_measure():
    seconds = {"tensorflow": [1.0, 1.0], "pytorch": [3.0, 3.0], "pytorch_compiled": [1.5, 1.0]}
    firsts = {name: {"loss": 1.0, "peak": 2e9} for name in seconds} | {
        "tensorflow": {"loss": 1.0, "peak": 4e9, "operations": 1e9}
    }
    lines = list(train_step.report("mirrored", seconds, firsts, 8))
    assert "  tensorflow: 8.00 images/s, 1000 ms a step, 25% of the peak" in lines
    assert lines[-1] == "  tensorflow / pytorch_compiled: 1.25 (1.00 to 1.50 in 2 turns)"


def test_unknown_sides_are_named():
    with pytest.raises(UserError, match="--frameworks: 'caffe' is none of tensorflow, "):
        train_step.sides(["caffe"], "mirrored")
    assert list(train_step.sides(["pytorch"], "mirrored")) == ["tensorflow", "pytorch"]
    adversarial = train_step.sides(train_step.MEASURED, "adversarial")
    assert {name: worker for name, (worker, _) in adversarial.items()} == {
        "tensorflow": "tensorflow_gan",
        "pytorch": "pytorch_gan",
        "pytorch_compiled": "pytorch_gan",
    }
    assert train_step.sides(["pytorch"], "kd_dlgan")["pytorch"] == ("pytorch_kd_dlgan", {"compiled": False})


def test_operations_are_counted_as_in_a_hand_calculation():
    from benchmarks.tensorflow_steps import operations

    image = keras.Input((4, 6, 3))
    features = keras.layers.Conv2D(5, 3, padding="same")(image)
    network = keras.Model(image, keras.layers.Dense(7)(keras.layers.Flatten()(features)))
    assert operations(network, 2) == 2 * 2 * (4 * 6 * 9 * 3 * 5 + 4 * 6 * 5 * 7)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("dtype_policy", ["float32", "mixed_bfloat16"])
def test_both_sides_lose_the_same(dtype_policy):
    for objective in ("mirrored", "perceptual", *train_step.ADVERSARIAL):
        names = train_step.sides(["tensorflow", "pytorch"], objective)
        options = SMALL | {"objective": objective, "dtype_policy": dtype_policy}
        seconds, firsts = train_step.measure(names, options, 1)
        train_step.check_losses(firsts, dtype_policy)
        assert all(len(taken) == 1 and taken[0] > 0 for taken in seconds.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("worker", "own"),
    [
        ("tensorflow", {"objective": "perceptual", "cached": True}),
        ("tensorflow_gan", {"objective": "adversarial"}),
        ("tensorflow_kd_dlgan", {"objective": "kd_dlgan"}),
        ("tensorflow_cycle_gan", {"objective": "cycle_gan"}),
    ],
)
def test_the_tensorflow_side_trains_when_told_and_ends_with_its_input(worker, own, tmp_path):
    options = json.dumps(SMALL | own | {"folder": str(tmp_path)})
    command = [sys.executable, "-m", train_step.WORKERS[worker], options]
    done = subprocess.run(command, input="go\ngo\n", capture_output=True, text=True, cwd=ROOT)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert answers[0]["loss"] > 0 and answers[0]["peak"] > 0, done.stderr
    assert [answer["seconds"] > 0 for answer in answers[1:]] == [True, True]
    assert (tmp_path / "start.npz").is_file()
