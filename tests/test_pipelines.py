"""Every recipe in pipelines/: what it says of itself, what it means, and a run of it shrunk to two steps a stage."""

import dataclasses
import functools
import json
import pickle
import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from t2i_kd import systems
from t2i_kd.api import describe, export, train
from t2i_kd.data.subset import trains_on_a_part
from t2i_kd.evaluation import evaluate
from t2i_kd.generate import write_images
from t2i_kd.options import TeacherOptions, TextOptions, TrainingOptions
from t2i_kd.sdn import SDNRecipe, SDNStage
from t2i_kd.srpkd import SrpkdRecipe
from t2i_kd.srpkd.networks import build_generator
from t2i_kd.student import save_network
from tests.commands import metrics
from tests.published_generators import ml5_arrays
from tests.systems import recipe_and_others, recipe_of, write_pairs

PIPELINES = sorted((Path(__file__).resolve().parents[1] / "pipelines").glob("*.flags"))
NAMES = [path.stem for path in PIPELINES]
# Teachers that need no weights of elsewhere.
COME_ALONG = ("none", "vgg19_slim", "efficientnet_lite0")
# A student that reads captions.
READER = (
    "--teacher=none",
    "--width=0.03125",
    "--text_dim=8",
    "--noise_dim=2",
    "--stage=one: objective=mirrored steps=1 tap_weights=image:1",
)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Pictures in four classes with two captions each, Reed's vectors for them, a VGG19; pairs, and a painter."""
    folder, rng, lines, vectors = tmp_path_factory.mktemp("data"), np.random.default_rng(0), [], []
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
        captions = [f"picture {number} of class {number % 4}", f"number {number}"]
        split = "test" if number >= 8 else "train"
        named = {"label": number % 4, "class_name": f"class {number % 4}"}
        lines.append({"file_name": f"{number}.png", "captions": captions, "split": split, **named})
        vectors.append(rng.standard_normal((2, 1024), np.float32))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "reed" / "train").mkdir(parents=True)
    (folder / "reed" / "train" / "filenames.pickle").write_bytes(pickle.dumps([f"x/{n}" for n in range(12)], 2))
    (folder / "reed" / "train" / "char-CNN-RNN-embeddings.pickle").write_bytes(pickle.dumps(vectors, 2))
    keras.applications.VGG19(include_top=False, weights=None).save_weights(folder / "vgg19.weights.h5")
    write_pairs(folder)
    np.savez(folder / "painter.npz", **ml5_arrays(4))
    reader = systems.build(recipe_of("--dataset=image_folder", f"--data_dir={folder}", *READER))
    save_network(reader.network, folder / "reader" / "student.keras")
    reader.save_condition(folder / "reader")
    return folder


def shrunk(recipe, folder):
    """The recipe with stand-in data, 32 pixels, a teacher that comes with the package, and two steps a stage."""
    data = dataclasses.replace(recipe.data, resolution=32)
    if recipe.system == "srpkd" and not compresses(recipe):
        data = dataclasses.replace(data, dataset="paired_folder", data_dir=str(folder))
    elif data.dataset != "captioned_shapes":
        data = dataclasses.replace(data, dataset="image_folder", data_dir=str(folder))
    if trains_on_a_part(data):
        data = dataclasses.replace(data, data_fraction=0.5, max_examples=0, balance_classes=True)
    if recipe.system == "kd_dlgan":
        teacher = TeacherOptions(teacher="tests.dual_encoder")
    elif recipe.system == "teacher_slim":
        teacher = dataclasses.replace(recipe.teacher, teacher_weights=str(folder / "vgg19.weights.h5"))
    elif compresses(recipe):
        teacher = dataclasses.replace(recipe.teacher, teacher=f"run:{folder / 'reader'}")
    elif recipe.system == "srpkd":
        painter = recipe.stages[0].objective == "distil"
        teacher = dataclasses.replace(recipe.teacher, teacher=str(folder / "painter.npz") if painter else "none")
    else:
        small = recipe.teacher.teacher if recipe.teacher.teacher in COME_ALONG else "vgg19_slim"
        teacher = dataclasses.replace(recipe.teacher, teacher=small, teacher_weights="imagenet")
    stages = tuple(
        dataclasses.replace(stage, steps=2, epochs=0.0, warmup_steps=min(stage.warmup_steps, 1), **taps(recipe, stage))
        for stage in recipe.stages
    )
    few = dataclasses.replace(recipe.training, batch_size=2, checkpoint_every=1, sample_every=2, log_every=1)
    groups = {"data": data, "teacher": teacher, "training": few, **narrow(recipe, folder)}
    return dataclasses.replace(recipe, stages=stages, **groups)


