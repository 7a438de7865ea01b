"""A recipe as command-line flags: a flag for each option of its groups, and `--stage` for each stage.

`--stage` is given once a stage, in their order, as `NAME: key=value key=value ...` with the stage's fields as keys.
"""

import dataclasses
import typing

from absl import flags

from t2i_kd import systems
from t2i_kd.errors import UserError
from t2i_kd.recipe import field_as_typed


def define_flags(recipe_class, values=flags.FLAGS):
    """Defines a flag for each option of a recipe, with its default and help.

    Args:
        recipe_class: a `Recipe` class.
        values: the `absl.flags.FlagValues` that take them.
    """
    for kind in recipe_class.groups().values():
        for item in dataclasses.fields(kind):
            define_option(item, item.metadata["help"], item.default, values)
    flags.DEFINE_multi_string("stage", [], stage_help(recipe_class.stage_class()), flag_values=values)


def define_option(item, text, default, values=flags.FLAGS):
    """Defines the flag of one dataclass field that `options.option` made, with a help text and a default."""
    choices = item.metadata["choices"]
    if choices:
        flags.DEFINE_enum(item.name, default, choices, text, flag_values=values)
        return
    define = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    define.get(item.type, flags.DEFINE_string)(item.name, default, text, flag_values=values)


def stage_help(stage_class):
    """The help of `--stage`."""
    fields = dataclasses.fields(stage_class)[1:]
    keys = ", ".join(item.name for item in fields)
    said = (item for item in fields if item.default not in (dataclasses.MISSING, "", (), 0))
    defaults = ", ".join(f"{item.name}={field_as_typed(item.default)}" for item in said)
    return (
        f"A stage of the training, given once for each in their order: 'NAME: key=value ...', with the keys {keys}. "
        f"Keys that are left out are {defaults}, else empty or 0."
    )


def from_flags(recipe_class, values, system):
    """The recipe that parsed flags describe.

    Args:
        recipe_class: a `Recipe` class.
        values: `absl.flags.FLAGS`, or anything with the flags as attributes.
        system: what `--system` said.

    Raises:
        UserError: for a stage that cannot be read, or two stages of one name.
    """
    groups = {
        name: kind(**{item.name: getattr(values, item.name) for item in dataclasses.fields(kind)})
        for name, kind in recipe_class.groups().items()
    }
    stages = tuple(parse_stage(text, recipe_class.stage_class()) for text in values.stage)
    return recipe_class(system=system, stages=stages, **groups)


def parse_stage(text, stage_class):
    """A stage from the text of `--stage`.

    Args:
        text: `NAME: key=value key=value ...`; `tap_weights` is `TAP:WEIGHT,TAP:WEIGHT,...`, a pattern such as
            `conv5_*` standing for every tap that it fits; `frozen` is `LAYER,LAYER,...`, patterns of the student's
            layers that this stage leaves as they are.
        stage_class: the system's stage; its fields are the keys.

    Raises:
        UserError: naming the stage and the key, where the text is not of that form.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not colon or not name:
        raise UserError(f"--stage: {text!r} is not of the form 'NAME: key=value key=value'")
    hints = typing.get_type_hints(stage_class)
    values = {"name": name}
    for pair in rest.split():
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--stage {name}: {pair!r} is not key=value")
        if key not in hints or key == "name":
            raise UserError(
                f"--stage {name}: unknown key {key!r}{_whose_key(key)}; known: {', '.join(list(hints)[1:])}"
            )
        if key in values:
            raise UserError(f"--stage {name}: {key} is given twice")
        try:
            values[key] = _parse(hints[key], value)
        except ValueError as error:
            raise UserError(f"--stage {name}: {key}={value!r}: {error}") from None
    if "objective" not in values:
        raise UserError(f"--stage {name}: objective is missing")
    return stage_class(**values)


def _parse(kind, text):
    """A value of a stage's field: a plain type, a list with commas between, or one of pairs with colons between."""
    if typing.get_origin(kind) is not tuple:
        return _parse_boolean(text) if kind is bool else kind(text)
    item = typing.get_args(kind)[0]
    parts = typing.get_args(item)
    if not parts:
        return tuple(item(each) for each in text.split(","))
    pairs = [each.partition(":")[::2] for each in text.split(",")]
    return tuple(tuple(part(value) for part, value in zip(parts, pair, strict=True)) for pair in pairs)


def _parse_boolean(text):
    known = {"true": True, "false": False}
    if text.lower() not in known:
        raise ValueError("neither true nor false")
    return known[text.lower()]


def _whose_key(key):
    owners = [
        room.name
        for room in systems.all_rooms()
        if key in (item.name for item in dataclasses.fields(room.recipe.stage_class()))
    ]
    return f", which only stages of {' and '.join(owners)} have" if owners else ""


def systems_with_option(name):
    """The names of the package's systems whose recipes have an option of this name."""
    return [
        room.name
        for room in systems.all_rooms()
        if any(name == item.name for kind in room.recipe.groups().values() for item in dataclasses.fields(kind))
    ]
