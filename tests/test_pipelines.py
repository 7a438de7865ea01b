"""Every recipe in pipelines/: what it says of itself, what it means, and a run of it shrunk to two steps a stage."""

import dataclasses
import functools
import json
import pickle
import re
import shlex
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from t2i_kd import recipe as recipe_module
from t2i_kd import train
from t2i_kd.evaluation import evaluate
from t2i_kd.export import export
from t2i_kd.generate import draw
from t2i_kd.recipe import Recipe, Stage, TeacherOptions, TextOptions, TrainingOptions, define_flags, from_flags
from t2i_kd.student import GENERATORS
from t2i_kd.training.run_directory import open_run_directory

PIPELINES = sorted((Path(__file__).resolve().parents[1] / "pipelines").glob("*.flags"))
NAMES = [path.stem for path in PIPELINES]
# Flags of the command that are no part of a recipe.
OTHERS = ("run_dir", "export_dir")


@pytest.fixture
def parse(monkeypatch):
    """A function from arguments to (recipe, values of the other flags), with flags of its own."""

    def parsed(*arguments):
        values = flags.FlagValues()
        own = {
            name: functools.partial(getattr(flags, name), flag_values=values)
            for name in dir(flags)
            if name.startswith("DEFINE_")
        }
        monkeypatch.setattr(recipe_module, "flags", types.SimpleNamespace(**own))
        define_flags()
        for name in OTHERS:
            flags.DEFINE_string(name, "", "", flag_values=values)
        flags.DEFINE_boolean("overwrite", False, "", flag_values=values)
        assert values(["train", *arguments]) == ["train"]
        return from_flags(values), values

    return parsed


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A folder of twelve pictures in four classes with two captions each, Reed's vectors for them, a random VGG19."""
    folder, rng, lines, vectors = tmp_path_factory.mktemp("data"), np.random.default_rng(0), [], []
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
        captions = [f"picture {number} of class {number % 4}", f"number {number}"]
        split = "test" if number >= 8 else "train"
        lines.append({"file_name": f"{number}.png", "captions": captions, "label": number % 4, "split": split})
        vectors.append(rng.standard_normal((2, 1024), np.float32))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "reed" / "train").mkdir(parents=True)
    (folder / "reed" / "train" / "filenames.pickle").write_bytes(pickle.dumps([f"x/{n}" for n in range(12)], 2))
    (folder / "reed" / "train" / "char-CNN-RNN-embeddings.pickle").write_bytes(pickle.dumps(vectors, 2))
    keras.applications.VGG19(include_top=False, weights=None).save_weights(folder / "vgg19.weights.h5")
    return folder


def shrunk(recipe, folder):
    """The recipe with stand-in data, 32 pixels, the slim teacher for a student's, and two steps a stage."""
    data = dataclasses.replace(recipe.data, resolution=32)
    if data.dataset != "captioned_shapes":
        data = dataclasses.replace(data, dataset="image_folder", data_dir=str(folder))
    text = recipe.text
    if text.text_encoder == "precomputed":
        text = dataclasses.replace(text, embeddings_dir=str(folder / "reed"))
    if recipe.system in GENERATORS:
        slim = "none" if recipe.teacher.teacher == "none" else "vgg19_slim"
        teacher = dataclasses.replace(recipe.teacher, teacher=slim, teacher_weights="imagenet")
    else:
        teacher = dataclasses.replace(recipe.teacher, teacher_weights=str(folder / "vgg19.weights.h5"))
    stages = tuple(
        dataclasses.replace(stage, steps=2, epochs=0.0, warmup_steps=min(stage.warmup_steps, 1))
        for stage in recipe.stages
    )
    few = dataclasses.replace(recipe.training, batch_size=2, checkpoint_every=1, sample_every=2, log_every=1)
    student = dataclasses.replace(recipe.student, width=0.25)
    icsd = dataclasses.replace(recipe.icsd, generator_channels=8, condition_dim=8)
    gan = dataclasses.replace(recipe.gan, discriminator_channels=4)
    groups = {"data": data, "text": text, "teacher": teacher, "student": student, "training": few, "icsd": icsd}
    return dataclasses.replace(recipe, **groups, gan=gan, stages=stages)


