"""The folder of a run: it belongs to one recipe for as long as it lives."""

from pathlib import Path

from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.recipe import RECIPE_FILE, first_difference, parse_json, read_text


def open_run_directory(run_dir, recipe):
    """Makes a run directory with its `recipe.json`, or checks that an existing one is this recipe's.

    Raises:
        UserError: when it belongs to another recipe (the first differing field is named), holds other files, or
            cannot be written.
    """
    run_dir = Path(run_dir)
    path = run_dir / RECIPE_FILE
    if path.exists():
        difference = _difference(path, recipe)
        if difference:
            name, theirs, ours = difference
            raise UserError(
                f"--run_dir: {run_dir} belongs to another recipe: {name} is {theirs!r} there, {ours!r} here"
            )
        return
    try:
        # A run that was killed while it wrote its recipe leaves a temporary file.
        if run_dir.exists() and any(not each.name.startswith(f".{RECIPE_FILE}.") for each in run_dir.iterdir()):
            raise UserError(f"--run_dir: {run_dir} is not empty and has no {RECIPE_FILE}")
        run_dir.mkdir(parents=True, exist_ok=True)
        write_file_atomically(path, recipe.to_json().encode("utf-8"))
    except OSError as error:
        raise UserError(f"--run_dir: cannot use {run_dir}: {error.strerror or error}") from None


def _difference(path, recipe):
    """The first field in which a run's recipe file differs from a recipe, as `first_difference` gives it."""
    text = read_text(path)
    system = parse_json(text, path).get("system")
    if system != recipe.system:
        return "system", system, recipe.system
    return first_difference(type(recipe).from_json(text, str(path)), recipe)
