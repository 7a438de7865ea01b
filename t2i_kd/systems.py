"""The systems by name, this package's or anybody's.

A system is a module with two members, cheap to import:

    RECIPE: its `Recipe` class.
    SYSTEM: its `t2i_kd.training.system.System` class or a function that chooses one by the recipe, or the dotted name
        of either, which is imported when a run starts.
"""

import functools
import importlib
from dataclasses import dataclass
from typing import Any

from t2i_kd import plugins
from t2i_kd.errors import UserError
from t2i_kd.files import read_text
from t2i_kd.recipe import Recipe, parse_recipe

ROOMS = {
    "sdn": "t2i_kd.sdn",
    "icsd_gan": "t2i_kd.icsd_gan",
    "kd_dlgan": "t2i_kd.kd_dlgan",
    "srpkd": "t2i_kd.srpkd",
    "teacher_slim": "t2i_kd.teacher_slim",
}
DEFAULT = "sdn"


@dataclass(frozen=True)
class Room:
    """A system that can be trained.

    Attributes:
        name: what `--system` says.
        recipe: its `Recipe` class.
        system: its `System` class or a function that makes one, or the dotted name of either.
    """

    name: str
    recipe: type[Recipe]
    system: Any

    def build(self, recipe, **options):
        """The system of a recipe, built but not trained. Options: `dataset`, see `System`."""
        system = self.system
        if isinstance(system, str):
            module, _, name = system.rpartition(".")
            system = getattr(importlib.import_module(module), name)
        return system(recipe, **options)


def find(name):
    """The system of `--system=NAME`: one of `ROOMS`, or a module on Python's path.

    Raises:
        UserError: naming the flag, for an unknown name or a module that is no system.
    """
    if name in ROOMS:
        module = importlib.import_module(ROOMS[name])
    elif plugins.is_dotted(name):
        module = plugins.import_module(name, "system")
    else:
        raise UserError(f"--system: {name!r} is none of {', '.join(ROOMS)}, and no module such as my_package.my_system")
    recipe, system = plugins.members(module, "system", "RECIPE", "SYSTEM")
    return Room(name, recipe, system)


@functools.cache
def all_rooms():
    """The package's own systems."""
    return tuple(find(name) for name in ROOMS)


def build(recipe, **options):
    """The system of a recipe; see `Room.build`."""
    return find(recipe.system).build(recipe, **options)


def recipe_from_json(text, source="recipe.json"):
    """The recipe that `Recipe.to_json` wrote, of the class of its system.

    A module that a file names is not imported: a system of your own must have been imported before.

    Raises:
        UserError: naming the source, and the system or the field that is unknown or wrong.
    """
    values = parse_recipe(text, source)
    name = values.get("system", DEFAULT)
    if not isinstance(name, str) or (name not in ROOMS and not plugins.is_imported(name)):
        raise UserError(
            f"{source}: its system {repr(name)[:100]} is none of {', '.join(ROOMS)}; a system of your own is imported "
            "by --import_module=MODULE, or by Python's import"
        )
    return find(name).recipe.from_json(text, source)


def load_recipe(path):
    """The recipe of a file. Raises `UserError` when it cannot be read."""
    return recipe_from_json(read_text(path), str(path))
