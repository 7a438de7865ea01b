"""Training under KERAS_BACKEND=jax on a host without TensorFlow."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from t2i_kd.icsd_gan.trainer import ICSDGAN
from t2i_kd.recipe import (
    DataOptions,
    GanOptions,
    IcsdRecipe,
    Recipe,
    StudentRecipe,
    TeacherOptions,
    TextOptions,
    TrainingOptions,
    parse_stage,
)
from t2i_kd.sdn.trainer import SDN
from t2i_kd.student import load_student

ROOT = Path(__file__).resolve().parents[1]
STEPS = 3
# What a host without TensorFlow does with `import tensorflow`.
NO_TENSORFLOW = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
LOSSES = """
import importlib.util
spec = importlib.util.spec_from_file_location("test_jax", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
print(module.json.dumps(module.first_losses(sys.argv[2], write=False)))
"""
COMMAND = """
import runpy
sys.argv[0] = "train"
runpy.run_module("t2i_kd.train", run_name="__main__", alter_sys=True)
"""
RUN = (
    "--resolution=32",
    "--text_dim=16",
    "--word_dim=8",
    "--text_length=12",
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
        patch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
        yield


def without_tensorflow(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", NO_TENSORFLOW + code, *map(str, arguments)],
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return output


class Losses(keras.callbacks.Callback):
    """Keeps every step's terms."""

    def __init__(self):
        super().__init__()
        self.terms = []

    def on_train_batch_end(self, batch, logs=None):
        self.terms.append({name: float(value) for name, value in logs.items()})


def sdn():
    """A small SDN."""
    stages = tuple(
        parse_stage(f"{name}: objective={name} steps={STEPS} learning_rate=1e-3 error={error} scaling=normalised")
        for name, error in (("mirrored", "squared"), ("perceptual", "annealed"))
    )
    recipe = Recipe(
        data=DataOptions(resolution=32, flip=True),
        text=TextOptions(text_dim=16, word_dim=8, text_length=12),
        teacher=TeacherOptions(teacher="vgg19_slim"),
        student=StudentRecipe(width=0.25, initializer="he", noise_dim=3),
        training=TrainingOptions(batch_size=4, clipnorm=5.0),
        stages=stages,
    )
    return SDN(recipe)


def icsd_gan():
    """A small ICSD-GAN, with every option that draws at random or keeps a state."""
    recipe = Recipe(
        system="icsd_gan",
        data=DataOptions(resolution=32, flip=True),
        text=TextOptions(text_dim=16, word_dim=8, text_length=12),
        teacher=TeacherOptions(teacher="none"),
        student=StudentRecipe(noise_dim=3, whiten_text=True),
        training=TrainingOptions(batch_size=4, clipnorm=5.0, ema=0.9),
        gan=GanOptions(
            discriminator_channels=4,
            gradient_penalty="ma_gp",
            penalty_every=2,
            # Shifts and cuts make areas of exact grey, where a new discriminator has a slope by rounding alone.
            augmentation="color",
        ),
        icsd=IcsdRecipe(image_stages=2, generator_channels=4, condition_dim=4),
        stages=(parse_stage(f"gan: objective=icsd steps={STEPS} learning_rate=1e-5"),),
    )
    return ICSDGAN(recipe)


def first_losses(folder, write):
    """{stage: the terms of the first steps}, from weights that TensorFlow drew and JAX reads."""
    found = {}
    for system in (sdn(), icsd_gan()):
        for plan in system.plans:
            stage = plan.stage
            trainer, losses = system.trainer(plan), Losses()
            path = f"{folder}/{stage.name}.npz"
            if write:
                np.savez(path, *map(np.asarray, trainer.kept_variables))
            with np.load(path) as stored:
                for variable, values in zip(trainer.kept_variables, stored.values(), strict=True):
                    variable.assign(values)
            compiled = keras.backend.backend() == "jax"
            optimizer = trainer.make_optimizer(stage, STEPS, system.recipe.training)
            trainer.compile(optimizer=optimizer, jit_compile=compiled)
            optimizer.build(trainer.trainable_variables)
            trainer.fit(system.batches(plan, 0, STEPS), shuffle=False, verbose=0, callbacks=[losses])
            found[stage.name] = losses.terms
    return found


def test_the_first_losses_are_tensorflows(tmp_path):
    ours = first_losses(tmp_path, write=True)
    theirs = json.loads(finish(without_tensorflow(LOSSES, __file__, tmp_path)).splitlines()[-1])
    assert ours.keys() == theirs.keys() == {"mirrored", "perceptual", "gan"}
    for name, steps in ours.items():
        assert len(steps) == STEPS and len({step["loss"] for step in steps}) == STEPS
        for one, other in zip(steps, theirs[name], strict=True):
            assert one.keys() == other.keys() and len(one) == (10 if name == "gan" else 23)
            # A GAN's generator is judged by discriminators that have moved already.
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-3 if name == "gan" else 1e-4)
        # Before any step, every term agrees; then Adam divides by gradients that may be next to nothing.
        early = {key for key in steps[0] if name != "gan" or not key.startswith(("generator", "loss"))}
        assert {key: theirs[name][0][key] for key in early} == pytest.approx(
            {key: steps[0][key] for key in early}, rel=1e-4, abs=1e-6
        )


