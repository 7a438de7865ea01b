"""What comes with the package beside its code, by name: exported models and recipes.

In the repository they are the folders `saved_models` and `pipelines`; an installed package has copies of both within.
"""

import os
from pathlib import Path

from t2i_kd.errors import UserError
from t2i_kd.versions import find_versions

PACKAGE = Path(__file__).resolve().parent
ENDING = ".flags"


def _folder(name):
    within = PACKAGE / name
    return within if within.is_dir() else PACKAGE.parent / name


def models():
    """{name: folder} of the models that come with the package.

    A model comes with it where its card, a `README.md`, lies beside its versions: exports of a user's own have none.
    """
    return {card.parent.name: card.parent for card in sorted(_folder("saved_models").glob("*/README.md"))}


def recipes():
    """{name: file} of the recipes that come with the package."""
    return {path.stem: path for path in sorted(_folder("pipelines").glob(f"*{ENDING}"))}


def model_path(model):
    """Where a model lies.

    Args:
        model: a path, or the name of a model that comes with the package, which stands for its newest version. A path
            that exists wins over a name.

    Returns:
        A `pathlib.Path` that exists.

    Raises:
        UserError: where it is neither; the names are listed.
    """
    if os.path.exists(model):
        return Path(model)
    known, name = models(), str(model)
    versions = find_versions(known[name]) if name in known else {}
    if not versions:
        raise UserError(f"{model}: no such file or folder; models that come with t2i_kd: {', '.join(known)}")
    return versions[max(versions)]


def recipe_path(name):
    """Where a recipe lies.

    Args:
        name: a file, or NAME, NAME.flags or pipelines/NAME.flags for one that comes with the package. A file that
            exists wins over a name.

    Returns:
        A path that exists.

    Raises:
        UserError: where it is neither; the names are listed.
    """
    known = recipes()
    stem = name.removeprefix("pipelines/").removesuffix(ENDING)
    if stem in known and not os.path.isfile(name):
        return str(known[stem])
    if not os.path.exists(name):
        raise UserError(f"{name}: No such file or directory; recipes that come with t2i_kd: {', '.join(known)}")
    return name


def title(recipe):
    """What a recipe is: the first line of its file, a comment, without its mark. Args: recipe: the path of the file."""
    return Path(recipe).read_text("utf-8").partition("\n")[0].removeprefix("# ")
