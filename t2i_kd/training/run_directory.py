"""The folder of a run: it belongs to one experiment, what it read included, for as long as it lives."""

import contextlib
import dataclasses
from pathlib import Path

from absl import logging

from t2i_kd.errors import UserError, raise_all
from t2i_kd.files import read_text
from t2i_kd.imaging import write_file_atomically
from t2i_kd.locking import LOCK, only_process
from t2i_kd.recipe import (
    RECIPE_FILE,
    difference,
    differences,
    field_as_typed,
    parse_recipe,
    stage_as_typed,
)
from t2i_kd.training import checkpoints
from t2i_kd.training.inputs import INPUTS_FILE, LARGEST_INPUTS, Inputs, data_differences
from t2i_kd.training.precision import AUTO

# The flags behind each of `Inputs.networks`, for messages.
READ_BY = {
    "text": ("text_encoder", "text_length", "embeddings_dir", "hub_handle"),
    "text_weights": ("text_weights",),
    "teacher": ("teacher", "teacher_weights"),
    "discriminator_teacher": ("discriminator_teacher",),
    "init_from": ("init_from",),
    "teacher_inverse": ("teacher",),
    "teacher_text": ("teacher",),
    "image_tower": ("teacher", "teacher_weights", "teacher_side", "teacher_resize", "teacher_normalisation"),
    "prompts": ("prompts", "prompt_template", "sentence_encoder", "sentence_vocabulary", "class_names"),
}
LENGTH = ("steps", "epochs")


@contextlib.contextmanager
def run_directory_locked(run_dir):
    """Makes the folder where it is missing; within it no other process trains there.

    Raises:
        UserError: naming who does, or why the folder cannot be used.
    """
    made = not Path(run_dir).exists()
    try:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--run_dir: cannot use {run_dir}: {error.strerror or error}") from None
    try:
        with only_process(Path(run_dir) / LOCK, f"--run_dir: {run_dir}"):
            yield
    finally:
        # A refusal leaves nothing behind.
        if made and not any(Path(run_dir).iterdir()):
            Path(run_dir).rmdir()


def open_run_directory(run_dir, recipe, inputs, plans=()):
    """Makes a run directory with its `recipe.json` and `inputs.json`, or checks that an existing one is this run's.

    What decides the weights must be as it was: the options that are not free, the stages that have begun, and the
    content of all that is read. The last stage that has begun may get longer where its course does not depend on its
    length, stages that have not begun may be others, and free options may change; the recipe is then written anew.

    Args:
        run_dir: the folder.
        recipe: `Recipe`.
        inputs: `Inputs`, what is read now.
        plans: the recipe's `StagePlan`s.

    Raises:
        UserError: when it is another run (what differs is named), holds other files, or cannot be written. Nothing is
            written then.
    """
    run_dir = Path(run_dir)
    path = run_dir / RECIPE_FILE
    try:
        if path.exists():
            _check_same_run(run_dir, recipe, inputs, plans)
        else:
            _check_free(run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
        # The recipe comes last: without it nothing has begun.
        _write_if_other(run_dir / INPUTS_FILE, inputs.to_json())
        _write_if_other(path, recipe.to_json())
    except OSError as error:
        raise UserError(f"--run_dir: cannot use {run_dir}: {error.strerror or error}") from None


def as_begun(run_dir, recipe):
    """The recipe with the dtype policy that its run began with in place of `auto`, where there is a run."""
    if recipe.training.dtype_policy != AUTO or not (Path(run_dir) / RECIPE_FILE).exists():
        return recipe
    begun = _stored_recipe(Path(run_dir), recipe).training.dtype_policy
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, dtype_policy=begun))


def _check_free(run_dir):
    # A run that was killed while it wrote its first files leaves some of them.
    begun = (f".{RECIPE_FILE}.", f".{INPUTS_FILE}.", INPUTS_FILE, LOCK)
    if run_dir.exists() and any(not each.name.startswith(begun) for each in run_dir.iterdir()):
        raise UserError(f"--run_dir: {run_dir} is not empty and has no {RECIPE_FILE}")


def _write_if_other(path, text):
    if not path.exists() or read_text(path, LARGEST_INPUTS) != text:
        write_file_atomically(path, text.encode("utf-8"))