def compresses(recipe):
    """Whether a recipe makes a student that reads captions narrower."""
    return recipe.stages[0].objective == "compress"


def taps(recipe, stage):
    """The stage's taps, of the teacher that stands in for one with two towers."""
    return {"tap_weights": (("half", 1.0),)} if recipe.system == "kd_dlgan" and stage.objective == "ds_sje" else {}


def narrow(recipe, folder):
    """The option groups of one system or another, with few channels and the stand-in's vectors."""
    changes = {
        "sdn": {"width": 0.25},
        "slim": {"width": 0.25},
        "icsd": {"generator_channels": 8, "condition_dim": 8},
        "kd": {"head_units": 8},
        "generator": {"generator_channels": 4},
    }
    if recipe.system == "srpkd" and recipe.stages[0].objective != "distil":
        changes["host"] = {"discriminator_channels": 4}
    if recipe.system == "srpkd" and recipe.generator.generator == "unet":
        # One of 32 px has no level that drops.
        changes["generator"] |= {"generator_dropout": 0.0}
    if recipe.system == "kd_dlgan" and recipe.kd.generator == "biggan":
        changes["kd"] |= {"generator_channels": 2}
    if any(stage.objective in ("icsd", "adversarial", "kd_dlgan") for stage in recipe.stages):
        changes["gan"] = {"discriminator_channels": 4, "discriminator_steps": 1}
    if recipe.system == "sdn" and recipe.noise.noise_correlation:
        # The few images here differ in few directions.
        changes["student"] = {"noise_dim": 2}
    if recipe.system == "kd_dlgan" and recipe.kd.generator == "mirrored":
        changes["mirrored"] = {"width": 1 / 32}
    if compresses(recipe):
        changes = {}
    encoder = recipe.text.text_encoder if "text" in recipe.groups() else ""
    # A GRU is unrolled over the tokens.
    texts = {"precomputed": {"embeddings_dir": str(folder / "reed")}, "gru": {"text_length": 5}}
    changes["text"] = texts.get(encoder, {})
    return {
        name: dataclasses.replace(getattr(recipe, name), **values)
        for name, values in changes.items()
        if name in recipe.groups()
    }


def test_there_are_recipes():
    assert {"sdn_cub200_paper", "sdn_flowers64", "sdn_cub", "cats64", "teacher_slim"} <= set(NAMES)
    assert {"icsd_shapes", "icsd_shapes_teacher", "icsd_flowers32", "icsd_flowers64", "icsd_cub256"} <= set(NAMES)
    assert {"kd_dlgan_cifar10", "kd_dlgan_cifar10_cpu", "kd_dlgan_cats64", "kd_dlgan_flowers64"} <= set(NAMES)
    assert {"srpkd_painter", "srpkd_horse2zebra64", "srpkd_facades64", "srpkd_horse2zebra"} <= set(NAMES)
    assert {"srpkd_flowers64_small", "flowers64_small_refined"} <= set(NAMES)


def test_the_refined_student_is_the_small_one_of_flowers64():
    """Half as wide as flowers64's, seen by the same discriminators, with the weights of its last stage."""
    names = ("flowers64", "srpkd_flowers64_small", "flowers64_small_refined")
    found = [recipe_and_others(f"--flagfile={path}") for name in names for path in PIPELINES if path.stem == name]
    (whole, small, refined), others = zip(*found, strict=True)
    assert refined.sdn == dataclasses.replace(whole.sdn, width=small.compression.channel_share * whole.sdn.width)
    assert (refined.text, refined.gan, refined.projection) == (whole.text, whole.gan, whole.projection)
    assert refined.stages == (dataclasses.replace(whole.stages[-1], steps=3000),)
    assert refined.student == dataclasses.replace(whole.student, init_from=others[1]["run_dir"])


@pytest.mark.parametrize("path", PIPELINES, ids=NAMES)
def test_it_opens_with_what_it_is_what_it_costs_and_its_command(path):
    text = path.read_text("utf-8")
    opening = re.match(r"(#.*\n)+", text)[0]
    rest = text[len(opening) :].splitlines()
    assert rest and all(line.startswith("--") for line in rest)
    for word in ("Source", "Cost:", "Command:"):
        assert word in opening, word
    (command,) = re.findall(r"^# Command: (.*)$", opening, re.MULTILINE)
    program, *arguments = shlex.split(command.replace(f"pipelines/{path.name}", str(path)))[2:]
    assert command.startswith("python -m t2i_kd.train ") and program == "t2i_kd.train"
    recipe, others = recipe_and_others(*arguments)
    assert f"--flagfile={path}" in arguments and recipe.stages
    assert others["run_dir"]


