"""A run directory belongs to one recipe."""

import dataclasses
import os

import pytest

from t2i_kd.errors import UserError
from t2i_kd.icsd_gan import IcsdRecipe
from t2i_kd.options import TrainingOptions
from t2i_kd.sdn import SDNRecipe, SDNStage
from t2i_kd.systems import load_recipe
from t2i_kd.training.inputs import Inputs
from t2i_kd.training.loop import plan_stages
from t2i_kd.training.run_directory import open_run_directory

RECIPE = SDNRecipe(stages=(SDNStage("I", "mirrored", steps=5),))
READ = Inputs({"a.png": "11", "b.png": "22"}, "held out", {"teacher": "33", "text": "44"})


def opened(folder, recipe=RECIPE, read=READ):
    """Opens a run directory."""
    open_run_directory(folder, recipe, read, plan_stages(recipe.stages, 4))


def begun(folder, stage="I", done=3, finished=False):
    """Puts a checkpoint of a stage into a run directory, of which nothing but the name is looked at."""
    path = folder / "checkpoints" / stage
    path.mkdir(parents=True, exist_ok=True)
    names = [f"step-{done:08d}.npz"] * bool(done) + ["final.npz"] * finished
    for name in names:
        (path / name).touch()


def test_a_new_folder_gets_the_recipe_and_opens_again(tmp_path):
    folder = tmp_path / "runs" / "first"
    opened(folder)
    assert load_recipe(folder / "recipe.json") == RECIPE
    assert sorted(path.name for path in folder.iterdir()) == ["inputs.json", "recipe.json"]
    assert Inputs.load(folder / "inputs.json") == READ
    (folder / "metrics.jsonl").touch()
    opened(folder)


def test_an_empty_folder_is_taken(tmp_path):
    opened(tmp_path)
    assert (tmp_path / "recipe.json").exists()


def test_a_folder_with_a_half_written_recipe_is_taken(tmp_path):
    (tmp_path / ".recipe.json.77.tmp").write_text("{")
    (tmp_path / "inputs.json").write_text("{")
    opened(tmp_path)
    assert load_recipe(tmp_path / "recipe.json") == RECIPE


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (dataclasses.replace(RECIPE, training=TrainingOptions(seed=4)), "--seed=0 there, --seed=4 here"),
        (
            dataclasses.replace(RECIPE, stages=(SDNStage("I", "mirrored", steps=5, learning_rate=0.5),)),
            "--stage I: learning_rate=0.0001 there, learning_rate=0.5 here",
        ),
        (dataclasses.replace(RECIPE, stages=()), "--stage='I: objective=mirrored steps=5' there, none here"),
        (dataclasses.replace(RECIPE, stages=(SDNStage("I", "mirrored", steps=2),)), "3 steps are done already"),
        (IcsdRecipe(), "--system=sdn there, --system=icsd_gan here"),
    ],
)
def test_another_recipe_is_refused_by_field(tmp_path, other, named):
    opened(tmp_path)
    begun(tmp_path)
    before = (tmp_path / "recipe.json").read_bytes()
    with pytest.raises(UserError, match=r"--run_dir: .* belongs to another recipe") as error:
        opened(tmp_path, other)
    assert named in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "recipe.json").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--run_dir: .* is not empty and has no recipe.json"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_recipe_is_named(tmp_path):
    (tmp_path / "recipe.json").write_text('{"system": "sd')
    with pytest.raises(UserError, match=r"recipe.json: not JSON"):
        opened(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    for run_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"--run_dir: .*Not a directory"):
            opened(run_dir)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"--run_dir: .*Permission denied"):
        opened(tmp_path / "run")


def stages(*lengths, **fields):
    """RECIPE with these stages."""
    named = zip(("I", "II"), lengths, strict=False)
    made = tuple(SDNStage(name, "mirrored", steps=steps, **fields) for name, steps in named)
    return dataclasses.replace(RECIPE, stages=made)


COSINE, ANNEALED = {"schedule": "cosine"}, {"error": "annealed"}


