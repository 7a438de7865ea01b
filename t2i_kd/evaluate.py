"""Judges students: `python -m t2i_kd.evaluate --model=PATH --dataset=NAME --metrics=a,b --out=report.json`.

Of a run directory every finished stage is judged in turn, then the final student, each of its image stages for itself,
the smallest first. With several `--model=PATH` the
finished student of each is judged, and each is compared with the first.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags, logging

from t2i_kd import commands
from t2i_kd.data.catalogue import DATASETS, find_dataset
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA, MANIFEST, sha256_of
from t2i_kd.imaging import write_file_atomically
from t2i_kd.metrics.catalogue import METRICS, PICTURE_METRICS, only_the_teacher_judges
from t2i_kd.recipe import RECIPE_FILE, Recipe, TeacherRecipe

EXTRACTORS = ("own", "inception", "teacher", "hub")
FINAL = "final student"
TEACHER_NOTE = "every metric here looks through the teacher, whose view SDN is trained to match; ask for others too"
TEACHER_FLAGS = ("teacher", "teacher_weights", "teacher_pooling", "teacher_preprocessing")


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_multi_string(
        "model",
        [],
        "a version folder, a .tflite, an .onnx or a run directory; given several times, the others are compared with "
        "the first",
    )
    flags.DEFINE_string(
        "dataset", "", f"data set whose test split is asked for: {', '.join(DATASETS)}, or a module such as my.data"
    )
    flags.DEFINE_string("data_dir", "", "folder or .zip of the data set, where it needs one")
    flags.DEFINE_integer("max_bad_examples", 0, "broken images or empty captions to skip before stopping", 0)
    flags.DEFINE_string("metrics", "", f"names with commas between them: {', '.join(METRICS)}")
    flags.DEFINE_integer("num_captions", 300, "captions that the student draws", 1)
    flags.DEFINE_integer("seed", 0, "of the choice of captions, of noise, and of trained judges", 0, 2**31 - 1)
    flags.DEFINE_enum(
        "extractor",
        "own",
        EXTRACTORS,
        "whose activations are compared: inception (InceptionV3), teacher (SDN learns from VGG19, so this alone is no "
        "judge of it), hub (--extractor_handle), own (a small classifier trained on the training split)",
    )
    flags.DEFINE_string(
        "inception_weights",
        "imagenet",
        "imagenet (Keras downloads them) or a .weights.h5 of keras.applications.InceptionV3",
    )
    flags.DEFINE_string("extractor_handle", "", "extractor=hub: TF-Hub handle or folder of an image feature vector")
    flags.DEFINE_string(
        "retrieval_handle", "", "r_precision: TF-Hub handle or folder of the text encoder that fits the extractor's"
    )
    flags.DEFINE_integer("bootstrap", 200, "resamples for the 95 % intervals; 0: none", 0)
    flags.DEFINE_string("cache_dir", "~/.cache/t2i_kd", "keeps trained judges and what they see in real pictures")
    flags.DEFINE_string("out", "", "the JSON report to write; empty: only print")
    flags.DEFINE_string("page", "", "the HTML page to write, with the best, the worst and some random pictures")
    for item in dataclasses.fields(TeacherRecipe):
        if item.name in TEACHER_FLAGS:
            default = f"default: the run's own teacher, else {item.default}"
            help_text = f"{item.metadata['help']} (tap_distance, perceptual_distance; {default})"
            if item.metadata["choices"]:
                flags.DEFINE_enum(item.name, None, item.metadata["choices"], help_text)
            else:
                flags.DEFINE_string(item.name, None, help_text)


class Candidate(NamedTuple):
    """One student to judge.

    Attributes:
        label: what the report calls it.
        student: a `runners.Runner`.
        sha256: of its weights' file, or of the manifest that lists an exported version's files with their checksums.
        is_last: whether no other comes after it.
    """

    label: str
    student: Any
    sha256: str
    is_last: bool


def students(model):
    """The students of a path, each loaded when its turn comes.

    Args:
        model: a run directory, or anything else that `load_artifact` opens.

    Yields:
        `Candidate`s.

    Raises:
        UserError: where a file cannot be read, or a run has finished no stage.
    """
    folder = Path(model)
    if not (folder / RECIPE_FILE).is_file():
        from t2i_kd.exporting.artifacts import load_artifact

        manifest = folder / EXTRA / MANIFEST
        yield Candidate(str(model), load_artifact(model), sha256_of(manifest if manifest.is_file() else folder), True)
        return
    from t2i_kd.exporting.runners import KerasRunner
    from t2i_kd.student import WEIGHTS_FILE, load_student

    files = {
        f"{stage.name} alone" if index == 0 else f"after {stage.name}": f"checkpoints/{stage.name}/{WEIGHTS_FILE}"
        for index, stage in enumerate(Recipe.load(folder / RECIPE_FILE).stages)
    }
    files[FINAL] = WEIGHTS_FILE
    finished = {label: file for label, file in files.items() if (folder / file).is_file()}
    if not finished:
        raise UserError(f"--model: {model} has no finished stage and no {WEIGHTS_FILE}")
    for label, file in finished.items():
        student, sha256 = load_student(folder, file), sha256_of(folder / file)
        if label == FINAL:
            for side, coarse in student.coarse_images.items():
                yield Candidate(f"{FINAL}, image of {side} px", KerasRunner(coarse), sha256, False)
        yield Candidate(label, KerasRunner(student), sha256, label == list(finished)[-1])


def finished_students(models):
    """The finished student of each path, with the path as its name; see `students`."""
    for model in models:
        *_, last = students(model)
        if last.label not in (str(model), FINAL):
            raise UserError(f"--model: {model} is not finished; its last stage is {last.label}")
        yield last._replace(label=str(model), is_last=model == models[-1])


def evaluate(models, dataset, metrics, teacher=None, out="", page="", bootstrap=200, **options):
    """Measures students and prints a table for each metric.

    Args:
        models: a path, see `students`, or several, see `finished_students`.
        dataset: a name that `t2i_kd.data.catalogue.find_dataset` knows.
        metrics: names of `METRICS` with commas between them.
        teacher: `TeacherRecipe` for the metrics that need one.
        out: path of a JSON report, or empty.
        page: path of an HTML page, or empty.
        bootstrap: resamples for the intervals, 0 for none.
        options: `data_dir`, `max_bad_examples`, `num_captions`, `seed`, `extractor`, `inception_weights`,
            `extractor_handle`, `retrieval_handle`, `cache_dir`; see `EvaluationContext`.

    Returns:
        What the report holds: {"model": [paths], "dataset", "metrics": {metric: {student: {"protocol", "values",
        "intervals", "beside"}}}, "comparisons": {metric: {student: what `resampling.compare` gave}},
        "notes": [what to bear in mind]}.

    Raises:
        UserError: naming the flag or file that is wrong.
    """
    models = [models] if isinstance(models, str | Path) else list(models)
    _check(models, dataset, {"out": out, "page": page}, bootstrap)
    from t2i_kd.metrics import resampling
    from t2i_kd.metrics.catalogue import resolve_metrics
    from t2i_kd.metrics.context import EvaluationContext
    from t2i_kd.metrics.table import format_comparisons, format_table

    measures = resolve_metrics(metrics)
    shown = next((name for name in measures if name in PICTURE_METRICS), None)
    if page and shown is None:
        raise UserError(f"--page: none of --metrics judges pictures one by one; one of {', '.join(PICTURE_METRICS)}")
    cache, biased, sections, comparisons = {}, {}, [], {}
    results, rows = {name: {} for name in measures}, {name: {} for name in measures}
    for label, student, sha256, is_last in students(models[0]) if len(models) == 1 else finished_students(models):
        context = EvaluationContext(
            student, dataset, teacher=teacher or TeacherRecipe(), model_sha256=sha256, cache=cache, **options
        )
        context = dataclasses.replace(context, student=student.covering(context.split("test")))
        for metric in measures.values():
            metric.check(context)
        for name, metric in measures.items():
            logging.info("%s: %s", label, name)
            measurement = metric.measure(context)
            rows[name][label] = resampling.resampled(measurement, bootstrap, context.seed)
            biased[name] = measurement.biased
            results[name][label] = _result(measurement, rows[name][label])
            if page and name == shown:
                sections.append(_section(label, measurement, context.split("test")))
            if is_last:
                # At once: what a later metric meets must not cost this one.
                print(format_table(name, results[name]), flush=True)
                if len(models) > 1:
                    (_, first), *others = rows[name].items()
                    comparisons[name] = {
                        other: resampling.compare(first, found, biased[name]) for other, found in others
                    }
                    print(format_comparisons(models[0], comparisons[name]), flush=True)
    notes = [TEACHER_NOTE] if only_the_teacher_judges(measures, options.get("extractor")) else []
    report = {
        "model": [str(model) for model in models],
        "dataset": dataset,
        "metrics": results,
        "comparisons": comparisons,
        "notes": notes,
    }
    for note in notes:
        print(f"note: {note}")
    if out:
        _write("out", out, json.dumps(report, indent=2) + "\n")
    if page:
        from t2i_kd.metrics.page import render_page

        _write("page", page, render_page(f"{dataset}: {shown}", report, sections))
    return report


def _result(measurement, rows):
    from t2i_kd.metrics.resampling import interval

    intervals = {}
    if len(next(iter(rows.values()))) > 1:
        intervals = {line: interval(values, measurement.biased) for line, values in rows.items()}
    return {
        "protocol": measurement.protocol,
        "values": {line: float(values[0]) for line, values in rows.items()},
        "intervals": intervals | measurement.intervals,
        "beside": measurement.beside,
    }


def _section(label, measurement, test):
    from t2i_kd.metrics.held_out import Chosen
    from t2i_kd.metrics.page import Section

    ((line, values),) = measurement.samples.items()
    return Section(
        student=label,
        line=line,
        lower_is_better=measurement.lower_is_better,
        captions=[caption for _, caption in measurement.pairs],
        values=values,
        made=measurement.pictures,
        real=Chosen(test.images, [picture for picture, _ in measurement.pairs]),
    )


def _check(models, dataset, files, bootstrap):
    if not models or not all(models):
        raise UserError("--model: missing")
    for model in models:
        if not Path(model).exists():
            raise UserError(f"--model: {model} does not exist")
    if len(set(map(str, models))) < len(models):
        raise UserError("--model: the same path twice")
    find_dataset(dataset)
    if bootstrap == 1:
        raise UserError("--bootstrap: one resample makes no interval; 0 or at least 2")
    for flag, path in files.items():
        if path and (Path(path).is_dir() or not Path(path).parent.is_dir()):
            raise UserError(f"--{flag}: {path} is not a file in a folder that exists")


def _write(flag, path, text):
    try:
        write_file_atomically(Path(path), text.encode("utf-8"))
    except OSError as error:
        raise UserError(f"--{flag}: {path}: {error.strerror or error}") from None


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
        chosen_teacher(values.model[0] if values.model else "", values),
        values.out,
        values.page,
        values.bootstrap,
        data_dir=values.data_dir,
        max_bad_examples=values.max_bad_examples,
        num_captions=values.num_captions,
        seed=values.seed,
        extractor=values.extractor,
        inception_weights=values.inception_weights,
        extractor_handle=values.extractor_handle,
        retrieval_handle=values.retrieval_handle,
        cache_dir=values.cache_dir or None,
    )
    for path in (values.out, values.page):
        if path:
            print(path)


if __name__ == "__main__":
    define_flags()
    commands.run(main)
