"""Command lines as they are meant: files of flags read, quotes and comments in them understood, paths in full."""

import os
import re

from t2i_kd.errors import UserError
from t2i_kd.files import read_text
from t2i_kd.shipped import recipe_path

# Flags whose values are words for people or for the network, and never paths.
WORDS = ("caption", "stage", "version_label")
# Flags that may name an address.
HANDLES = ("hub_handle", "extractor_handle", "retrieval_handle")
SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
VARIABLE = re.compile(r"\$(\w+|\{\w+\})")
COMMENTS = ("#", "//")
QUOTES = ("'", '"')
RUN = "run:"
# Files of flags that include one another.
MOST_FILES = 100


def expanded(arguments):
    """The arguments with every `--flagfile` replaced by what it holds, flag by flag.

    A file that does not exist may be the name of a recipe that comes with the package, see `shipped.recipe_path`. In a
    file a line is a flag; lines that begin with `#` or `//` are comments, as is what follows a space and `#`; a value
    between quotes is what stands between them.

    Raises:
        UserError: naming a file that cannot be read or includes itself, or a line that cannot be understood.
    """
    found, rest, read = [], list(arguments), []
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*found, argument, *rest]
        name, equals, value = argument.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            found.append(argument)
            continue
        if not equals:
            if not rest:
                raise UserError("--flagfile: missing; name the file")
            value = rest.pop(0)
        found += _of_file(value, (), read)
    return found


def _of_file(name, including, read):
    path = plain_path(name, "flagfile")
    if os.path.realpath(path) in including:
        raise UserError(f"--flagfile: {path} includes itself")
    read.append(path)
    if len(read) > MOST_FILES:
        raise UserError(f"--flagfile: {path}: more than {MOST_FILES} files are included")
    try:
        path = recipe_path(path)
        lines = read_text(path).removeprefix("\ufeff").split("\n")
    except UserError as error:
        raise UserError(f"--flagfile: cannot read {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        argument = _of_line(line.strip(), f"--flagfile: {path} line {number}")
        if argument.lstrip("-").startswith("flagfile="):
            found += _of_file(argument.partition("=")[2], (*including, os.path.realpath(path)), read)
        elif argument:
            found.append(argument)
    return found


def _of_line(line, where):
    """The argument of a line; empty for none."""
    if not line or line.startswith(COMMENTS):
        return ""
    if line.startswith(QUOTES):
        line = _unquoted(line, where)
    name, equals, value = line.partition("=")
    name = name.rstrip()
    if re.search(r"\s", name):
        # `--name value`, as on a command line, or a flag and a comment.
        name, _, value = line.partition(line[re.search(r"\s", line).start()])
        equals, value = "=", value.strip()
        if value.startswith(COMMENTS):
            return name
    return name + equals + (_unquoted(value.strip(), where) if equals else "")


def _unquoted(value, where):
    """A value without its quotes, and without the comment that follows it."""
    if not value.startswith(QUOTES):
        value = re.split(r"\s#", value, maxsplit=1)[0].rstrip()
        if value.endswith("\\"):
            raise UserError(f"{where}: ends in a backslash; a flag stands on one line")
        return value
    inner, closed, rest = value[1:].partition(value[0])
    if not closed or (rest.strip() and not rest.strip().startswith(COMMENTS)):
        raise UserError(f"{where}: {value!r} is not a value between quotes")
    return inner


def plain_path(value, flag):
    """A flag's value with `~` and variables of the environment in full.

    Raises:
        UserError: naming the flag, for an address, a variable that is not set, a home folder that is not known, or
            quotes.
    """
    return ",".join(_plain_part(part, flag) for part in str(value).split(","))


def _plain_part(part, flag):
    prefix, path = (RUN, part.removeprefix(RUN)) if part.startswith(RUN) else ("", part)
    if SCHEME.match(path):
        if flag in HANDLES:
            return part
        raise UserError(f"--{flag}: {part} is an address; give a file or folder of this machine")
    if len(path) > 1 and path[0] in QUOTES and path[-1] == path[0]:
        raise UserError(f"--{flag}: {part} has quotes around it; leave them out")
    path = os.path.expandvars(path)
    if VARIABLE.search(path):
        raise UserError(f"--{flag}: {part}: {VARIABLE.search(path)[0]} is not set in the environment")
    full = os.path.expanduser(path)
    if full.startswith("~") and (full == "~" or "/" in full):
        raise UserError(f"--{flag}: {part}: there is no such home folder")
    return prefix + full
