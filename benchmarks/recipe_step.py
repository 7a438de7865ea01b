"""What a training step of several recipes costs, by turns, in one run.

    python -m benchmarks.recipe_step --side="single: --flagfile=A.flags"
        --side="half: --flagfile=A.flags --dtype_policy=mixed_bfloat16" [--stage=gan] [--threads=1 --clock=processor]

A side is a name and what one types after `python -m t2i_kd.train`; with `NAME@FOLDER` it is the code in that folder, a
checkout of another version, that trains; flagfiles are this folder's. Each trains the stage in a process of its own, in
the real stage loop with its input pipeline, checkpoints left out, and waits while the others work; a ratio is the
median over the turns of neighbouring pairs, the first side's below.
"""

import shlex
import statistics
from pathlib import Path

from absl import flags

from benchmarks import command
from benchmarks.train_step import CLOCK_KEYS, define_clock, measure, ratio
from t2i_kd.errors import UserError

WORKER = "recipe"


def parse_side(text):
    """(name, arguments) of a `--side`."""
    name, colon, arguments = text.partition(":")
    if not colon or not name.strip() or not arguments.strip():
        raise UserError(f"--side: {text!r} is not NAME: --flag=value ...")
    return name.strip(), split_flags(f"--side {name}", arguments)


def parse_sides(texts):
    """{name: arguments} of every `--side`, two or more, each with a name of its own."""
    sides = dict(map(parse_side, texts))
    if len(sides) < 2 or len(sides) < len(texts):
        raise UserError("--side: give two or more, each with a name of its own")
    return sides


def split_flags(flag, text):
    """The flags in a text as a shell splits them. Raises `UserError` that names the flag which holds the text."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from None


def report(seconds, firsts):
    """A line of each side: milliseconds a step, images a second, and how many times the first side's."""
    base = next(iter(seconds))
    for name, taken in seconds.items():
        middle, first = statistics.median(taken), firsts[name]
        rate = first["batch_size"] / middle
        line = f"{name} ({first['dtype_policy']}): {middle * 1e3:.0f} ms a step, {rate:.1f} images/s"
        if name != base:
            times, low, high = ratio(taken, seconds[base])
            line += f", {times:.2f} ({low:.2f} to {high:.2f}) times as long as {base}"
        yield line


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_multi_string(
        "side", [], "NAME: flags of t2i_kd.train, or NAME@FOLDER: for the code there; repeated, two or more"
    )
    flags.DEFINE_string("stage", "gan", "the stage that is trained, of every side")
    flags.DEFINE_integer("turns", 7, "of each side", 1)
    flags.DEFINE_integer("steps", 3, "in a turn", 1)
    define_clock()


def main():
    """Measures and prints."""
    values = flags.FLAGS
    sides = {}
    for side, arguments in parse_sides(values.side).items():
        name, _, tree = side.partition("@")
        if tree and not (Path(tree) / "benchmarks").is_dir():
            raise UserError(f"--side {name}: {tree} is no checkout of this project")
        if name in sides:
            raise UserError(f"--side: {name} is there twice")
        sides[name] = WORKER, {"arguments": arguments, "name": name, "tree": tree}
    options = {"stage": values.stage, "steps": values.steps, "threads": values.threads}
    options |= {"clock": CLOCK_KEYS[values.clock]}
    print("\n".join(report(*measure(sides, options, values.turns))))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
