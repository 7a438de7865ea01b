"""Training under KERAS_BACKEND=jax on a host without TensorFlow."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest

from t2i_kd.student import load_student
from tests.commands import (
    ON_JAX,
    ROOT,
    TRAIN,
    environment,
    files,
    finish,
    kill_after,
    metrics,
    start_without_tensorflow,
)
from tests.systems import write_images

RUN = (
    "--dataset=image_folder",
    "--resolution=32",
    "--text_dim=16",
    "--word_dim=8",
    "--text_length=4",
    "--teacher=none",
    "--width=0.03125",
    "--batch_size=4",
    "--noise_dim=2",
    "--whiten_text",
    "--ema=0.9",
    "--checkpoint_every=4",
    "--sample_every=10",
    "--log_every=1",
    "--stage=one: objective=mirrored steps=10 tap_weights=image:1 schedule=cosine",
    "--stage=two: objective=perceptual steps=40 tap_weights=image:1",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares with TensorFlow"),
]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Most of the time goes into XLA; here every process finds what an earlier one compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("xla")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        yield


def test_the_adversarial_step_is_that_of_the_hand_calculation():
    """The same tests as TensorFlow's, in a process of JAX."""
    files = [ROOT / "tests" / "training" / f"test_{name}.py" for name in ("adversarial", "augmentation")]
    chosen = "hand_calculation or are_what_is_kept or same_to_the_bit or whole_pixels or grey_square"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files), "-k", chosen]
    found = subprocess.run(command, cwd=ROOT, env=environment(**ON_JAX), capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert "6 passed" in found.stdout


def run(run_dir):
    return start_without_tensorflow(TRAIN, *RUN, f"--data_dir={run_dir.parent / 'pictures'}", f"--run_dir={run_dir}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a whole run and of one that was killed in stage two and started again."""
    folder = tmp_path_factory.mktemp("jax")
    (folder / "pictures").mkdir()
    write_images(folder / "pictures")
    assert "trained\n" in finish(run(folder / "whole"))
    kill_after(run(folder / "killed"), folder / "killed", 17)
    finish(run(folder / "killed"))
    return folder / "whole", folder / "killed"


def test_a_run_leaves_the_same_files_as_tensorflows(runs):
    names = set(files(runs[0]))
    stages = {f"checkpoints/{stage}/{name}" for stage in ("one", "two") for name in ("final.npz", "student.keras")}
    assert (
        stages | {"captions.txt", "condition.json", "metrics.jsonl", "recipe.json", "student.keras", "vocabulary.txt"}
        < names
    )
    steps = {"one": (1, 10), "two": (11, 20, 30, 40, 50)}
    samples = {f"samples/{stage}-{step:08d}.png" for stage in steps for step in steps[stage]}
    assert samples == {name for name in names if name.startswith("samples/")}
    assert [line["step"] for line in metrics(runs[0])] == list(range(1, 51))


def test_a_killed_run_ends_with_the_same_weights_to_the_bit(runs):
    for name in ("one/final.npz", "two/final.npz"):
        with np.load(runs[0] / "checkpoints" / name) as one, np.load(runs[1] / "checkpoints" / name) as other:
            assert one.files == other.files
            assert all(np.array_equal(one[key], other[key]) for key in one.files)
    for path in (runs[0] / "samples").iterdir():
        assert path.read_bytes() == (runs[1] / "samples" / path.name).read_bytes()


def test_tensorflow_generates_with_what_jax_trained(runs):
    student = load_student(runs[0])
    with np.load(runs[0] / "checkpoints" / "two" / "final.npz") as kept:
        weights = [kept[key] for key in kept.files]
    assert all(np.array_equal(a, b) for a, b in zip(weights, student.network.get_weights(), strict=True))
    inputs = {**student.condition.arrays(["a red picture"]), "noise": np.zeros((1, 2), "float32")}
    image = np.asarray(student.network(inputs)["image"])
    assert image.shape == (1, 32, 32, 3) and np.isfinite(image).all()