@pytest.mark.parametrize(
    "changed",
    [
        stages(8),
        stages(5, 7),
        dataclasses.replace(RECIPE, training=TrainingOptions(log_every=1, sample_every=2, checkpoint_every=3)),
        dataclasses.replace(RECIPE, data=dataclasses.replace(RECIPE.data, data_dir="elsewhere", max_bad_examples=4)),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_what_decides_no_weight_may_change_and_is_kept(tmp_path, changed, finished):
    opened(tmp_path)
    begun(tmp_path, done=5 if finished else 3, finished=finished)
    opened(tmp_path, changed)
    assert load_recipe(tmp_path / "recipe.json") == changed


def test_stages_that_have_not_begun_may_be_others(tmp_path):
    opened(tmp_path, stages(5, 7))
    begun(tmp_path)
    opened(tmp_path, stages(5, 7, learning_rate=1e-4))
    opened(tmp_path, dataclasses.replace(RECIPE, stages=(stages(5).stages[0], SDNStage("II", "perceptual", steps=2))))
    opened(tmp_path, stages(5))


@pytest.mark.parametrize(
    ("first", "then", "finished", "named"),
    [
        (stages(5, **COSINE), stages(6, **COSINE), False, "schedule=cosine follows the stage's length"),
        (stages(5, **ANNEALED), stages(6, **ANNEALED), False, "error=annealed follows the stage's length"),
        (stages(5, 7), stages(6, 7), True, "only the last stage that has begun"),
        (stages(5), stages(6), True, "its optimizer was not kept"),
    ],
)
def test_a_length_that_cannot_change_is_refused(tmp_path, first, then, finished, named):
    opened(tmp_path, first)
    begun(tmp_path, done=0 if finished else 3, finished=finished)
    if len(first.stages) == 2:
        begun(tmp_path, "II", 1)
    with pytest.raises(UserError, match=named) as error:
        opened(tmp_path, then)
    assert "steps=5 there, steps=6 here" in str(error.value)


@pytest.mark.parametrize(
    ("read", "named"),
    [
        (dataclasses.replace(READ, examples={"a.png": "11", "b.png": "23"}), "1 changed .the first: b.png"),
        (dataclasses.replace(READ, examples={"a.png": "11"}), "1 gone .the first: b.png"),
        (dataclasses.replace(READ, examples=READ.examples | {"c.png": "3"}), "1 new .the first: c.png"),
        (dataclasses.replace(READ, examples={"b.png": "22", "a.png": "11"}), "another order"),
        (dataclasses.replace(READ, networks={"teacher": "34", "text": "44"}), "--teacher: .* another teacher"),
        (dataclasses.replace(READ, networks={"teacher": "33", "text": "45"}), "--text_encoder: .* another text"),
        (dataclasses.replace(READ, networks=READ.networks | {"text_weights": "5"}), "--text_weights: "),
    ],
)
def test_a_run_that_read_something_else_is_refused_before_a_byte_is_written(tmp_path, read, named):
    opened(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=named):
        opened(tmp_path, read=read)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_flags_behind_another_teacher_are_named(tmp_path):
    opened(tmp_path)
    other = dataclasses.replace(RECIPE, teacher=dataclasses.replace(RECIPE.teacher, teacher="ResNet50"))
    with pytest.raises(UserError, match=r"--teacher=vgg19 there, --teacher=ResNet50 here"):
        opened(tmp_path, other, dataclasses.replace(READ, networks=READ.networks | {"teacher": "34"}))
    # The same weights at another place are the same teacher.
    opened(tmp_path, other)


def test_other_held_out_examples_are_told(tmp_path, caplog):
    opened(tmp_path)
    opened(tmp_path, read=dataclasses.replace(READ, held_out="others"))
    assert "held-out examples are not those" in caplog.text


def test_a_run_of_an_earlier_version_is_taken_with_a_warning(tmp_path, caplog):
    opened(tmp_path)
    (tmp_path / "inputs.json").unlink()
    opened(tmp_path)
    assert "did not keep what it read" in caplog.text and Inputs.load(tmp_path / "inputs.json") == READ
