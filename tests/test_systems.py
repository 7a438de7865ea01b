"""What every system promises, each with its tiny recipe of `tests/systems.py`, and a stranger's system beside them."""

import functools
import importlib.util
import json
import random
import sys
import types

import keras
import numpy as np
import pytest

import t2i_kd
from t2i_kd import systems
from t2i_kd.api import check_exportable, describe
from t2i_kd.errors import UserError
from t2i_kd.runners import KerasRunner
from t2i_kd.student import load_network, load_student
from tests.commands import Fork, arrays, files, finish, kill_after, metrics, refused, start, start_without_tensorflow
from tests.systems import (
    ROOMS,
    STRANGER,
    VARIANTS,
    first_losses,
    recipe_of,
    shortened,
    write_images,
    write_stranger,
)

JAX_LOSSES = """
import json
import keras
from tests.systems import first_losses, recipe_of
from tests.test_systems import few_steps
assert keras.backend.backend() == "jax"
folder, *arguments = sys.argv[1:]
found = first_losses(few_steps(recipe_of(*arguments)), folder, write=False, jit_compile=True)
assert "tensorflow" not in sys.modules
print(json.dumps(found))
"""
STEPS = 3
GANS = ("icsd_gan", "kd_dlgan", "srpkd")
# How their generators' terms begin, which follow a step of the discriminators.
LATER = ("gan", "generator", "loss", "gradient_norm")
needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares with TensorFlow")


