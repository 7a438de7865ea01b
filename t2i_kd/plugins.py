"""Modules of a user's own, by their dotted names: systems, data sets, teachers and metrics."""

import importlib
import sys

from t2i_kd import quiet
from t2i_kd.errors import UserError


def is_dotted(name):
    """Whether a name is that of a module in a package: `my_package.my_metric`."""
    return "." in name and all(part.isidentifier() for part in name.split("."))


def import_module(name, flag):
    """A module on Python's path by its name; the folder that the command was started in is on it.

    Raises:
        UserError: naming the flag, when there is no such module, or it fails while it is imported.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"--{flag}: {name!r} is no name of a Python module")
    try:
        with quiet.standard_error_held():
            return importlib.import_module(name)
    except Exception as error:  # A module of the user's may fail in any way.
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = "; is its folder on PYTHONPATH?" if isinstance(error, ModuleNotFoundError) else ""
        raise UserError(f"--{flag}: cannot import {name}: {reason}{hint}") from None


def members(module, flag, *names):
    """The named members of a user's module. Raises `UserError` that names the flag and what the module lacks."""
    for name in names:
        if not hasattr(module, name):
            raise UserError(f"--{flag}: the module {module.__name__} has no {name}")
    return tuple(getattr(module, name) for name in names)


def check_imported(name, flag, source):
    """Raises `UserError` for a module that a file names and nobody has imported: a file alone makes no code run.

    Args:
        name: what the file says; anything but a dotted name is no module.
        flag: by which the user may name it too.
        source: the file, for the message.
    """
    if is_dotted(name) and not is_imported(name):
        raise UserError(
            f"--{flag}: {source} names the module {name}, which is imported only where you name it too: "
            f"--{flag}={name} or --import_module={name}"
        )


def is_imported(name):
    """Whether a module was imported already."""
    return name in sys.modules
