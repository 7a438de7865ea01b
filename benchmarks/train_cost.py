"""How the cost of a training step grows with batch, resolution and width: a table and a plot.

    python -m benchmarks.train_cost --sweep=batch_size --out=costs.jsonl
    python -m benchmarks.train_cost --sweep=resolution --out=costs.jsonl
    python -m benchmarks.train_cost --sweep=width --out=costs.jsonl --plot=docs/images/train_cost.png

Every sweep starts from 64 px, batch 8, width 1, or that of `--width`, and changes one of them; `--out` collects, one
line a measurement. The step is that of `benchmarks.train_step`, without cached features, on one thread, timed by the
processor's clock; `--objectives=adversarial,kd_dlgan,cycle_gan` has those of GANs.
"""

import json
import statistics
from pathlib import Path

from absl import flags

from benchmarks import command
from benchmarks.train_step import CLOCK_KEYS, measure, sides
from t2i_kd.errors import UserError

START = {"resolution": 64, "batch_size": 8, "width": 1.0}
SWEEPS = {"batch_size": (2, 8, 32), "resolution": (32, 64, 128), "width": (0.25, 0.5, 1.0)}
# Objective -> what its stage is called.
OBJECTIVES = {
    "mirrored": "Stage I",
    "perceptual": "Stage II",
    "adversarial": "Adversarial stage",
    "kd_dlgan": "KD-DLGAN",
    "cycle_gan": "CycleGAN with a teacher",
}
LABELS = {"batch_size": "pictures in a step", "resolution": "side in pixels", "width": "width"}


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_enum("sweep", None, list(SWEEPS), "what is changed; without it nothing is measured")
    flags.DEFINE_list("values", [], "of what is changed, instead of the usual ones")
    flags.DEFINE_list(
        "objectives", ["mirrored", "perceptual"], f"the stages that are measured, of {', '.join(OBJECTIVES)}"
    )
    flags.DEFINE_float("width", START["width"], "factor on all channel counts where it is not what is changed")
    flags.DEFINE_integer("turns", 3, "of a measurement", 1)
    flags.DEFINE_integer("steps", 2, "in a turn", 1)
    flags.DEFINE_string("out", "costs.jsonl", "file that collects the measurements")
    flags.DEFINE_string("plot", "", "where to draw all of --out as a PNG")


def cost(objective, setting, turns, steps):
    """One measurement: setting, `objective`, median `seconds` and `operations` a step, `peak` operations a second."""
    options = setting | {"objective": objective, "text_dim": 256, "steps": steps, "turns": turns}
    options |= {"dtype_policy": "float32", "threads": 1, "clock": CLOCK_KEYS["processor"]}
    seconds, firsts = measure(sides(["tensorflow"], objective), options, turns)
    return setting | {
        "objective": objective,
        "seconds": statistics.median(seconds["tensorflow"]),
        "operations": firsts["tensorflow"]["operations"],
        "peak": firsts["tensorflow"]["peak"],
    }


def read(path):
    """The measurements of a file; of two of one setting the later."""
    lines = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    return list({tuple(line[key] for key in (*START, "objective")): line for line in lines}.values())


def measured(costs):
    """The objectives that any of the measurements is of, in their order."""
    return [objective for objective in OBJECTIVES if any(cost["objective"] == objective for cost in costs)]


def of_sweep(costs, sweep, objective, width=START["width"]):
    """The measurements that differ from the start, of a width, in `sweep` alone, in its order."""
    others = {key: value for key, value in (START | {"width": width}).items() if key != sweep}
    fitting = [c for c in costs if c["objective"] == objective and others.items() <= c.items()]
    return sorted(fitting, key=lambda each: each[sweep])


def markdown(costs):
    """The measurements as a table: of each stage images/s, ms a step, and the share of the peak."""
    objectives = measured(costs)
    stages = "".join(f" {OBJECTIVES[objective]}: images/s | ms a step | of peak |" for objective in objectives)
    yield f"| resolution | batch | width |{stages}"
    yield "|" + " --- |" * (len(START) + 3 * len(objectives))
    for setting in sorted({tuple(each[key] for key in START) for each in costs}):
        cells = [f"{value:g}" for value in setting]
        found = {c["objective"]: c for c in costs if tuple(c[key] for key in START) == setting}
        for objective in objectives:
            if objective not in found:
                cells += [""] * 3
                continue
            seconds, share = found[objective]["seconds"], found[objective]["operations"] / found[objective]["peak"]
            cells += [f"{setting[1] / seconds:.1f}", f"{seconds * 1e3:.0f}", f"{share / seconds:.0%}"]
        yield "| " + " | ".join(cells) + " |"


def plot(costs, path, width=START["width"]):
    """Draws seconds a step over each of the three, both axes logarithmic, beside a line of slope 1 or 2."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SWEEPS), figsize=(9, 3), sharey=True, layout="constrained")
    objectives = measured(costs)
    for axis, (sweep, slope) in zip(axes, (("batch_size", 1), ("resolution", 2), ("width", 2)), strict=True):
        for objective in objectives:
            found = of_sweep(costs, sweep, objective, width)
            axis.plot([c[sweep] for c in found], [c["seconds"] for c in found], "o-", label=OBJECTIVES[objective])
            if objective == objectives[-1] and found:
                ends = [found[0][sweep], found[-1][sweep]]
                line = [found[-1]["seconds"] * (end / ends[1]) ** slope for end in ends]
                axis.plot(ends, line, ":", color="grey", label=("in proportion", "with its square")[slope - 1])
        axis.set(xscale="log", yscale="log", xlabel=LABELS[sweep])
        ticks = sorted({c[sweep] for objective in objectives for c in of_sweep(costs, sweep, objective, width)})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("seconds a step")
    figure.savefig(path, dpi=100)


def main():
    """Runs the command: measures one sweep, then prints and draws all that was measured."""
    values = flags.FLAGS
    for objective in values.objectives:
        if objective not in OBJECTIVES:
            raise UserError(f"--objectives: {objective!r} is none of {', '.join(OBJECTIVES)}")
    if values.sweep:
        kind = type(START[values.sweep])
        try:
            chosen = [kind(each) for each in values["values"].value] or SWEEPS[values.sweep]
        except ValueError:
            raise UserError(f"--values: {values['values'].value} are not numbers") from None
        for each in chosen:
            for objective in values.objectives:
                setting = START | {"width": values.width} | {values.sweep: each}
                found = cost(objective, setting, values.turns, values.steps)
                with open(values.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
    if not Path(values.out).is_file():
        raise UserError(f"--out: no file {values.out}; give a --sweep")
    costs = read(values.out)
    print("\n".join(markdown(costs)))
    if values.plot:
        plot(costs, values.plot, values.width)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
