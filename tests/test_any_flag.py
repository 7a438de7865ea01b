"""Whatever stands on a command line of training or in a recipe's file: a recipe, or one line that names it."""

import copy
import json

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_kd import recipe_flags, systems
from t2i_kd.command_line import WORDS, expanded, plain_path
from t2i_kd.errors import UserError

NUMBERS = ("0", "-1", "1000000000", "9" * 30, "9" * 5000, "1e999", "-inf", "nan", "0.5", "true", "0x10", "1_0", "")
PATHS = (
    "/dev/zero",
    "run:/dev/zero",
    "run:",
    "a://b",
    "$NOWHERE/x",
    "~nobody/x",
    "'x'",
    "a\0b",
    "\ud800",
    "..",
    "conse:",
)
TEXT = st.sampled_from(NUMBERS + PATHS) | st.text(max_size=20) | st.integers().map(str) | st.floats().map(str)
KEYS = ("objective", "steps", "epochs", "learning_rate", "schedule", "warmup_steps", "tap_weights", "frozen", "name")
PAIRS = st.tuples(st.sampled_from(KEYS) | st.text(max_size=8), TEXT).map("=".join)
STAGE = st.lists(PAIRS, max_size=4).map(lambda pairs: f"one: {' '.join(pairs)}") | st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**9, 10**40, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def one_line(error):
    """Whether an error is what a command turns into a line."""
    assert " ".join(str(error).split())
    return True


def built(room, recipe):
    """The recipe, after all that is checked of it before anything is read."""
    try:
        room.build(recipe)
    except UserError as error:
        one_line(error)
    return recipe


@pytest.mark.parametrize("name", systems.ROOMS)
def test_whatever_a_flag_says_is_a_recipe_or_named(name):
    room = systems.find(name)
    defined = flags.FlagValues()
    recipe_flags.define_flags(room.recipe, defined)
    defaults = {flag: copy.copy(defined[flag].default) for flag in defined if flag != "stage"}

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(sorted(defaults)), TEXT, st.just("one: objective=x steps=1") | STAGE)
    def try_flag(flag, text, stage):
        defined.unparse_flags()
        for each, value in defaults.items():
            defined[each].value = value
        defined["stage"].value = []
        try:
            defined(["train", f"--{flag}={text}", f"--stage={stage}"])
            for each in defined:
                if isinstance(defined[each].value, str) and each not in WORDS:
                    defined[each].value = plain_path(defined[each].value, each)
            recipe = recipe_flags.from_flags(room.recipe, defined, name)
        except (UserError, flags.Error) as error:
            one_line(error)
            return
        recipe = built(room, recipe)
        # What is accepted is kept, and read again as it was.
        assert room.recipe.from_json(recipe.to_json()) == recipe

    try_flag()


def places(value, path=()):
    """The path of every value in a recipe."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


@pytest.mark.parametrize("name", systems.ROOMS)
def test_whatever_a_recipes_file_holds_is_a_recipe_or_named(name):
    room = systems.find(name)
    stage = recipe_flags.parse_stage("one: objective=x steps=1", room.recipe.stage_class())
    values = json.loads(room.recipe(system=name, stages=(stage,)).to_json())

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from([place for place in places(values) if place]), JSON)
    def try_value(place, value):
        changed = copy.deepcopy(values)
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        try:
            recipe = systems.recipe_from_json(json.dumps(changed), "a.json")
        except UserError as error:
            assert str(error).startswith("a.json: ") and len(str(error)) < 3000
            return
        built(room, recipe)

    try_value()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=30) | st.tuples(st.text(max_size=8), TEXT).map("--{0[0]}={0[1]}".format), max_size=5))
def test_whatever_a_file_of_flags_holds_is_arguments_or_named(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.flags"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        assert all(isinstance(argument, str) for argument in expanded([f"--flagfile={path}"]))
    except UserError as error:
        assert str(error).startswith("--flagfile: ")
