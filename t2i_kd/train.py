"""`python -m t2i_kd.train --flagfile=pipelines/NAME.flags`: trains what a recipe describes."""

import contextlib
import sys

from absl import flags

from t2i_kd import api, commands, recipe_flags, shipped, stopping, systems
from t2i_kd.errors import UserError
from t2i_kd.files import read_text

FLAGS = flags.FLAGS
DESCRIPTION = (
    "Trains what a recipe describes, or goes on with it, and exports the student. A recipe is a file of flags: "
    "python -m t2i_kd.train --flagfile=pipelines/NAME.flags; --list_recipes lists those that come with t2i_kd."
)


def define_flags(arguments):
    """Defines the flags of the command and those of the system that the arguments name, and names them by group."""
    room = systems.find(commands.given(arguments, "system", systems.DEFAULT))
    own = commands.defining(_define_own_flags)
    defined = commands.defining(recipe_flags.define_flags, room.recipe)
    groups = {"The run": own, "The stages": ["stage"]}
    for kind in room.recipe.groups().values():
        groups[kind.__doc__] = [name for name in defined if name in kind.__dataclass_fields__]
    return groups


def _define_own_flags():
    known = ", ".join(systems.ROOMS)
    flags.DEFINE_string(
        "system", systems.DEFAULT, f"The system that is trained: {known}, or a module of your own on Python's path."
    )
    flags.DEFINE_string("run_dir", "", "The folder of the run: recipe, checkpoints, logs, samples, student.")
    flags.DEFINE_string("export_dir", "", "The folder to export the trained student to. Empty exports nothing.")
    flags.DEFINE_boolean("overwrite", False, "Replace the exported version if it exists.")
    flags.DEFINE_enum(
        "distribute",
        "none",
        ("none", "mirrored", "multi_worker"),
        "The devices that share each batch: one, all of this machine's, or those of TF_CONFIG's workers. It does not "
        "belong to the recipe.",
    )
    flags.DEFINE_float(
        "max_minutes",
        None,
        "End the training after so many minutes, at a checkpoint, and export what there is; the same command goes on "
        "from there. Unset trains to the end. It does not belong to the recipe.",
    )
    flags.DEFINE_boolean(
        "dry_run",
        False,
        "Print the recipe, its parameter counts, its data, and how fast it trains here, measured in a few steps; name "
        "everything that is missing, and make no run. Data and weights that can be downloaded are.",
    )

    flags.DEFINE_boolean("list_recipes", False, "List the recipes that come with t2i_kd, each in a line, and end.")
    flags.DEFINE_string(
        "show_recipe",
        "",
        "Print a recipe, given by its name or file, and end: what it is, costs and gives, the data that it needs, its "
        "command and its flags. Kept as a file, that is where a recipe of your own begins.",
    )


def explain_unknown(name):
    """What is said of an option that other systems have, and not the one in question."""
    owners = " and ".join(f"--system={owner}" for owner in recipe_flags.systems_with_option(name))
    system = commands.given(commands.expanded(sys.argv), "system", systems.DEFAULT)
    return f"--{name}: no option of --system={system}, but of {owners}" if owners else ""


def list_recipes():
    """Prints the name of every recipe that comes with the package, and what it is."""
    known = shipped.recipes()
    width = max(map(len, known))
    for name, path in known.items():
        commands.say(f"{name:{width}}  {shipped.title(path)}")
    commands.say(
        "\nThe whole of one, with its cost and the data that it needs: python -m t2i_kd.train --show_recipe=NAME"
    )


def show_recipe(name):
    """Prints a recipe's file. Raises `UserError` where there is none."""
    try:
        commands.say(read_text(shipped.recipe_path(name)).rstrip("\n"))
    except UserError as error:
        raise UserError(f"--show_recipe: {error}") from None


def main():
    """Runs the command: list or show recipes, describe, or train and export."""
    if FLAGS.list_recipes:
        list_recipes()
        return
    if FLAGS.show_recipe:
        show_recipe(FLAGS.show_recipe)
        return
    recipe = recipe_flags.from_flags(systems.find(FLAGS.system).recipe, FLAGS, FLAGS.system)
    if not FLAGS.dry_run and not FLAGS.run_dir:
        raise UserError("--run_dir: say where the run is kept")
    commands.load_backend()
    if FLAGS.dry_run:
        for line in api.describe(recipe, cost=True):
            commands.say(line)
        return
    # The workers of a cluster would end at different steps.
    polite = stopping.ending_after_the_step() if FLAGS.distribute != "multi_worker" else contextlib.nullcontext()
    with polite:
        chief, finished = api.train(
            recipe,
            FLAGS.run_dir,
            FLAGS.export_dir,
            FLAGS.overwrite,
            distribute=FLAGS.distribute,
            max_minutes=FLAGS.max_minutes,
            report=commands.say,
        )
    if not finished and stopping.asked():
        sys.exit(f"error: stopped by {stopping.asked()}; the same command goes on from the newest checkpoint")
    if chief:
        early = "" if finished else f" for {FLAGS.max_minutes:g} minutes; the same command goes on with it"
        print(f"{FLAGS.run_dir}: trained{early}")
        model = FLAGS.run_dir
        if FLAGS.export_dir:
            model = commands.export_trained(FLAGS.run_dir, FLAGS.export_dir, FLAGS.overwrite)
        steps = commands.next_steps(recipe, FLAGS.run_dir, model, FLAGS.import_module)
        if steps:
            print("\n  ".join(["What to do next:", *steps]))


if __name__ == "__main__":
    commands.run(main, define_flags, DESCRIPTION, explain_unknown)