@pytest.fixture
def built_once(monkeypatch):
    """What describes a recipe and what trains it share one system."""
    monkeypatch.setattr(systems, "build", functools.cache(systems.build))


@pytest.mark.slow
@pytest.mark.parametrize("path", PIPELINES, ids=NAMES)
def test_a_smoke_run(path, stand_in, uncompiled, built_once, tmp_path):
    pytest.importorskip("tensorflow")
    recipe = shrunk(recipe_and_others(f"--flagfile={path}")[0], stand_in)
    if "student" in recipe.groups() and recipe.student.init_from:
        first = dataclasses.replace(recipe, student=dataclasses.replace(recipe.student, init_from=""))
        train(first, tmp_path / "first")
        started = dataclasses.replace(recipe.student, init_from=str(tmp_path / "first"))
        recipe, tmp_path = dataclasses.replace(recipe, student=started), tmp_path / "run"
    assert "parameters" in "\n".join(describe(recipe))
    train(recipe, tmp_path)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 2 * len(recipe.stages) + 1))
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert (tmp_path / "student.keras").stat().st_size > 0
    if trains_on_a_part(recipe.data):
        assert len(json.loads((tmp_path / "inputs.json").read_text())["examples"]) == 4
    if recipe.system == "teacher_slim":
        assert (tmp_path / "vgg19_slim.npz").stat().st_size > 0
    else:
        assert sorted(tmp_path.glob("samples/*.png"))
    if path.stem == "quickstart":
        version = export(tmp_path, tmp_path / "model", artifacts=["onnx"])
        write_images(str(version), ["a small red cross"], [], 0, tmp_path / "cross.png")
        assert (tmp_path / "cross.png").stat().st_size > 0
    if recipe.system == "sdn" and recipe.text.text_encoder == "precomputed":
        data = recipe.data
        report = evaluate(tmp_path, data.dataset, "tap_distance", data_dir=data.data_dir, num_captions=4)
        assert len(report["metrics"]["tap_distance"]) == len(recipe.stages) + 1


def test_the_papers_setting_is_the_papers():
    (path,) = [path for path in PIPELINES if path.stem == "sdn_cub200_paper"]
    recipe, _ = recipe_and_others(f"--flagfile={path}")
    expected = SDNRecipe()
    assert (recipe.data.dataset, recipe.data.resolution, recipe.data.flip) == ("cub200", 224, False)
    assert recipe.text == dataclasses.replace(TextOptions(), text_encoder="precomputed", text_dim=1024)
    assert recipe.teacher == TeacherOptions(teacher="vgg19", teacher_pooling="average")
    assert (recipe.student, recipe.sdn) == (expected.student, expected.sdn)
    assert (recipe.sdn.width, recipe.student.noise_dim) == (1.0, 0)
    free = {name: getattr(recipe.training, name) for name in ("checkpoint_every", "sample_every", "log_every")}
    assert recipe.training == TrainingOptions(batch_size=12, **free)
    assert recipe.stages == (
        SDNStage("stage1", "mirrored", epochs=100.0, learning_rate=1e-4, error="l1", scaling="raw"),
        SDNStage("stage2", "perceptual", epochs=100.0, learning_rate=1e-4, error="l1", scaling="raw"),
    )


def test_srpkds_setting_is_that_of_the_hosts_code():
    (path,) = [path for path in PIPELINES if path.stem == "srpkd_horse2zebra"]
    recipe, _ = recipe_and_others(f"--flagfile={path}")
    usual = SrpkdRecipe()
    assert (recipe.data.resolution, recipe.translation.load_size, recipe.data.flip) == (256, 286, True)
    assert recipe.generator == dataclasses.replace(usual.generator, generator_depth=9)
    assert (recipe.host, recipe.distillation) == (usual.host, usual.distillation)
    host = recipe.host
    assert (host.gan_loss, host.cycle_weight, host.identity_weight, host.pool_size) == ("lsgan", 10, 0.5, 50)
    assert (host.discriminator_channels, host.discriminator_layers, host.beta_1, host.beta_2) == (64, 3, 0.5, 0.999)
    (stage,) = recipe.stages
    assert (stage.epochs, stage.learning_rate, stage.schedule, recipe.training.batch_size) == (200, 2e-4, "linear", 1)


def test_the_painter_has_at_most_100000_parameters():
    (path,) = [path for path in PIPELINES if path.stem == "srpkd_painter"]
    recipe, _ = recipe_and_others(f"--flagfile={path}")
    options = recipe.generator
    network = build_generator(
        options.generator,
        128,
        options.generator_channels,
        options.generator_depth,
        upsampling=options.generator_upsampling,
    )
    assert network.count_params() <= 100_000
