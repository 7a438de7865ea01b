"""A side of `benchmarks.recipe_step`: a stage of a recipe in the real stage loop, halted between turns.

Options, one JSON object: `arguments` of `t2i_kd.train`, a list; `name` of the side; `stage`, its name; `steps` of a
turn; `folder`, for what a run writes.
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path

from absl import flags

from benchmarks.tensorflow_steps import Turns, train_halted
from t2i_kd import recipe_flags, systems
from t2i_kd.command_line import expanded
from t2i_kd.train import define_flags
from t2i_kd.training.determinism import make_deterministic
from t2i_kd.training.loop import StagePlan


def recipe_of(arguments):
    """The recipe that `python -m t2i_kd.train` makes of arguments."""
    line = ["t2i_kd.train", *expanded(arguments)]
    define_flags(line)
    flags.FLAGS(line)
    system = flags.FLAGS.system
    return recipe_flags.from_flags(systems.find(system).recipe, flags.FLAGS, system)


def train(options, folder, called):
    """Trains the stage from its first step on and without an end.

    Args:
        options: `arguments`, `stage` and `steps`, as this module has them.
        folder: for what a run writes.
        called: function of `TrainingOptions` that gives what the loop calls every `steps` steps.
    """
    make_deterministic()
    system = systems.build(recipe_of(options["arguments"]))
    system.prepare()
    (stage,) = [each for each in system.recipe.stages if each.name == options["stage"]]
    plan = StagePlan(stage, 0, 10**6)
    training = dataclasses.replace(
        system.recipe.training, checkpoint_every=10**9, sample_every=options["steps"], log_every=10, measure_every=0
    )
    with system.policy():
        system.before_stage(plan)
        batches = functools.partial(system.batches, plan)
        train_halted(plan, system.own_trainer(plan), batches, training, folder, called(training))


def main(options):
    """Trains as long as it is told to."""

    def turns(training):
        return Turns({"batch_size": training.batch_size, "dtype_policy": training.dtype_policy}, options["steps"])

    train(options, Path(options["folder"]) / options["name"], turns)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
