"""Evaluates the finished rows of `benchmarks.ablations` on the same held-out captions and prints them as one table.

    python -m benchmarks.ablation_table --run_dir=runs/ablations_flowers --data_dir=FLOWERS.zip --out=report.json

A line is a row of the ablation, a cell the values of its seeds. The full report, with intervals and the difference of
every run to `both` with the first seed, is what `python -m t2i_kd.evaluate` writes.
"""

from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import command, reports
from benchmarks.ablations import ROWS
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.evaluation import evaluate
from t2i_kd.imaging import captioned_grid, encode_png, write_file_atomically
from t2i_kd.loading import load_artifact
from t2i_kd.options import TeacherOptions
from t2i_kd.student import WEIGHTS_FILE
from t2i_kd.training.system import evenly

METRICS = "classification,r_precision,kernel,diversity,ssim,tap_distance"
# What the others are compared with: both stages, of the teacher whose rows are there.
REFERENCES = ("both", "slim_quarter_both")
COLUMNS = 8
# The one line of tap_distance that the table shows.
TAP_SUM = "tap_normalised_sum_"


def finished_runs(run_dir, seeds):
    """{row: [its finished runs' folders, by seed]}, the first of `REFERENCES` first."""
    found = {}
    for row in (*REFERENCES, *(name for name in ROWS if name not in REFERENCES)):
        folders = [Path(run_dir) / f"{row}-seed{seed}" for seed in seeds]
        finished = [str(folder) for folder in folders if (folder / WEIGHTS_FILE).is_file()]
        if finished:
            found[row] = finished
    return found


def markdown(report, runs):
    """The table: a line for each row, a column for each value, the runs' values in a cell; baselines at the end."""
    lines = {}
    for metric, students in report["metrics"].items():
        first = next(iter(students.values()))
        names = [name for name in first["values"] if metric != "tap_distance" or name.startswith(TAP_SUM)]
        for name in names:
            cells = {
                row: " / ".join(f"{students[run]['values'][name]:.3g}" for run in runs[row])
                for row in ROWS
                if row in runs
            }
            baselines = {what: f"{values[name]:.3g}" for what, values in first["baselines"].items() if name in values}
            lines[name] = cells | baselines
    rows = list(dict.fromkeys(row for cells in lines.values() for row in cells))
    return reports.markdown([{"": row} | {name: cells.get(row, "") for name, cells in lines.items()} for row in rows])


def write_sheet(path, runs, data_dir):
    """Writes a sheet of the rows' pictures of the same held-out captions: a line for each row, its first seed."""
    images, captions = [], []
    for row in (row for row in ROWS if row in runs):
        student = load_artifact(runs[row][0])
        if not images:
            asked = evenly(load_dataset("image_folder", "test", student.resolution, data_dir).captions, COLUMNS)
            asked = [texts[0] for texts in asked]
        images += list(student.generate(asked, range(COLUMNS)))
        captions += [f"{row}: {asked[0]}", *asked[1:]]
    write_file_atomically(path, encode_png(captioned_grid(np.stack(images), captions, COLUMNS)))


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("run_dir", "", "folder of the runs, as given to benchmarks.ablations")
    flags.DEFINE_string("data_dir", "", "folder or .zip of the pictures, with metadata.jsonl")
    flags.DEFINE_string("teacher_weights", "imagenet", "of tap_distance's VGG19")
    flags.DEFINE_list("seeds", ["0", "1"], "seeds with commas between them")
    flags.DEFINE_string("metrics", METRICS, "see t2i_kd.evaluate")
    flags.DEFINE_integer("num_captions", 500, "held-out captions that each student draws", 1)
    flags.DEFINE_string("cache_dir", "~/.cache/t2i_kd", "see t2i_kd.evaluate")
    flags.DEFINE_string("sheet", "", "the PNG to write, with every row's pictures of the same held-out captions")
    flags.DEFINE_string("out", "", "the JSON report to write")


def main():
    """Runs the evaluation and prints the table."""
    values = flags.FLAGS
    if not values.run_dir or not Path(values.run_dir).is_dir():
        raise UserError(f"--run_dir: {values.run_dir!r} is no folder of runs")
    runs = finished_runs(values.run_dir, values.seeds)
    if not runs:
        raise UserError(f"--run_dir: {values.run_dir} holds no finished run")
    if values.sheet:
        write_sheet(Path(values.sheet), runs, values.data_dir)
    report = evaluate(
        [run for folders in runs.values() for run in folders],
        "image_folder",
        values.metrics,
        teacher=TeacherOptions(teacher="vgg19", teacher_weights=values.teacher_weights),
        out=values.out,
        report=print,
        data_dir=values.data_dir,
        num_captions=values.num_captions,
        cache_dir=values.cache_dir,
    )
    print(markdown(report, runs))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
