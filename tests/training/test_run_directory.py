"""A run directory belongs to one recipe."""

import dataclasses
import os

import pytest

from t2i_kd.errors import UserError
from t2i_kd.icsd_gan import IcsdRecipe
from t2i_kd.options import TrainingOptions
from t2i_kd.sdn import SDNRecipe, SDNStage
from t2i_kd.systems import load_recipe
from t2i_kd.training.run_directory import open_run_directory

RECIPE = SDNRecipe(stages=(SDNStage("I", "mirrored", steps=5),))


def test_a_new_folder_gets_the_recipe_and_opens_again(tmp_path):
    folder = tmp_path / "runs" / "first"
    open_run_directory(folder, RECIPE)
    assert load_recipe(folder / "recipe.json") == RECIPE
    assert [path.name for path in folder.iterdir()] == ["recipe.json"]
    (folder / "metrics.jsonl").touch()
    open_run_directory(folder, RECIPE)


def test_an_empty_folder_is_taken(tmp_path):
    open_run_directory(tmp_path, RECIPE)
    assert (tmp_path / "recipe.json").exists()


def test_a_folder_with_a_half_written_recipe_is_taken(tmp_path):
    (tmp_path / ".recipe.json.77.tmp").write_text("{")
    open_run_directory(tmp_path, RECIPE)
    assert load_recipe(tmp_path / "recipe.json") == RECIPE


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (dataclasses.replace(RECIPE, training=TrainingOptions(seed=4)), "seed is 0 there, 4 here"),
        (dataclasses.replace(RECIPE, stages=(SDNStage("I", "mirrored", steps=6),)), "stages"),
        (dataclasses.replace(RECIPE, stages=()), "stages"),
        (IcsdRecipe(), "system is 'sdn' there, 'icsd_gan' here"),
    ],
)
def test_another_recipe_is_refused_by_field(tmp_path, other, named):
    open_run_directory(tmp_path, RECIPE)
    before = (tmp_path / "recipe.json").read_bytes()
    with pytest.raises(UserError, match=r"--run_dir: .* belongs to another recipe") as error:
        open_run_directory(tmp_path, other)
    assert named in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "recipe.json").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--run_dir: .* is not empty and has no recipe.json"):
        open_run_directory(tmp_path, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_recipe_is_named(tmp_path):
    (tmp_path / "recipe.json").write_text('{"system": "sd')
    with pytest.raises(UserError, match=r"recipe.json: not JSON"):
        open_run_directory(tmp_path, RECIPE)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    for run_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"--run_dir: .*Not a directory"):
            open_run_directory(run_dir, RECIPE)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"--run_dir: .*Permission denied"):
        open_run_directory(tmp_path / "run", RECIPE)
