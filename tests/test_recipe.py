"""Recipes: flags to recipe to JSON and back, and what is refused."""

import pytest
from absl import flags

from t2i_kd.errors import UserError
from t2i_kd.recipe import Recipe, Stage, define_flags, first_difference, from_flags, parse_stage

LINE = (
    "I: objective=mirrored steps=5 learning_rate=3e-4 error=squared tap_weights=image:3,conv5_*:0.5 frozen=text_*,fc7"
)


@pytest.fixture(scope="module")
def values():
    if "dataset" not in flags.FLAGS:
        define_flags()
    return flags.FLAGS


def parse(values, *arguments):
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    values(["train", *arguments])
    return from_flags(values)


def test_a_stage_line_gives_its_fields():
    stage = parse_stage(LINE)
    assert stage == Stage(
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
        parse_stage(line)
    assert named in str(error.value)


def test_flags_become_a_recipe_that_survives_json(values):
    recipe = parse(values, "--dataset=image_folder", "--batch_size=7", "--flip", f"--stage={LINE}")
    assert (recipe.data.dataset, recipe.training.batch_size, recipe.data.flip) == ("image_folder", 7, True)
    assert recipe.stages == (parse_stage(LINE),)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_unset_flags_are_the_papers(values):
    recipe = parse(values)
    assert recipe == Recipe()
    assert (recipe.training.batch_size, recipe.text.text_dim, recipe.student.initializer) == (12, 1024, "paper")


def test_two_stages_of_one_name_are_refused(values):
    with pytest.raises(UserError, match="two stages are named 'I'"):
        parse(values, f"--stage={LINE}", f"--stage={LINE}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"speed": 3}', "unknown key 'speed'"),
        ('{"data": {"colour": 1}}', "unknown key 'colour'"),
        ('{"training": {"batch_size": "many"}}', "batch_size is not of type int"),
        ('{"teacher": {"teacher": "alexnet"}}', "teacher is 'alexnet'"),
        ('{"stages": 3}', "stages is not of type tuple: 3"),
        ('{"stages": [3]}', "Stage is not an object"),
        ('{"stages": [{"name": "I"}]}', "objective"),
        ('{"stages": [{"name": "I", "objective": "mirrored", "steps": 1, "tap_weights": [1]}]}', "tap_weights"),
        ('{"stages": [{"name": "I", "objective": "mirrored", "steps": 1, "tap_weights": 1}]}', "tap_weights"),
    ],
)
def test_a_wrong_recipe_file_is_named(text, named):
    with pytest.raises(UserError, match=r"recipe\.json") as error:
        Recipe.from_json(text)
    assert named in str(error.value)


def test_the_first_difference_is_found(values):
    ours, theirs = parse(values, "--seed=1"), parse(values, "--seed=2")
    assert first_difference(ours, theirs) == ("seed", 1, 2)
    assert first_difference(ours, ours) is None