def few_steps(recipe):
    """The recipe with few small steps, for comparisons: Adam divides by gradients that may be next to nothing."""
    return shortened(recipe, STEPS, 1e-5)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_images(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def stranger(tmp_path_factory):
    """The stranger's package, on the path of this process and of those that it starts."""
    folder = tmp_path_factory.mktemp("path")
    write_stranger(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "strangers"]:
        del sys.modules[name]


# What compiles longest; `test_train.py` trains SDN, too.
SLOW = [*(room for room in ROOMS if room.name in ("sdn", "kd_dlgan")), *VARIANTS]


@pytest.fixture(
    scope="module",
    params=[
        *(room for room in ROOMS if room not in SLOW),
        STRANGER,
        *(pytest.param(room, marks=pytest.mark.slow) for room in SLOW),
    ],
    ids=lambda room: room.title,
)
def room(request):
    return request.param


@pytest.fixture
def each_system(room):
    """One recipe of each system."""
    if room.variant:
        pytest.skip("another recipe of the same system is checked")
    return room


@pytest.fixture(scope="module")
def whole(room, data_dir, tmp_path_factory):
    """A run of this process that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    # With the checksum of its teacher's file, where that is one.
    recipe = systems.build(room.recipe(data_dir)).recipe
    assert t2i_kd.train(recipe, run_dir).finished
    return types.SimpleNamespace(recipe=recipe, run_dir=run_dir)


def test_a_run_logs_every_step_and_keeps_every_stage(room, whole):
    stages = whole.recipe.stages
    lines = metrics(whole.run_dir)
    assert [line["step"] for line in lines] == list(range(1, sum(stage.steps for stage in stages) + 1))
    assert [line["stage"] for line in lines] == [stage.name for stage in stages for _ in range(stage.steps)]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert {f"checkpoints/{stage.name}/final.npz" for stage in stages} < set(files(whole.run_dir))
    assert systems.load_recipe(whole.run_dir / "recipe.json") == whole.recipe


def test_the_saved_network_is_the_trained_one(room, whole):
    """`student.keras` alone gives the pixels of the network whose weights the last checkpoint holds."""
    if not room.generates:
        network = load_network(whole.run_dir / "student.keras")
        assert set(network.output) >= {"pool1", "pool5"}
        return
    kept = arrays(whole.run_dir / "checkpoints" / whole.recipe.stages[-1].name / "final.npz").items()
    # Dropout's state is no weight.
    kept = [values for name, values in kept if not name.endswith("seed_generator_state")]
    system, student = systems.build(whole.recipe), load_student(whole.run_dir)
    system.network.set_weights(kept[: len(system.network.weights)])
    seeds = range(len(room.items))
    found = KerasRunner(student).generate(room.items, seeds)
    expected = np.clip(np.rint(system.generate(room.items)["image"]), 0, 255)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(t2i_kd.load(whole.run_dir).generate(room.items, seeds), found)


def test_a_finished_run_trains_no_more(whole):
    before = {name: (whole.run_dir / name).read_bytes() for name in files(whole.run_dir) if "checkpoints" in name}
    t2i_kd.train(whole.recipe, whole.run_dir)
    assert {name for name in before if before[name] != (whole.run_dir / name).read_bytes()} <= {
        name for name in before if name.endswith("student.keras")
    }


def test_it_describes_itself_without_a_run(room, data_dir):
    recipe = room.recipe(data_dir)
    text = "\n".join(describe(recipe))
    assert text.startswith(recipe.to_json().rstrip("\n")) and " parameters" in text
    for stage in recipe.stages:
        assert f"stage {stage.name}: {stage.objective}, {stage.steps} steps" in text


@pytest.fixture(scope="module")
def compiled_losses(tmp_path_factory):
    """A function from a command line to its first weights' folder and the terms of the compiled steps from there on."""

    @functools.cache
    def losses(*arguments):
        folder = tmp_path_factory.mktemp("first")
        return folder, first_losses(few_steps(recipe_of(*arguments)), folder, write=True, jit_compile=False)

    return losses


@pytest.mark.slow
@needs_tensorflow
def test_eager_and_compiled_steps_lose_the_same(each_system, data_dir, compiled_losses):
    arguments = each_system.arguments(data_dir)
    recipe, (folder, compiled) = few_steps(recipe_of(*arguments)), compiled_losses(*arguments)
    eager = first_losses(recipe, folder, write=False, jit_compile=False, run_eagerly=True)
    assert compiled.keys() == eager.keys() == {stage.name for stage in recipe.stages}
    for name, steps in compiled.items():
        assert len(steps) == STEPS and len({step["loss"] for step in steps}) == STEPS
        for one, other in zip(steps, eager[name], strict=True):
            assert_close(other, one)


def assert_close(terms, expected):
    """Gradients' norms with more room: where rounding takes a ReLU across its kink, a gradient jumps, no loss does.

    So has the distance of two images that are nearly the same.
    """
    with_room = [name for name in expected if name.endswith(("gradient_norm", "seed_diversity"))]
    assert [terms[name] for name in with_room] == pytest.approx([expected[name] for name in with_room], rel=5e-3)
    losses = expected.keys() - with_room
    assert {name: terms[name] for name in losses} == pytest.approx(
        {name: expected[name] for name in losses}, rel=1e-4, abs=1e-6
    )


@pytest.mark.slow
def test_arrays_train_in_mixed_precision_and_the_network_loads_in_float32(each_system, data_dir, uncompiled, tmp_path):
    """The arrays in place of the data set that the recipe names."""
    changed = ("--dataset=arrays", "--data_dir=", "--dtype_policy=mixed_bfloat16")
    recipe = shortened(each_system.recipe(data_dir, *changed), 1, 1e-4)
    t2i_kd.train(recipe, tmp_path / "run", dataset=each_system.arrays())
    assert keras.config.dtype_policy().name == "float32"
    lines = metrics(tmp_path / "run")
    assert len(lines) == len(recipe.stages) and all(np.isfinite(line["loss"]) for line in lines)
    if each_system.generates:
        network = load_student(tmp_path / "run").network
        assert {layer.compute_dtype for layer in each_system.generator(network).layers} == {"float32"}
        assert t2i_kd.load(tmp_path / "run").generate(each_system.items[:1]).shape == (1, 32, 32, 3)
    last = arrays(tmp_path / "run" / "checkpoints" / recipe.stages[-1].name / "final.npz")
    last = {name: values for name, values in last.items() if not name.endswith("seed_generator_state")}
    assert {values.dtype for values in last.values()} == {np.dtype("float32")}


@pytest.mark.slow
@needs_tensorflow
def test_every_exported_file_generates_the_same_images(each_system, whole, tmp_path):
    if not each_system.generates:
        with pytest.raises(UserError, match=r"--export_dir: .* makes no generator that could be exported"):
            check_exportable(systems.build(whole.recipe), tmp_path / "model")
        return
    # Weights of a few steps may be too coarse in half precision and in 8 bits.
    version = t2i_kd.export(whole.run_dir, tmp_path / "model", artifacts=["litert", "onnx"])
    seeds = [5, -6, 7]
    expected = t2i_kd.load(whole.run_dir).generate(each_system.items, seeds).astype(int)
    for file in ("", "assets.extra/student.tflite", "assets.extra/student.onnx"):
        found = t2i_kd.load(version / file).generate(each_system.items, seeds).astype(int)
        assert np.abs(found - expected).max() <= 1, file
    manifest = json.loads((version / "assets.extra" / "manifest.json").read_text())
    assert {"saved_model", "onnx"} < set(manifest["artifacts"])


@pytest.mark.slow
def test_killed_runs_end_with_the_same_weights_to_the_bit(room, whole, data_dir, tmp_path):
    """Stopped by its time, killed in every stage between two checkpoints; the whole run was another process's."""
    run_dir, chance, moments = tmp_path / "killed", random.SystemRandom(), {}
    command = [*room.arguments(data_dir), f"--run_dir={run_dir}"]
    assert "goes on with it\n" in finish(Fork(*command, "--max_minutes=0.0001"))
    first = run_dir / "checkpoints" / whole.recipe.stages[0].name
    assert [path.name for path in first.glob("*.npz")] == ["step-00000001.npz"]
    if room.generates:
        assert t2i_kd.load(run_dir).generate(room.items[:1]).shape == (1, 32, 32, 3)
    else:
        assert not (run_dir / "student.keras").exists()
    for stage, steps in room.kills.items():
        moments[stage] = (chance.randint(*steps), chance.uniform(0, 0.02))
        kill_after(Fork(*command), run_dir, *moments[stage])
        assert not (run_dir / "checkpoints" / stage / "final.npz").exists(), moments
    assert f"{run_dir}: trained\n" in finish(start(*command))
    for stage in room.kills:
        found, expected = (arrays(each / "checkpoints" / stage / "final.npz") for each in (run_dir, whole.run_dir))
        for one, other in zip(found.values(), expected.values(), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=str(moments))
    networks = [load_network(each / "student.keras").get_weights() for each in (run_dir, whole.run_dir)]
    assert all(np.array_equal(*pair) for pair in zip(*networks, strict=True)), moments
    kept = [name for name in files(whole.run_dir) if not name.startswith("tensorboard/")]
    assert kept == [name for name in files(run_dir) if not name.startswith("tensorboard/")]
    for name in kept:
        if not name.endswith((".keras", ".npz", ".h5", "metrics.jsonl")):
            assert (run_dir / name).read_bytes() == (whole.run_dir / name).read_bytes(), (name, moments)
    losses = [[(line["step"], line["loss"]) for line in metrics(each)] for each in (run_dir, whole.run_dir)]
    assert losses[0] == losses[1], moments


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
@needs_tensorflow
def test_jax_loses_what_tensorflow_does(room, data_dir, compiled_losses):
    """From the same weights, on a host without TensorFlow."""
    arguments = [*room.arguments(data_dir), *room.on_jax]
    folder, ours = compiled_losses(*arguments)
    theirs = json.loads(finish(start_without_tensorflow(JAX_LOSSES, folder, *arguments)).splitlines()[-1])
    assert ours.keys() == theirs.keys()
    for name, steps in ours.items():
        assert len(steps) == len(theirs[name]) == STEPS
        for one, other in zip(steps, theirs[name], strict=True):
            assert one.keys() == other.keys()
            assert other["loss"] == pytest.approx(one["loss"], rel=room.jax_tolerance)
        # Before any step every term agrees, but a GAN's generator's: its discriminators have moved already.
        early = {key for key in steps[0] if room.name not in GANS or not key.startswith(LATER)}
        assert_close(theirs[name][0], {key: steps[0][key] for key in early})


def test_an_option_of_another_system_is_refused(each_system, data_dir, tmp_path):
    line = refused(*each_system.arguments(data_dir), f"--run_dir={tmp_path / 'run'}", each_system.foreign[0])
    flag = each_system.foreign[0].removeprefix("--").partition("=")[0]
    assert f"--{flag}: no option of --system={each_system.name}, {each_system.owners[0]}" in line
    assert not (tmp_path / "run").exists()


def test_a_stage_field_of_another_system_is_refused(each_system, data_dir, tmp_path):
    stage = f"--stage=other: objective=x steps=1 {each_system.foreign[1]}"
    line = refused(*each_system.arguments(data_dir), f"--run_dir={tmp_path / 'run'}", stage)
    assert (
        f"--stage other: unknown key '{each_system.foreign[1].partition('=')[0]}'{each_system.owners[1]}; known: "
        in line
    )
    assert not (tmp_path / "run").exists()