def test_there_are_recipes():
    assert {"sdn_cub200_paper", "sdn_flowers64", "sdn_cub", "teacher_slim"} <= set(NAMES)
    assert {"icsd_shapes", "icsd_flowers64", "icsd_cub256"} <= set(NAMES)


@pytest.mark.parametrize("path", PIPELINES, ids=NAMES)
def test_it_opens_with_what_it_is_what_it_costs_and_its_command(path, parse):
    text = path.read_text("utf-8")
    opening = re.match(r"(#.*\n)+", text)[0]
    rest = text[len(opening) :].splitlines()
    assert rest and all(line.startswith("--") for line in rest)
    for word in ("Source", "Cost:", "Command:"):
        assert word in opening, word
    (command,) = re.findall(r"^# Command: (.*)$", opening, re.MULTILINE)
    program, *arguments = shlex.split(command.replace(f"pipelines/{path.name}", str(path)))[2:]
    assert command.startswith("python -m t2i_kd.train ") and program == "t2i_kd.train"
    recipe, others = parse(*arguments)
    assert f"--flagfile={path}" in arguments and recipe.stages
    assert others.run_dir


@pytest.mark.parametrize("path", PIPELINES, ids=NAMES)
def test_a_smoke_run(path, parse, stand_in, tmp_path):
    recipe = shrunk(parse(f"--flagfile={path}")[0], stand_in)
    system = train.system(recipe)
    assert list(system.describe())
    policy = keras.config.dtype_policy()
    open_run_directory(tmp_path, recipe)
    try:
        system.train(tmp_path)
    finally:
        keras.config.set_dtype_policy(policy)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 2 * len(recipe.stages) + 1))
    assert all(np.isfinite(line["loss"]) for line in lines)
    made = "student.keras" if recipe.system in GENERATORS else "vgg19_slim.npz"
    assert (tmp_path / made).stat().st_size > 0
    if recipe.system in GENERATORS:
        assert sorted(tmp_path.glob("samples/*.png"))
    if path.stem == "quickstart":
        export(tmp_path, tmp_path / "model", overwrite=False)
        draw(str(tmp_path / "model" / "1"), ["a small red cross"], 0, tmp_path / "drawn.png")
        assert (tmp_path / "drawn.png").stat().st_size > 0
    if recipe.text.text_encoder == "precomputed" and recipe.system == "sdn":
        data = recipe.data
        report = evaluate(tmp_path, data.dataset, "tap_distance", data_dir=data.data_dir, num_captions=4)
        assert len(report["metrics"]["tap_distance"]) == len(recipe.stages) + 1


def test_the_papers_setting_is_the_papers(parse):
    (path,) = [path for path in PIPELINES if path.stem == "sdn_cub200_paper"]
    recipe, _ = parse(f"--flagfile={path}")
    expected = Recipe()
    assert (recipe.data.dataset, recipe.data.resolution, recipe.data.flip) == ("cub200", 224, False)
    assert recipe.text == dataclasses.replace(TextOptions(), text_encoder="precomputed", text_dim=1024)
    assert recipe.teacher == TeacherOptions(teacher="vgg19", teacher_pooling="average")
    assert recipe.student == expected.student and (recipe.student.width, recipe.student.noise_dim) == (1.0, 0)
    free = {name: getattr(recipe.training, name) for name in ("checkpoint_every", "sample_every", "log_every")}
    assert recipe.training == TrainingOptions(batch_size=12, **free)
    assert recipe.stages == (
        Stage("stage1", "mirrored", epochs=100.0, learning_rate=1e-4, error="l1", scaling="raw"),
        Stage("stage2", "perceptual", epochs=100.0, learning_rate=1e-4, error="l1", scaling="raw"),
    )
