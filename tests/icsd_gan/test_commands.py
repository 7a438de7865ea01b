"""ICSD-GAN as a user meets it: trained, exported, generated with and evaluated, with no flag of its own."""

import json

import numpy as np
import pytest
from PIL import Image

from t2i_kd.api import export
from t2i_kd.errors import UserError
from t2i_kd.evaluation import evaluate, students
from t2i_kd.generate import write_images
from t2i_kd.loading import load_artifact
from t2i_kd.noise import noise_from_seeds
from t2i_kd.student import load_student
from tests.commands import Fork, finish, metrics

pytestmark = pytest.mark.slow  # a run and an export of its own
RUN = (
    "--system=icsd_gan",
    "--resolution=32",
    "--text_dim=16",
    "--word_dim=8",
    "--text_length=5",
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


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("icsd") / "whole"
    finish(Fork(*RUN, f"--run_dir={folder}"))
    return folder


def test_checkpoints_hold_both_networks_and_the_averages(run_dir):
    with np.load(run_dir / "checkpoints/gan/final.npz") as kept:
        parts = {part for name in kept.files for part in name.replace("_down", "/").split("/")}
    assert {"discriminator_16", "discriminator_32", "average_0"} <= parts


def test_every_stages_samples_and_losses_are_logged(run_dir):
    names = {path.name for path in (run_dir / "samples").iterdir()}
    assert names == {f"gan-{step:08d}{side}.png" for step in (1, 10, 20, 30) for side in ("", "_16")}
    line = metrics(run_dir)[-1]
    assert {"generator_16", "generator_32", "discriminator_16", "penalty_32", "kl", "icsd"} < set(line)


@pytest.fixture(scope="module")
def version(run_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "icsd"
    return export(run_dir, folder, artifacts=[])


def test_every_stages_image_has_its_signature(run_dir, version):
    import tensorflow as tf

    student, seeds = load_student(run_dir), [3, -7]
    inputs = {**student.condition.arrays(CAPTIONS), "noise": noise_from_seeds(seeds, 6)}
    expected = student.network(inputs, training=False)
    loaded = tf.saved_model.load(str(version))
    for side, ending in ((16, "_16"), (32, "")):
        asked = {"text": tf.constant(CAPTIONS), "seed": tf.constant(seeds, tf.int64)}
        found = loaded.signatures[f"pixels{ending}"](**asked)["image"].numpy().astype(int)
        assert found.shape == (2, side, side, 3)
        assert np.abs(found - np.rint(np.clip(expected[f"image{ending}"], 0, 255))).max() <= 1


def test_seeds_give_different_images(version):
    generated = load_artifact(version).generate(CAPTIONS[:1] * 2, [0, 1])
    assert np.any(generated[0] != generated[1])


def test_truncation_shrinks_the_noise(run_dir, version, tmp_path):
    student = load_student(run_dir)
    assert student.truncated(1.0) is student
    export(run_dir, tmp_path / "half", artifacts=["onnx"], truncation=0.5)
    extra = tmp_path / "half/1/assets.extra"
    assert json.loads((extra / "manifest.json").read_text())["truncation"] == 0.5
    noise = noise_from_seeds([5, 6], 6) * np.float32(0.5)
    inputs = {**student.condition.arrays(CAPTIONS), "noise": noise}
    expected = np.rint(np.clip(student.network(inputs, training=False)["image"], 0, 255))
    assert np.abs(load_artifact(extra / "student.onnx").generate(CAPTIONS, [5, 6]) - expected).max() <= 1
    for factor in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="--truncation"):
            student.truncated(factor)


def test_generate_reads_the_run_directory(run_dir, tmp_path):
    write_images(str(run_dir), CAPTIONS[:1], [], 4, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size == (32, 32)


def test_every_image_stage_is_evaluated_at_its_own_side(run_dir):
    labels = [label for label, *_ in students(run_dir)]
    assert labels == ["gan alone", "final student, image of 16 px", "final student"]
    report = evaluate(run_dir, "captioned_shapes", "ssim", num_captions=8, bootstrap=0)
    sides = {label: next(iter(result["values"])) for label, result in report["metrics"]["ssim"].items()}
    assert "16" in sides["final student, image of 16 px"] and "32" in sides["final student"]
