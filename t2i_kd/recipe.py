"""What an experiment is: a frozen dataclass of option groups and stages, and its form as JSON.

Each system has its own recipe class, `Recipe`'s subclass, whose fields are `system`, the option groups that the system
reads, and `stages`. `run_dir/recipe.json` keeps it.
"""

import dataclasses
import json
import math
import re
import typing
from dataclasses import dataclass

from t2i_kd.errors import UserError
from t2i_kd.files import parse_json

RECIPE_FILE = "recipe.json"
# Of a stage's fields, and of an option that says no other bound.
LARGEST_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Stage:
    """One stage of training: what is minimised, for how long, and how fast. A system adds fields of its own.

    Attributes:
        name: of its folder of checkpoints.
        objective: what is minimised, a name that the system knows.
        steps, epochs: its length, one of the two; an epoch is every example once.
        learning_rate, schedule, warmup_steps: see `t2i_kd.training.loop.learning_rate`.
    """

    name: str
    objective: str
    steps: int = 0
    epochs: float = 0.0
    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup_steps: int = 0

    def __post_init__(self):
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise UserError(f"--stage: {self.name!r} is no name for a folder: letters, digits, '_', '-', '.'")
        if (self.steps > 0) == (self.epochs > 0):
            raise UserError(f"--stage {self.name}: give either steps or epochs, more than 0")


@dataclass(frozen=True)
class TextToImageStage(Stage):
    """A stage of a system that goes from captions to images.

    Attributes:
        tap_weights: ((tap or pattern, weight), ...): the teacher's taps that the stage reads; empty: every tap 1.
        frozen: patterns of the student's layers that the stage leaves as they are.
    """

    tap_weights: tuple[tuple[str, float], ...] = ()
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContrastiveStage(TextToImageStage):
    """A stage whose discriminators through a teacher may tell a batch's captions apart.

    Attributes:
        caption_weight: of the contrastive loss of images and captions in an adversarial stage; 0: none.
    """

    caption_weight: float = 0.0


@dataclass(frozen=True)
class SeedDiversityStage(TextToImageStage):
    """A stage that may keep one caption's images apart.

    Attributes:
        seed_diversity_weight: of that term in an adversarial stage through a teacher's taps; 0: none.
        seed_diversity_target: how different they shall be, as a share of real images of different captions.
        seed_diversity_side: 1, 2 or 4: images are compared by the means of so many by so many parts of them. With 1 a
            tint can make them differ, with 4 hardly.
    """

    seed_diversity_weight: float = 0.0
    seed_diversity_target: float = 0.7
    seed_diversity_side: int = 1


@dataclass(frozen=True)
class Recipe:
    """A whole experiment. A system's recipe derives from it and has these fields, its option groups between them.

    Attributes:
        system: name of the system, see `t2i_kd.systems`.
        stages: in their order.
    """

    system: str = ""
    stages: tuple[Stage, ...] = ()

    def __post_init__(self):
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"--stage: two stages are named {name!r}")
        for stage in self.stages:
            _check_numbers(stage, f"--stage {stage.name}: ")
        for name in self.groups():
            _check_numbers(getattr(self, name), "--")

    @classmethod
    def groups(cls):
        """{field: option dataclass}, in the order of the fields."""
        return {name: kind for name, kind in typing.get_type_hints(cls).items() if dataclasses.is_dataclass(kind)}

    @classmethod
    def stage_class(cls):
        """The class of its stages."""
        return typing.get_args(typing.get_type_hints(cls)["stages"])[0]

    @property
    def teachers(self):
        """The names of the networks that teach: the teacher, and that of the discriminators where it is another."""
        own = getattr(getattr(self, "teacher", None), "teacher", "")
        seen_through = getattr(getattr(self, "projection", None), "discriminator_teacher", "")
        return [name for name in (own, seen_through) if name]

    @property
    def tap_objective(self):
        """The `metrics.tap_errors.TapObjective` that its images are trained to minimise; None: there is none."""
        return None

    def follows_length(self, stage):
        """What follows a stage's length, so that a longer one would have begun otherwise; empty: nothing."""
        return "" if stage.schedule == "constant" else f"schedule={stage.schedule}"

    def as_dict(self):
        """The recipe as JSON values, its stages last."""
        values = dataclasses.asdict(self)
        stages = values.pop("stages")
        return {**values, "stages": stages}

    def to_json(self):
        """The recipe as the text of `recipe.json`."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text, source=RECIPE_FILE):
        """The recipe of this class that `to_json` wrote.

        Raises:
            UserError: naming the source and the field that is unknown or wrong.
        """
        return _from_dict(cls, parse_recipe(text, source), source)


def parse_recipe(text, source):
    """A recipe's JSON as a dict. Raises `UserError` that names the source."""
    values = parse_json(text, source)
    if not isinstance(values, dict):
        raise UserError(f"{source}: a recipe is not an object")
    return values


