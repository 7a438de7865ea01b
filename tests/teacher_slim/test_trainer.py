"""The `teacher_slim` system on forty pictures and a random VGG19."""

import json
import types

import keras
import numpy as np
import pytest
from PIL import Image

from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.options import DataOptions, TeacherOptions, TrainingOptions
from t2i_kd.recipe import Stage
from t2i_kd.teacher_slim import SlimOptions, SlimRecipe
from t2i_kd.teacher_slim.fidelity import fidelity
from t2i_kd.teacher_slim.objective import AVERAGE_WEIGHTS, POOLS, pool_statistics
from t2i_kd.teacher_slim.trainer import PoolBatches, SlimTrainer, TeacherSlim, cached_pools
from t2i_kd.teachers.catalogue import load_teacher
from t2i_kd.teachers.vgg19 import CONVOLUTIONS, SLIM_WEIGHTS, build_vgg19

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (20, 40, 210), "grey": (120, 120, 120)}
STEPS = 4


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty pictures of noise in four colours, a class each; the last two of a class are for testing."""
    folder, rng, lines = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for name, colour in COLOURS.items():
        for index in range(10):
            noisy = np.clip(np.array(colour) + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{name}{index}.png")
            line = {"file_name": f"{name}{index}.png", "caption": name, "class_name": name}
            lines.append(json.dumps(line | {"split": "test" if index >= 8 else "train"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def full_weights(tmp_path_factory):
    """A random VGG19 as keras.applications saves it; He's scale, so that the deep pools are not nothing."""
    keras.utils.set_random_seed(0)
    model, rng = keras.applications.VGG19(include_top=False, weights=None), np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) == 4:
            scale = np.sqrt(2 / np.prod(variable.shape[:3]))
            variable.assign(scale * rng.standard_normal(variable.shape, np.float32))
    path = tmp_path_factory.mktemp("weights") / "full.weights.h5"
    model.save_weights(path)
    return path


def recipe(pictures, full_weights, width=1 / 16, **stage):
    options = {"steps": STEPS, "learning_rate": 2e-3} | stage
    return SlimRecipe(
        data=DataOptions(dataset="image_folder", data_dir=str(pictures), resolution=32),
        teacher=TeacherOptions(teacher="vgg19", teacher_weights=str(full_weights)),
        slim=SlimOptions(width=width),
        training=TrainingOptions(batch_size=4, checkpoint_every=3, log_every=1),
        stages=(Stage("distil", "regress_pools", **options),),
    )


@pytest.fixture(scope="module")
def run(pictures, full_weights, tmp_path_factory):
    """A finished run at the shipped width, and the trainer that its end leaves."""
    run_dir = tmp_path_factory.mktemp("run")
    system = TeacherSlim(recipe(pictures, full_weights, width=0.25))
    system.prepare()
    system.train(run_dir)
    return types.SimpleNamespace(run_dir=run_dir, system=system)


@pytest.mark.slow
def test_a_run_leaves_a_teacher_that_can_be_loaded(run):
    path = run.run_dir / "vgg19_slim.npz"
    assert path.stat().st_size <= 3 * 2**20
    with np.load(path) as stored:
        assert {stored[name].dtype for name in stored.files} == {np.dtype("float16")}
        assert set(stored.files) == {f"{name}/{part}" for name in CONVOLUTIONS for part in ("kernel", "bias")}
    teacher = load_teacher(TeacherOptions(teacher="vgg19_slim", teacher_weights=str(path)), 32)
    # Its maps are those of the network that was trained, in the mode that does not depend on the batch.
    images = run.system.images[:3].astype("float32")
    found, expected = teacher(images), run.system.network(images, training=False)
    for pool in POOLS:
        np.testing.assert_allclose(found[pool], expected[pool], rtol=0.02, atol=0.01 * np.abs(expected[pool]).max())


@pytest.mark.slow
def test_a_run_teaches_as_run_dir(run):
    """The network that `--teacher=run:DIR` names is the folded one, to float16's rounding of the other file."""
    teacher = load_teacher(TeacherOptions(teacher=f"run:{run.run_dir}"), 32)
    assert {"image", *CONVOLUTIONS, *POOLS} <= set(teacher.output) and not teacher.trainable
    images = run.system.images[:3].astype("float32")
    found, expected = teacher(images), run.system.network(images, training=False)
    for pool in POOLS:
        np.testing.assert_allclose(found[pool], expected[pool], rtol=1e-3, atol=1e-4 * np.abs(expected[pool]).max())


@pytest.mark.slow
def test_a_run_measures_its_fidelity(run):
    report = json.loads((run.run_dir / "fidelity.json").read_text())
    assert (report["classes"], report["train_images"], report["test_images"]) == (4, 32, 8)
    for name in ("full", "slim", "random"):
        assert list(report[name]) == list(POOLS) and all(0 <= value <= 1 for value in report[name].values())
    # Four colours are easy: even random weights tell them apart by the first pool's averages.
    assert report["full"]["pool1"] >= 0.75


