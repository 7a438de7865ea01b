"""Trains ICSD-GAN with several weights of its distillation and evaluates every stage's image.

    python -m benchmarks.icsd_ablation --run_dir=runs/icsd_ablation [--weights=0,0.1,1,10] [--seeds=0,1,2]
        [--recipe=pipelines/icsd_shapes.flags] [--options=data_dir=FLOWERS.zip] [--metrics=kernel,r_precision]
        [--extractor=teacher --teacher=efficientnet_lite0]

All runs are one recipe with the stages `text` and `gan` and differ in lambda and seed alone; they share one text
encoder, which is trained first. A finished run is not trained again, an interrupted one goes on. Then every run's
images are evaluated on the same held-out captions, each stage at its own side, and printed as a table: the mean over
the seeds, and the difference to the first lambda with the same seed, with a 95 % interval (Student's t over the seeds).
"""

from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import command, reports
from benchmarks.reports import by_heading, compared, kept
from benchmarks.runs import asked_of, chosen_cores, chosen_seeds, define_cores, train, train_rows
from t2i_kd.errors import UserError
from t2i_kd.evaluation import FINAL, evaluate
from t2i_kd.metrics.catalogue import EXTRACTORS
from t2i_kd.options import TeacherOptions
from t2i_kd.training.text_to_image import TEXT_WEIGHTS_FILE

# Heading -> the metric and how the name of its line begins.
COLUMNS = {
    "caption accuracy": ("attribute_accuracy", "attribute_mean"),
    "R-precision": ("r_precision", "r_precision"),
    "Fréchet": ("frechet", "frechet"),
    "kernel": ("kernel", "kernel"),
    "diversity": ("diversity", "diversity_captions"),
    "diversity of seeds": ("diversity", "diversity_seeds"),
}


def train_all(recipe, root, weights, seeds, options, cores=()):
    """Trains the text encoder once, then every (lambda, seed); returns {(lambda, seed): folder}."""
    train(root / "text", asked_of(recipe, *options, stages=["text"]))
    given = f"--text_weights={root / 'text' / TEXT_WEIGHTS_FILE}"
    folders, rows = {}, {}
    for seed in seeds:
        for weight in weights:
            folder = folders[weight, seed] = root / f"lambda{weight}-seed{seed}"
            row = (f"--icsd_weight={weight}", f"--seed={seed}")
            rows[folder] = asked_of(recipe, *options, given, *row, stages=["gan"])
    train_rows(rows, cores)
    return folders


def evaluate_run(folder, metrics, teacher, **options):
    """{stage: {heading: value}} of a run, kept in its folder; see `t2i_kd.evaluation.evaluate` for the arguments."""

    def measure():
        report = evaluate(folder, "", metrics, teacher=teacher, bootstrap=0, report=print, **options)
        return {label: values for label, values in by_heading(report, COLUMNS).items() if label.startswith(FINAL)}

    asked = {"metrics": metrics, "teacher": teacher and teacher.teacher, **options}
    return kept(folder / "evaluated.json", asked, measure)


def markdown(evaluated, weights, seeds):
    """The table of {(lambda, seed): {stage: {heading: value}}}: for each stage a line for each lambda."""
    first = evaluated[weights[0], seeds[0]]
    columns = [heading for heading in COLUMNS if heading in next(iter(first.values()))]
    rows = []
    for stage in first:
        for weight in weights:
            cells = {"image": stage, "lambda": weight}
            for heading in columns:
                values, reference = (
                    [evaluated[w, seed][stage][heading] for seed in seeds] for w in (weight, weights[0])
                )
                cells[heading] = f"{np.mean(values):.3g}" if weight == weights[0] else compared(values, reference)
            rows.append(cells)
    return reports.markdown(rows)


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("run_dir", "", "folder of the runs")
    flags.DEFINE_list("weights", ["0", "0.1", "1", "10"], "lambdas; the first is what the others are compared with")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds with commas between them")
    flags.DEFINE_list("options", [], "further flags of t2i_kd.train for all runs, without the dashes")
    flags.DEFINE_string("recipe", "pipelines/icsd_shapes.flags", "the flagfile, with the stages text and gan")
    flags.DEFINE_string(
        "metrics",
        "attribute_accuracy,frechet,kernel,diversity",
        f"with commas between them, of {', '.join(sorted({metric for metric, _ in COLUMNS.values()}))}",
    )
    flags.DEFINE_string("extractor", EXTRACTORS[0], "see t2i_kd.evaluate")
    flags.DEFINE_string("teacher", "", "of that name, for --extractor=teacher and r_precision; empty: that of the runs")
    define_cores()
    flags.DEFINE_integer("num_captions", 500, "held-out captions that each image is evaluated by", 1)
    flags.DEFINE_string("cache_dir", "~/.cache/t2i_kd", "see t2i_kd.evaluate")


def main():
    """Trains, evaluates and prints the table."""
    values = flags.FLAGS
    if not values.run_dir:
        raise UserError("--run_dir: say where the runs are kept")
    for weight in values.weights:
        try:
            float(weight)
        except ValueError:
            raise UserError(f"--weights: {weight!r} is no number") from None
    options = [f"--{name}" for name in values.options]
    columns = {metric for metric, _ in COLUMNS.values()}
    for metric in values.metrics.split(","):
        if metric not in columns:
            raise UserError(f"--metrics: {metric!r} is none of {', '.join(sorted(columns))}")
    seeds, cores = chosen_seeds(values.seeds), chosen_cores(values.cores)
    folders = train_all(values.recipe, Path(values.run_dir), values.weights, seeds, options, cores)
    teacher = TeacherOptions(teacher=values.teacher) if values.teacher else None
    measured = {"num_captions": values.num_captions, "cache_dir": values.cache_dir, "extractor": values.extractor}
    evaluated = {key: evaluate_run(folder, values.metrics, teacher, **measured) for key, folder in folders.items()}
    print(markdown(evaluated, values.weights, seeds))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