def _from_dict(cls, values, source):
    if not isinstance(values, dict):
        raise UserError(f"{source}: {cls.__name__} is not an object")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"{source}: unknown key {unknown[0]!r}; was it written by another version of t2i_kd?")
    known = {name: _value(hints[name], name, value, source) for name, value in values.items()}
    try:
        recipe = cls(**known)
    except (UserError, TypeError) as error:
        raise UserError(f"{source}: {error}") from None
    _check_choices(recipe, source)
    return recipe


def _value(kind, name, value, source):
    if dataclasses.is_dataclass(kind):
        return _from_dict(kind, value, source)
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_item(typing.get_args(kind)[0], name, item, source) for item in value)
    # A bool is an int to Python, and not to a reader.
    fits = isinstance(value, typing.get_origin(kind) or kind) and (kind is bool or not isinstance(value, bool))
    if fits or (kind is float and type(value) is int and abs(value) <= LARGEST_NUMBER):
        return kind(value)
    raise UserError(f"{source}: {name} is not of type {getattr(kind, '__name__', kind)}: {repr(value)[:100]}")


def _item(kind, name, item, source):
    """One item of a list: a stage, a text, or a pair such as a tap and its weight."""
    if dataclasses.is_dataclass(kind):
        return _from_dict(kind, item, source)
    parts = typing.get_args(kind)
    if not parts:
        return _value(kind, name, item, source)
    if not isinstance(item, list) or len(item) != len(parts):
        raise UserError(f"{source}: {name} holds {repr(item)[:100]}, not {len(parts)} values")
    return tuple(_value(part, name, value, source) for part, value in zip(parts, item, strict=True))


def _check_numbers(values, named):
    """Raises `UserError`, its beginning `named`, for a number that is not finite or larger than its field may be."""
    for item in dataclasses.fields(values):
        value, most = getattr(values, item.name), item.metadata.get("most", LARGEST_NUMBER)
        held = value if isinstance(value, tuple) else (value,)
        for number in (part for each in held for part in (each if isinstance(each, tuple) else (each,))):
            if isinstance(number, int | float) and not -most <= number <= most:
                told = f"more than {most:,}" if most < number < math.inf else "not finite or far below 0"
                raise UserError(f"{named}{item.name}: {str(number)[:40]} is {told}")


def _check_choices(values, source):
    for item in dataclasses.fields(values):
        choices = item.metadata.get("choices")
        value = getattr(values, item.name)
        if choices and value not in choices:
            raise UserError(f"{source}: {item.name} is {repr(value)[:100]}, none of {', '.join(choices)}")


def differences(theirs, ours):
    """The options in which two recipes of one system differ, as the user types them; stages and free options left out.

    Returns:
        A list of lines such as `--seed=0 there, --seed=4 here`.
    """
    return [
        difference(item.name, getattr(before, item.name), getattr(now, item.name))
        for before, now in zip(*(_groups(recipe) for recipe in (theirs, ours)), strict=True)
        for item in dataclasses.fields(now)
        if not item.metadata.get("free") and getattr(before, item.name) != getattr(now, item.name)
    ]


def difference(name, theirs, ours):
    """One option in two recipes, as the user types it."""
    return f"{as_typed(name, theirs)} there, {as_typed(name, ours)} here"


def as_typed(name, value):
    """An option as its flag."""
    return f"--{'' if value else 'no'}{name}" if isinstance(value, bool) else f"--{name}={value}"


def stage_as_typed(stage):
    """A stage as `--stage` has it: its fields that are not the defaults."""
    given = [item for item in dataclasses.fields(stage) if getattr(stage, item.name) != item.default]
    keys = [f"{item.name}={field_as_typed(getattr(stage, item.name))}" for item in given if item.name != "name"]
    return f"{stage.name}: {' '.join(keys)}"


def field_as_typed(value):
    """The value of a stage's field as `--stage` has it."""
    if isinstance(value, tuple):
        return ",".join(":".join(map(field_as_typed, each)) if isinstance(each, tuple) else each for each in value)
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _groups(recipe):
    return [getattr(recipe, name) for name in recipe.groups()]