@pytest.mark.slow
def test_a_run_leaves_no_maps_behind(run):
    assert {path.name for path in run.run_dir.iterdir()} == {
        "checkpoints",
        "tensorboard",
        "metrics.jsonl",
        "student.keras",
        "vgg19_slim.npz",
        "fidelity.json",
    }
    lines = [json.loads(line) for line in (run.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert {*POOLS, *(f"{pool}_average" for pool in POOLS), "loss"} < set(lines[0])


@pytest.mark.slow
def test_moving_statistics_are_in_the_checkpoint(run):
    with np.load(run.run_dir / "checkpoints" / "distil" / "final.npz") as kept:
        names = " ".join(kept.files)
        assert names.count("moving_mean") == names.count("moving_variance") == len(CONVOLUTIONS)
        assert "vgg19/" not in names
    for layer in run.system.network.layers:
        if layer.name.endswith("_bn"):
            assert np.abs(layer.get_weights()[2]).max() > 0


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_exactly(pictures, full_weights, tmp_path, monkeypatch, uncompiled):
    def train(run_dir):
        TeacherSlim(recipe(pictures, full_weights)).train(run_dir)
        with np.load(run_dir / "vgg19_slim.npz") as stored:
            return {name: stored[name] for name in stored.files}

    whole = train(tmp_path / "whole")
    fetch = PoolBatches.__getitem__

    def killed(batches, index):
        if batches.first_step + index == 3:
            raise KeyboardInterrupt
        return fetch(batches, index)

    monkeypatch.setattr(PoolBatches, "__getitem__", killed)
    with pytest.raises(BaseException, match=r"KeyboardInterrupt|^$"):
        train(tmp_path / "killed")
    monkeypatch.undo()
    assert not (tmp_path / "killed" / "vgg19_slim.npz").exists()
    again = train(tmp_path / "killed")
    assert all(np.array_equal(again[name], value) for name, value in whole.items())


def test_the_loss_is_the_formula():
    rng = np.random.default_rng(0)
    network = build_vgg19(32, 1 / 32, batch_normalization=True)
    images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    widths = {pool: 3 + index for index, pool in enumerate(POOLS)}
    taps = {
        pool: rng.normal(2, 3, (4, 16 // 2**index, 16 // 2**index, widths[pool])).astype("float16")
        for index, pool in enumerate(POOLS)
    }
    statistics = pool_statistics(taps)
    trainer = SlimTrainer(network, widths, statistics)
    slim = {pool: np.asarray(network(images.astype("float32"), training=True)[pool], "float64") for pool in POOLS}

    def linear(head, values):
        kernel, bias = (np.asarray(each, "float64") for each in head.get_weights())
        return values @ kernel + bias

    expected = 0.0
    for index, pool in enumerate(POOLS):
        mu, sigma, _, _ = statistics[pool]
        local = np.mean((linear(trainer.heads[pool], slim[pool]) - (taps[pool] - mu) / sigma) ** 2)
        ahead = []
        for deeper in POOLS[index:]:
            _, _, nu, tau = statistics[deeper]
            target = (taps[deeper].astype("float64").mean((1, 2)) - nu) / tau
            guess = linear(trainer.average_heads[f"{pool}_{deeper}"], slim[pool].mean((1, 2)))
            ahead.append(np.mean((guess - target) ** 2))
        expected += local + AVERAGE_WEIGHTS[pool] * np.mean(ahead)
    loss, terms = trainer.loss_terms({"image": images, **taps})
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert len(terms) == 10


def test_statistics_are_per_channel():
    rng = np.random.default_rng(1)
    values = rng.normal((1, 5), (2, 0.5), (6, 4, 4, 2)).astype("float16")
    values[..., 1] = 5
    mu, sigma, nu, tau = pool_statistics({"pool1": values})["pool1"]
    exact = values.astype("float64")
    assert mu == pytest.approx(exact.mean((0, 1, 2)), rel=1e-3) and nu == pytest.approx(mu, rel=1e-3)
    assert sigma[0] == pytest.approx(exact[..., 0].std(), rel=5e-3)
    assert tau[0] == pytest.approx(exact[..., 0].mean((1, 2)).std(), rel=5e-3)
    assert 0 < sigma[1] < 0.01 and 0 < tau[1] < 0.01


@pytest.mark.slow
def test_the_shipped_weights_have_the_fidelity_that_is_shipped_beside_them(shared_data):
    known = json.loads(SLIM_WEIGHTS.with_name("vgg19_slim_fidelity.json").read_text())
    flowers = [
        load_dataset("image_folder", s, 64, shared_data / "oxford_flowers102_64px.zip") for s in ("train", "test")
    ]
    found = fidelity({"slim": load_teacher(TeacherOptions(teacher="vgg19_slim"), 64)}, *flowers)
    assert found["slim"] == pytest.approx(known["slim"], abs=0.01)
    assert (found["train_images"], found["test_images"]) == (known["train_images"], known["test_images"])


@pytest.mark.parametrize(
    ("stages", "named"),
    [
        (("I", "mirrored"), "objective is 'mirrored'"),
        (("I", "regress_pools", "J", "regress_pools"), "exactly one stage"),
        ((), "a recipe needs at least one stage"),
    ],
)
def test_wrong_stages_are_named(stages, named):
    stages = tuple(Stage(name, objective, steps=1) for name, objective in zip(stages[::2], stages[1::2], strict=True))
    with pytest.raises(UserError, match=f"--stage.*{named}"):
        TeacherSlim(SlimRecipe(stages=stages))


def test_missing_weights_are_named(pictures, tmp_path):
    with pytest.raises(UserError, match=r"--teacher_weights: no file"):
        TeacherSlim(recipe(pictures, tmp_path / "absent.weights.h5")).prepare()


def test_maps_are_made_once(pictures, full_weights, tmp_path, monkeypatch):
    system = TeacherSlim(recipe(pictures, full_weights))
    first = cached_pools(system.teacher, system.images, tmp_path / "taps")
    monkeypatch.setattr(keras, "Model", None)
    again = cached_pools(system.teacher, system.images, tmp_path / "taps")
    assert all(np.array_equal(first[pool], again[pool]) for pool in POOLS)
    full = system.teacher(system.images[:2].astype("float32"))
    np.testing.assert_allclose(first["pool3"][:2], full["pool3"], rtol=2e-3, atol=1e-3)
