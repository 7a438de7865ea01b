"""Recipes: flags to recipe to JSON and back, and what is refused."""

import pytest
from absl import flags

from t2i_kd import systems
from t2i_kd.errors import UserError
from t2i_kd.icsd_gan import IcsdRecipe
from t2i_kd.kd_dlgan import KDDLGANRecipe
from t2i_kd.recipe import Stage, TextToImageStage, differences, stage_as_typed
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.sdn import SDNRecipe, SDNStage
from t2i_kd.srpkd import SrpkdRecipe
from t2i_kd.teacher_slim import SlimRecipe
from tests.systems import recipe_of

LINE = (
    "I: objective=mirrored steps=5 learning_rate=3e-4 error=squared tap_weights=image:3,conv5_*:0.5 frozen=text_*,fc7"
)


RECIPES = {
    "sdn": SDNRecipe,
    "icsd_gan": IcsdRecipe,
    "kd_dlgan": KDDLGANRecipe,
    "srpkd": SrpkdRecipe,
    "teacher_slim": SlimRecipe,
}


def test_a_stage_line_gives_its_fields():
    stage = parse_stage(LINE, SDNStage)
    assert stage == SDNStage(
        "I",
        "mirrored",
        steps=5,
        learning_rate=3e-4,
        error="squared",
        tap_weights=(("image", 3.0), ("conv5_*", 0.5)),
        frozen=("text_*", "fc7"),
    )


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("objective=mirrored", "NAME: key=value"),
        ("I: objective=mirrored", "steps or epochs"),
        ("I: objective=mirrored steps=3 epochs=2", "steps or epochs"),
        ("I: objective=mirrored stepz=3", "'stepz'"),
        ("I: objective=mirrored steps=three", "steps='three'"),
        ("I: objective=mirrored steps=3 steps=4", "given twice"),
        ("I: objective=mirrored steps=3 tap_weights=image", "tap_weights"),
        ("I: steps=3", "objective is missing"),
        ("I: objective mirrored", "not key=value"),
        ("../I: objective=mirrored steps=3", "'../I' is no name for a folder"),
        ("I/J: objective=mirrored steps=3", "'I/J' is no name for a folder"),
    ],
)
def test_a_wrong_stage_is_named(line, named):
    with pytest.raises(UserError, match="--stage") as error:
        parse_stage(line, SDNStage)
    assert named in str(error.value)


def test_flags_become_a_recipe_that_survives_json():
    recipe = recipe_of("--dataset=image_folder", "--batch_size=7", "--flip", f"--stage={LINE}")
    assert (recipe.data.dataset, recipe.training.batch_size, recipe.data.flip) == ("image_folder", 7, True)
    assert recipe.stages == (parse_stage(LINE, SDNStage),)
    assert SDNRecipe.from_json(recipe.to_json()) == recipe == systems.recipe_from_json(recipe.to_json())


def test_unset_flags_are_the_papers():
    recipe = recipe_of()
    assert recipe == SDNRecipe()
    assert (recipe.training.batch_size, recipe.text.text_dim, recipe.sdn.initializer) == (12, 1024, "paper")


GROUPS = {
    "sdn": {"sdn", "noise", "projection", "gan"},
    "icsd_gan": {"icsd", "gan", "projection"},
    "kd_dlgan": {"towers", "kd", "mirrored", "gan", "projection"},
    "srpkd": {"translation", "generator", "distillation", "host", "compression"},
    "teacher_slim": {"slim"},
}


@pytest.mark.parametrize("system", RECIPES)
def test_a_systems_recipe_has_its_own_groups_and_survives_json(system):
    recipe = recipe_of("--stage=one: objective=x steps=3", f"--system={system}")
    assert recipe == RECIPES[system](stages=recipe.stages) and type(recipe.stages[0]) is recipe.stage_class()
    assert systems.recipe_from_json(recipe.to_json()) == recipe
    own = set(recipe.groups()) - {"data", "teacher", "training", "text", "student"}
    assert own == GROUPS[system]


@pytest.mark.parametrize(
    ("line", "stage_class", "owners"),
    [
        ("scaling=raw", TextToImageStage, "sdn"),
        ("frozen=fc*", Stage, "sdn and icsd_gan and kd_dlgan"),
        ("tap_weights=image:1", Stage, "sdn and icsd_gan and kd_dlgan"),
    ],
)
def test_another_systems_stage_field_is_refused_and_its_systems_are_named(line, stage_class, owners):
    key = line.partition("=")[0]
    with pytest.raises(UserError, match=f"--stage I: unknown key '{key}', which only stages of {owners} have;"):
        parse_stage(f"I: objective=x steps=1 {line}", stage_class)


def test_another_systems_option_is_no_flag():
    with pytest.raises(flags.UnrecognizedFlagError, match="icsd_weight"):
        recipe_of("--icsd_weight=9")
    with pytest.raises(UserError, match=r"recipe\.json: unknown key 'icsd'"):
        systems.recipe_from_json('{"system": "sdn", "icsd": {"icsd_weight": 9}}')


def test_a_recipe_files_own_system_is_not_imported_for_it(tmp_path, monkeypatch):
    (tmp_path / "recipes_of_strangers").mkdir()
    (tmp_path / "recipes_of_strangers" / "room.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"its system 'recipes_of_strangers\.room' is none of .*--import_module"):
        systems.recipe_from_json('{"system": "recipes_of_strangers.room"}')


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(UserError, match="two stages are named 'I'"):
        recipe_of(f"--stage={LINE}", f"--stage={LINE}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"speed": 3}', "unknown key 'speed'"),
        ('{"data": {"colour": 1}}', "unknown key 'colour'"),
        ('{"training": {"batch_size": "many"}}', "batch_size is not of type int"),
        ('{"text": {"text_encoder": "bert"}}', "text_encoder is 'bert'"),
        ('{"stages": 3}', "stages is not of type tuple: 3"),
        ('{"stages": [3]}', "SDNStage is not an object"),
        ('{"stages": [{"name": "I"}]}', "objective"),
        ('{"stages": [{"name": "I", "objective": "mirrored", "steps": 1, "tap_weights": [1]}]}', "tap_weights"),
        ('{"stages": [{"name": "I", "objective": "mirrored", "steps": 1, "tap_weights": 1}]}', "tap_weights"),
    ],
)
def test_a_wrong_recipe_file_is_named(text, named):
    with pytest.raises(UserError, match=r"recipe\.json") as error:
        systems.recipe_from_json(text)
    assert named in str(error.value)


def test_differences_are_said_as_they_are_typed():
    ours = recipe_of("--seed=1", "--flip", "--log_every=7", "--data_dir=a")
    theirs = recipe_of("--seed=2", "--beta_1=0.5", "--data_dir=b")
    assert differences(theirs, ours) == [
        "--noflip there, --flip here",
        "--beta_1=0.5 there, --beta_1=0.0 here",
        "--seed=2 there, --seed=1 here",
    ]
    assert differences(ours, ours) == []
    assert list(ours.as_dict()) == ["system", *ours.groups(), "stages"]


def test_a_stage_is_said_as_it_is_typed():
    line = "two: objective=perceptual steps=13 learning_rate=0.001 tap_weights=image:3,conv3_*:1 frozen=text_*,fc*"
    assert stage_as_typed(recipe_of(f"--stage={line}").stages[0]) == line
