"""Trains several recipes with the same seeds, evaluates their students alike, and prints them as a table.

    python -m benchmarks.compare_recipes --run_dir=runs/precision --seeds=0,1 --cores=0,1
        --side="float32: --flagfile=pipelines/flowers64.flags --data_dir=FLOWERS.zip"
        --side="bfloat16: --flagfile=pipelines/flowers64.flags --data_dir=FLOWERS.zip --dtype_policy=mixed_bfloat16"
        --evaluation="--dataset=image_folder --data_dir=FLOWERS.zip --metrics=kernel,r_precision --num_captions=800"

A side is a name and what one types after `python -m t2i_kd.train`; the seed, the run directory and no export are added.
A finished run is not trained again, an interrupted one goes on. The evaluation is what one types after `python -m
t2i_kd.evaluate`, without the models, which are each run's last student. A row of the table is a measure, a column a
side, a cell the mean over the seeds and, from the second side on, the difference to the first, paired by seed, with a
95 % interval (Student's t over the seeds).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import command, reports
from benchmarks.recipe_step import parse_sides, split_flags
from benchmarks.reports import compared, kept
from benchmarks.runs import chosen_cores, chosen_seeds, define_cores, train_rows
from t2i_kd.checksums import sha256_of
from t2i_kd.errors import UserError
from t2i_kd.student import WEIGHTS_FILE

# What this command gives to every run itself.
OWN = ("seed", "run_dir", "export_dir")
# The same of the evaluation.
OWN_OF_EVALUATION = ("model", "out", "bootstrap")


def check_own(flag, arguments, own):
    """Raises UserError where arguments name a flag that this command gives itself."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in own:
            raise UserError(f"{flag}: leave --{name} out, which this command gives")


def evaluate(models, arguments):
    """{model: {metric's line: value}} by `python -m t2i_kd.evaluate`.

    Args:
        models: paths.
        arguments: further flags.

    Raises:
        UserError: where the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        asked = [*(f"--model={model}" for model in models), f"--out={out}", "--bootstrap=0", *arguments]
        if subprocess.run([sys.executable, "-m", "t2i_kd.evaluate", *asked]).returncode:
            raise UserError("--evaluation: t2i_kd.evaluate failed")
        report = json.loads(out.read_text("utf-8"))
    found = {model: {} for model in models}
    for students in report["metrics"].values():
        for model in models:
            found[model] |= students[model]["values"]
    return found


def markdown(evaluated, sides, seeds):
    """The table of {(side, seed): {line: value}}: a row for each line, a column for each side."""
    rows = []
    for line in evaluated[sides[0], seeds[0]]:
        first, *others = ([evaluated[side, seed][line] for seed in seeds] for side in sides)
        cells = [f"{np.mean(first):.3g}", *(compared(values, first) for values in others)]
        rows.append({"": line} | dict(zip(sides, cells, strict=True)))
    return reports.markdown(rows)


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("run_dir", "", "folder of the runs")
    flags.DEFINE_multi_string("side", [], "NAME: flags of t2i_kd.train; repeated; the first is what others differ from")
    flags.DEFINE_list("seeds", ["0", "1"], "seeds with commas between them")
    flags.DEFINE_string("evaluation", "", "flags of t2i_kd.evaluate; empty: the runs are only trained")
    define_cores()


def main():
    """Trains, evaluates and prints the table."""
    values = flags.FLAGS
    if not values.run_dir:
        raise UserError("--run_dir: say where the runs are kept")
    sides = parse_sides(values.side)
    for name, arguments in sides.items():
        if "/" in name:
            raise UserError(f"--side {name}: a name is a part of its folders' names, without /")
        check_own(f"--side {name}", arguments, OWN)
    evaluation = split_flags("--evaluation", values.evaluation)
    check_own("--evaluation", evaluation, OWN_OF_EVALUATION)
    seeds, cores, root = chosen_seeds(values.seeds), chosen_cores(values.cores), Path(values.run_dir)
    folders = {(side, seed): root / f"{side}-seed{seed}" for seed in seeds for side in sides}
    train_rows(
        {folder: [*sides[side], "--export_dir=", f"--seed={seed}"] for (side, seed), folder in folders.items()}, cores
    )
    if not evaluation:
        return
    models = {key: str(folder / WEIGHTS_FILE) for key, folder in folders.items()}
    asked = {"models": {model: sha256_of(model) for model in models.values()}, "evaluation": evaluation}
    found = kept(root / "evaluated.json", asked, lambda: evaluate(list(models.values()), evaluation))
    print(markdown({key: found[model] for key, model in models.items()}, list(sides), seeds))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