def _check_same_run(run_dir, recipe, inputs, plans):
    theirs = _stored_recipe(run_dir, recipe)
    found = differences(theirs, recipe) + _stage_differences(run_dir, theirs, recipe, plans)
    if found:
        raise UserError(f"--run_dir: {run_dir} belongs to another recipe: {'; '.join(found)}")
    path = run_dir / INPUTS_FILE
    if not path.exists():
        logging.warning(
            "%s: made by an earlier version, which did not keep what it read; from now on that is what is read now",
            run_dir,
        )
        return
    stored = Inputs.load(path)
    # A vocabulary that differs with its data needs no word of its own.
    found = _data_difference(run_dir, stored, theirs, recipe, inputs)
    raise_all(found or _network_differences(run_dir, stored, theirs, recipe, inputs))
    if stored.held_out != inputs.held_out:
        logging.warning(
            "%s: the held-out examples are not those that the run began with; its weights do not depend on them, its "
            "sheets and measurements do",
            run_dir,
        )


def _stored_recipe(run_dir, recipe):
    """A run's recipe, which must be of the recipe's system."""
    path = run_dir / RECIPE_FILE
    text = read_text(path)
    system = parse_recipe(text, path).get("system")
    if system != recipe.system:
        raise UserError(
            f"--run_dir: {run_dir} belongs to another recipe: --system={system} there, --system={recipe.system} here"
        )
    return type(recipe).from_json(text, str(path))


def _data_difference(run_dir, stored, theirs, recipe, inputs):
    found = data_differences(stored.examples, inputs.examples)
    if not found:
        return []
    where = "; ".join(_flags_that_differ(("data_dir", "max_bad_examples"), theirs, recipe))
    return [
        f"--data_dir: {run_dir} was trained on other examples than those read now: {found}"
        f"{f' ({where})' if where else ''}; take another --run_dir"
    ]


def _network_differences(run_dir, stored, theirs, recipe, inputs):
    found = []
    for name in dict.fromkeys([*stored.networks, *inputs.networks]):
        if stored.networks.get(name) != inputs.networks.get(name):
            flags = READ_BY.get(name, (name,))
            told = "; ".join(_flags_that_differ(flags, theirs, recipe)) or "another content at the same place"
            found.append(f"--{flags[0]}: {run_dir} was trained with another {name.replace('_', ' ')}: {told}")
    return found


def _flags_that_differ(names, theirs, ours):
    """`--NAME=... there, --NAME=... here` for those of the flags that two recipes have with different values."""
    before, now = ({name: value for group in _groups(each) for name, value in group.items()} for each in (theirs, ours))
    return [
        difference(name, before[name], now[name]) for name in names if name in now and before.get(name) != now[name]
    ]


def _groups(recipe):
    return [dataclasses.asdict(getattr(recipe, name)) for name in recipe.groups()]


def _stage_differences(run_dir, theirs, ours, plans):
    """What is wrong with the stages that have begun, of which at least those before the last must stay as they are."""
    begun = [stage for stage in theirs.stages if _has_begun(run_dir, stage)]
    found = []
    for index, stage in enumerate(begun):
        now = ours.stages[index] if index < len(ours.stages) else None
        if now is None:
            found.append(f"--stage={stage_as_typed(stage)!r} there, none here")
        elif now != stage:
            plan = plans[index] if index < len(plans) else None
            found += _changes_of(run_dir, ours, stage, now, plan, last=index == len(begun) - 1)
    return found


def _has_begun(run_dir, stage):
    return any((run_dir / "checkpoints" / stage.name).glob("*.npz"))


def _changes_of(run_dir, recipe, stage, now, plan, last):
    """What forbids that a stage that has begun goes on as another one."""
    changed = [item.name for item in dataclasses.fields(now) if getattr(stage, item.name) != getattr(now, item.name)]
    there, here = (
        " ".join(f"{name}={field_as_typed(getattr(each, name))}" for name in changed) for each in (stage, now)
    )
    told = f"--stage {stage.name}: {there} there, {here} here"
    if not set(changed) <= set(LENGTH):
        return [told]
    folder = run_dir / "checkpoints" / stage.name
    done, path = checkpoints.newest(folder)
    finished = (folder / checkpoints.FINAL).exists()
    if not last:
        return [f"{told}; only the last stage that has begun may get another length"]
    if recipe.follows_length(now):
        return [f"{told}; {recipe.follows_length(now)} follows the stage's length: add a stage instead"]
    if finished and path is None:
        return [f"{told}; it is finished, and its optimizer was not kept: add a stage instead"]
    if plan is not None and plan.steps < done:
        return [f"{told}; {done:,} steps are done already"]
    return []