def test_the_adversarial_step_is_that_of_the_hand_calculation():
    """The same tests as TensorFlow's, in a process of JAX."""
    files = [ROOT / "tests" / "training" / f"test_{name}.py" for name in ("adversarial", "augmentation")]
    chosen = "hand_calculation or are_what_is_kept or same_to_the_bit or whole_pixels or grey_square"
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files), "-k", chosen]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert "6 passed" in found.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a whole run and of one that was killed in stage two and started again."""
    folder = tmp_path_factory.mktemp("jax")
    output = finish(without_tensorflow(COMMAND, *RUN, f"--run_dir={folder / 'whole'}"))
    assert output.endswith("trained\n")
    process = without_tensorflow(COMMAND, *RUN, f"--run_dir={folder / 'killed'}")
    metrics = folder / "killed" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and '"step": 17,' in metrics.read_text()):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    finish(without_tensorflow(COMMAND, *RUN, f"--run_dir={folder / 'killed'}"))
    return folder / "whole", folder / "killed"


def test_a_run_leaves_the_same_files_as_tensorflows(runs):
    names = {path.relative_to(runs[0]).as_posix() for path in runs[0].rglob("*") if path.is_file()}
    stages = {f"checkpoints/{stage}/{name}" for stage in ("one", "two") for name in ("final.npz", "student.keras")}
    assert stages | {"captions.txt", "metrics.jsonl", "recipe.json", "student.keras", "vocabulary.txt"} < names
    steps = {"one": (1, 10), "two": (11, 20, 30, 40, 50)}
    samples = {f"samples/{stage}-{step:08d}.png" for stage in steps for step in steps[stage]}
    assert samples == {name for name in names if name.startswith("samples/")}
    lines = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 51))


def test_a_killed_run_ends_with_the_same_weights_to_the_bit(runs):
    for name in ("one/final.npz", "two/final.npz"):
        with np.load(runs[0] / "checkpoints" / name) as one, np.load(runs[1] / "checkpoints" / name) as other:
            assert one.files == other.files
            assert all(np.array_equal(one[key], other[key]) for key in one.files)
    for path in (runs[0] / "samples").iterdir():
        assert path.read_bytes() == (runs[1] / "samples" / path.name).read_bytes()


def test_tensorflow_draws_with_what_jax_trained(runs):
    student = load_student(runs[0])
    with np.load(runs[0] / "checkpoints" / "two" / "final.npz") as kept:
        weights = [kept[key] for key in kept.files]
    assert all(np.array_equal(a, b) for a, b in zip(weights, student.network.get_weights(), strict=True))
    inputs = {"tokens": student.front_end.features(["a small red circle"]), "noise": np.zeros((1, 2), "float32")}
    image = np.asarray(student.network(inputs)["image"])
    assert image.shape == (1, 32, 32, 3) and np.isfinite(image).all()
