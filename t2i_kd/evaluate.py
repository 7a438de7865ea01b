"""Judges a student: `python -m t2i_kd.evaluate --model=PATH --dataset=NAME --metrics=a,b --out=report.json`.

Of a run directory every finished stage is judged in turn, then the final student.
"""

import dataclasses
import json
import os
from pathlib import Path

from absl import flags

from t2i_kd import commands
from t2i_kd.data.catalogue import DATASETS
from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.metrics.catalogue import METRICS
from t2i_kd.recipe import RECIPE_FILE, Recipe, TeacherRecipe

TEACHER_FLAGS = ("teacher", "teacher_weights", "teacher_pooling", "teacher_preprocessing")


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("model", "", "a version folder, a .tflite, an .onnx or a run directory")
    flags.DEFINE_string("dataset", "", f"data set whose test split is asked for: {', '.join(DATASETS)}")
    flags.DEFINE_string("data_dir", "", "folder or .zip of the data set, where it needs one")
    flags.DEFINE_integer("max_bad_examples", 0, "broken images or empty captions to skip before stopping", 0)
    flags.DEFINE_string("metrics", "", f"names with commas between them: {', '.join(METRICS)}")
    flags.DEFINE_integer("num_captions", 300, "captions that the student draws", 1)
    flags.DEFINE_integer("seed", 0, "of the choice of captions, of noise, and of trained judges", 0, 2**31 - 1)
    flags.DEFINE_enum(
        "extractor",
        "inception",
        ("inception", "teacher"),
        "frechet, kernel: whose activations; SDN learns from VGG19, so the teacher alone is no judge of it",
    )
    flags.DEFINE_string(
        "inception_weights",
        "imagenet",
        "imagenet (Keras downloads them) or a .weights.h5 of keras.applications.InceptionV3(include_top=False)",
    )
    flags.DEFINE_string("out", "", "the JSON report to write; empty: only print")
    for item in dataclasses.fields(TeacherRecipe):
        if item.name in TEACHER_FLAGS:
            help_text = f"{item.metadata['help']} (tap_distance; default: the run's own teacher, else {item.default})"
            if item.metadata["choices"]:
                flags.DEFINE_enum(item.name, None, item.metadata["choices"], help_text)
            else:
                flags.DEFINE_string(item.name, None, help_text)


def students(model):
    """The students of a path, each loaded when its turn comes.

    Args:
        model: a run directory, or anything else that `load_artifact` opens.

    Yields:
        (what it is, an object with `generate` and `resolution`).

    Raises:
        UserError: where a file cannot be read, or a run has finished no stage.
    """
    folder = Path(model)
    if not (folder / RECIPE_FILE).is_file():
        from t2i_kd.exporting.artifacts import load_artifact

        yield str(model), load_artifact(model)
        return
    from t2i_kd.exporting.runners import KerasRunner
    from t2i_kd.student import WEIGHTS_FILE, load_student

    files = {
        f"{stage.name} alone" if index == 0 else f"after {stage.name}": f"checkpoints/{stage.name}/{WEIGHTS_FILE}"
        for index, stage in enumerate(Recipe.load(folder / RECIPE_FILE).stages)
    }
    files["final student"] = WEIGHTS_FILE
    finished = {label: file for label, file in files.items() if (folder / file).is_file()}
    if not finished:
        raise UserError(f"--model: {model} has no finished stage and no {WEIGHTS_FILE}")
    for label, file in finished.items():
        yield label, KerasRunner(load_student(folder, file))


def evaluate(model, dataset, metrics, teacher=None, out="", **options):
    """Measures a student and prints a table for each metric.

    Args:
        model: a path; see `students`.
        dataset: a name of `DATASETS`.
        metrics: names of `METRICS` with commas between them.
        teacher: `TeacherRecipe` for the metrics that need one.
        out: path of a JSON report, or empty.
        options: `data_dir`, `max_bad_examples`, `num_captions`, `seed`, `extractor`, `inception_weights`; see
            `EvaluationContext`.

    Returns:
        What the report holds: {"model", "dataset", "metrics": {metric: {student: what the metric returned}}}.

    Raises:
        UserError: naming the flag or file that is wrong.
    """
    _check(model, dataset, out)
    from t2i_kd.metrics.catalogue import resolve_metrics
    from t2i_kd.metrics.context import EvaluationContext
    from t2i_kd.metrics.table import format_table

    measures = resolve_metrics(metrics)
    cache, results = {}, {name: {} for name in measures}
    for label, student in students(model):
        context = EvaluationContext(student, dataset, teacher=teacher or TeacherRecipe(), cache=cache, **options)
        context = dataclasses.replace(context, student=student.covering(context.split("test")))
        for name, measure in measures.items():
            results[name][label] = measure(context)
    report = {"model": str(model), "dataset": dataset, "metrics": results}
    for name in measures:
        print(format_table(name, results[name]))
    if out:
        _write(out, report)
    return report


def _check(model, dataset, out):
    if not model:
        raise UserError("--model: missing")
    if not Path(model).exists():
        raise UserError(f"--model: {model} does not exist")
    if dataset not in DATASETS:
        raise UserError(f"--dataset: {dataset!r} is none of {', '.join(DATASETS)}")
    if out and (Path(out).is_dir() or not Path(out).parent.is_dir()):
        raise UserError(f"--out: {out} is not a file in a folder that exists")


def _write(out, report):
    try:
        write_file_atomically(Path(out), (json.dumps(report, indent=2) + "\n").encode("utf-8"))
    except OSError as error:
        raise UserError(f"--out: {out}: {error.strerror or error}") from None


def chosen_teacher(model, values):
    """The teacher of the flags; what they leave open is as in the run directory's recipe, or else the default.

    Args:
        model: the value of `--model`.
        values: an object with `TEACHER_FLAGS` as attributes, None where a flag is not given.
    """
    recipe_file = Path(model) / RECIPE_FILE
    teacher = Recipe.load(recipe_file).teacher if model and recipe_file.is_file() else TeacherRecipe()
    given = {name: getattr(values, name) for name in TEACHER_FLAGS if getattr(values, name) is not None}
    if given.keys() & {"teacher", "teacher_weights"}:
        # Another network or file: the run's own file and checksum do not belong to it.
        defaults = TeacherRecipe()
        teacher = dataclasses.replace(
            teacher, teacher_weights=defaults.teacher_weights, teacher_weights_sha256=defaults.teacher_weights_sha256
        )
    return dataclasses.replace(teacher, **given)


def main():
    """Runs the command; see `evaluate`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    values = flags.FLAGS
    evaluate(
        values.model,
        values.dataset,
        values.metrics,
        chosen_teacher(values.model, values),
        values.out,
        data_dir=values.data_dir,
        max_bad_examples=values.max_bad_examples,
        num_captions=values.num_captions,
        seed=values.seed,
        extractor=values.extractor,
        inception_weights=values.inception_weights,
    )
    if values.out:
        print(values.out)


if __name__ == "__main__":
    define_flags()
    commands.run(main)
