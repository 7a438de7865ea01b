"""ICSD-GAN as a user meets it: trained, killed, started again, exported, drawn and judged, with no flag of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_kd.errors import UserError
from t2i_kd.evaluation import evaluate, students
from t2i_kd.export import export
from t2i_kd.loading import load_artifact
from t2i_kd.noise import noise_from_seeds
from t2i_kd.student import load_student

ROOT = Path(__file__).resolve().parents[2]
RUN = (
    "--system=icsd_gan",
    "--resolution=32",
    "--text_dim=16",
    "--word_dim=8",
    "--text_length=12",
    "--teacher=none",
    "--noise_dim=2",
    "--image_stages=2",
    "--generator_channels=8",
    "--condition_dim=4",
    "--discriminator_channels=4",
    "--gradient_penalty=r1",
    "--penalty_every=3",
    "--augmentation=color,translation,cutout",
    "--batch_size=4",
    "--flip",
    "--ema=0.9",
    "--checkpoint_every=4",
    "--sample_every=10",
    "--log_every=1",
    "--stage=gan: objective=icsd steps=30 learning_rate=1e-3 schedule=cosine warmup_steps=2 frozen=text_*",
)
CAPTIONS = ["a small red circle in the top left on a white background", "a large blue cross at the bottom right"]


def start(run_dir):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "t2i_kd.train", *RUN, f"--run_dir={run_dir}"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, code=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a whole run and of one that was killed between two checkpoints and started again."""
    folder = tmp_path_factory.mktemp("icsd")
    whole, killed = start(folder / "whole"), start(folder / "killed")
    metrics = folder / "killed" / "metrics.jsonl"
    while killed.poll() is None and not (metrics.exists() and '"step": 14,' in metrics.read_text()):
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    finish(killed, -signal.SIGKILL)
    assert not (folder / "killed/checkpoints/gan/final.npz").exists()
    finish(start(folder / "killed"))
    finish(whole)
    return folder / "whole", folder / "killed"


def test_a_killed_run_ends_with_the_same_weights_to_the_bit(runs):
    found = [dict(np.load(folder / "checkpoints/gan/final.npz")) for folder in runs]
    assert found[0].keys() == found[1].keys()
    assert {"discriminator_16", "discriminator_32", "average_0"} <= {
        part for name in found[0] for part in name.replace("_down", "/").split("/")
    }
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    for path in (runs[0] / "samples").iterdir():
        assert path.read_bytes() == (runs[1] / "samples" / path.name).read_bytes()


def test_every_stages_samples_and_losses_are_logged(runs):
    names = {path.name for path in (runs[0] / "samples").iterdir()}
    assert names == {f"gan-{step:08d}{side}.png" for step in (1, 10, 20, 30) for side in ("", "_16")}
    line = json.loads((runs[0] / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"generator_16", "generator_32", "discriminator_16", "penalty_32", "kl", "icsd"} < set(line)


@pytest.fixture(scope="module")
def version(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "icsd"
    export(runs[0], folder, overwrite=False)
    return folder / "1"


def test_every_artifact_draws_the_same_pictures(runs, version):
    """The export has compared them; here with another caption and seed, and every stage's image by its signature."""
    import tensorflow as tf

    student = load_student(runs[0])
    features, seeds = student.front_end.features(CAPTIONS), [3, -7]
    made = student.network({"tokens": features, "noise": noise_from_seeds(seeds, 6)}, training=False)
    for file in ("", "assets.extra/student.tflite", "assets.extra/student.onnx"):
        drawn = load_artifact(version / file).generate(CAPTIONS, seeds).astype(int)
        assert np.abs(drawn - np.rint(np.clip(made["image"], 0, 255))).max() <= 1
    loaded = tf.saved_model.load(str(version))
    coarse = loaded.signatures["pixels_16"](text=tf.constant(CAPTIONS), seed=tf.constant(seeds, tf.int64))["image"]
    assert coarse.shape == (2, 16, 16, 3)
    assert np.abs(coarse.numpy().astype(int) - np.rint(np.clip(made["image_16"], 0, 255))).max() <= 1


def test_seeds_make_different_pictures(version):
    drawn = load_artifact(version).generate(CAPTIONS[:1] * 2, [0, 1])
    assert np.any(drawn[0] != drawn[1])


def test_truncation_shrinks_the_noise(runs, version, tmp_path):
    student = load_student(runs[0])
    assert student.truncated(1.0) is student
    export(runs[0], tmp_path / "half", overwrite=False, artifacts=["onnx"], truncation=0.5)
    extra = tmp_path / "half/1/assets.extra"
    assert json.loads((extra / "manifest.json").read_text())["truncation"] == 0.5
    noise = noise_from_seeds([5, 6], 6) * np.float32(0.5)
    inputs = {"tokens": student.front_end.features(CAPTIONS), "noise": noise}
    expected = np.rint(np.clip(student.network(inputs, training=False)["image"], 0, 255))
    assert np.abs(load_artifact(extra / "student.onnx").generate(CAPTIONS, [5, 6]) - expected).max() <= 1
    for factor in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="--truncation"):
            student.truncated(factor)


def test_generate_draws_from_the_run_directory(runs, tmp_path):
    from t2i_kd.generate import draw

    draw(str(runs[0]), CAPTIONS[:1], 4, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size == (32, 32)


def test_every_image_stage_is_judged_at_its_own_side(runs):
    labels = [label for label, *_ in students(runs[0])]
    assert labels == ["gan alone", "final student, image of 16 px", "final student"]
    report = evaluate(runs[0], "captioned_shapes", "ssim", num_captions=8, bootstrap=0)
    sides = {label: next(iter(result["values"])) for label, result in report["metrics"]["ssim"].items()}
    assert "16" in sides["final student, image of 16 px"] and "32" in sides["final student"]
