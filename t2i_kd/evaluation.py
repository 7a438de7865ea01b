"""Evaluates students: loads them one after the other, measures each with every metric, and compares them.

Of a run directory every finished stage is evaluated in turn, then the final student, each of its image stages for
itself, the smallest first. Of several models the finished student of each is evaluated and compared with the first.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from t2i_kd.checksums import sha256_of
from t2i_kd.conditions.base import CONDITION_FILE
from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.data.image_pairs import DIRECTIONS
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA, MANIFEST
from t2i_kd.imaging import write_file_atomically
from t2i_kd.loading import load_artifact
from t2i_kd.metrics.catalogue import EXTRACTORS, PICTURE_METRICS, may_rate_pictures, resolve_metrics
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.page import render_page
from t2i_kd.metrics.report import COMPARE_SETS, Findings
from t2i_kd.metrics.translation import TranslationContext
from t2i_kd.options import TeacherOptions
from t2i_kd.plugins import check_imported
from t2i_kd.recipe import RECIPE_FILE
from t2i_kd.runners import IdentityRunner, KerasRunner
from t2i_kd.shipped import model_path
from t2i_kd.student import BEST_FILE, INVERSE_FILE, WEIGHTS_FILE, load_student
from t2i_kd.systems import build, load_recipe
from t2i_kd.training.measuring import bystander

FINAL = "final student"
IDENTITY = "the source as it is"


class Candidate(NamedTuple):
    """One student to evaluate.

    Attributes:
        label: what the report calls it.
        student: a `runners.Runner`, or any object with `generate(captions, seeds)` and `resolution`.
        sha256: of its weights' file, or of the manifest that lists an exported version's files with their checksums;
            empty for an object.
        is_last: whether no other comes after it.
    """

    label: str
    student: Any
    sha256: str
    is_last: bool


def labels_of(models):
    """What the report calls each of several models: its path, or `student NUMBER` for an object."""
    return [f"student {number}" if _is_runner(model) else str(model) for number, model in enumerate(models, 1)]


def students(model):
    """The students of one model, each loaded when its turn comes.

    Args:
        model: a run directory, anything else that `load_artifact` opens, or an object that generates.

    Yields:
        `Candidate`s.

    Raises:
        UserError: where a file cannot be read, or a run has finished no stage.
    """
    if not _is_run(model):
        yield _finished_student(model, *labels_of([model]))
        return
    files = _finished_stages(model)
    for label, file in files.items():
        student, sha256 = load_student(model, file), sha256_of(Path(model) / file)
        if label == FINAL:
            for side, coarse in student.coarse_images.items():
                yield Candidate(f"{FINAL}, image of {side} px", KerasRunner(coarse, student.resolution), sha256, False)
        yield Candidate(label, KerasRunner(student), sha256, label == list(files)[-1])


def finished_students(models):
    """The finished student of each of several models, by its name of `labels_of`; errors as for `students`."""
    for model, label in zip(models, labels_of(models), strict=True):
        yield _finished_student(model, label)._replace(is_last=model is models[-1])


def _finished_student(model, label):
    if _is_runner(model):
        return Candidate(label, model, "", True)
    if not _is_run(model):
        path = model_path(model)
        manifest = path / EXTRA / MANIFEST
        sha256 = sha256_of(manifest if manifest.is_file() else path)
        return Candidate(label, load_artifact(path), sha256, True)
    files = _finished_stages(model)
    if FINAL not in files:
        raise UserError(f"--model: {model} is not finished; what it has: {', '.join(files)}")
    return Candidate(label, KerasRunner(load_student(model)), sha256_of(Path(model) / WEIGHTS_FILE), True)


def _is_runner(model):
    return hasattr(model, "generate")


def _is_run(model):
    return not _is_runner(model) and (Path(model) / RECIPE_FILE).is_file()


def _finished_stages(run_dir):
    """{label: weights file} of a run's stages, the best step of each where it was measured, and the final student."""
    files = {}
    for index, stage in enumerate(load_recipe(Path(run_dir) / RECIPE_FILE).stages):
        label = f"{stage.name} alone" if index == 0 else f"after {stage.name}"
        files[label] = f"checkpoints/{stage.name}/{WEIGHTS_FILE}"
        files[f"best of {stage.name}"] = f"checkpoints/{stage.name}/{BEST_FILE}"
    files[FINAL] = WEIGHTS_FILE
    finished = {label: file for label, file in files.items() if (Path(run_dir) / file).is_file()}
    if not finished:
        raise UserError(f"--model: {run_dir} has no finished stage and no {WEIGHTS_FILE}")
    return finished


def recipe_of(model):
    """The `Recipe` that a model was trained by, or None where none lies with it.

    Args:
        model: a run directory keeps it in its folder, a version folder in `assets.extra`; a `.tflite` or `.onnx` of an
            export lies beside it, a `.keras` of a run in its folder or in one within; the name of a model that comes
            with the package stands for its version folder; an object that generates has none.
    """
    if _is_runner(model):
        return None
    path = model_path(model)
    folders = (path, path / EXTRA)
    if path.is_file():
        # Checkpoints lie in folders of a run's; what is exported lies in one folder.
        folders = path.parents if path.suffix == ".keras" else (path.parent,)
    for folder in folders:
        if (folder / RECIPE_FILE).is_file():
            return load_recipe(folder / RECIPE_FILE)
        if (folder / CONDITION_FILE).is_file():
            break
    return None


def chosen_teacher(model, **given):
    """The network that evaluates a model: the one that it learned from, or the default, but for what is given.

    Args:
        model: see `recipe_of`.
        given: fields of `TeacherOptions`. With another network or file, the run's own file and checksum do not count.

    Raises:
        UserError: where the model's recipe names a module of a user's own that nobody has imported.
    """
    recipe, default = recipe_of(model), TeacherOptions()
    # A system of a user's own may have no teacher.
    teacher = getattr(recipe, "teacher", default)
    if not isinstance(teacher, TeacherOptions):
        # A generator taught it, whose features nobody reads: a network of this package that did not teach compares.
        teacher = TeacherOptions(teacher=bystander(recipe.teachers))
    if "teacher" not in given:
        check_imported(teacher.teacher, "teacher", f"{model}'s {RECIPE_FILE}")
    if given.keys() & {"teacher", "teacher_weights"}:
        teacher = dataclasses.replace(
            teacher, teacher_weights=default.teacher_weights, teacher_weights_sha256=default.teacher_weights_sha256
        )
    return dataclasses.replace(teacher, **given)


def taught_by(model, teacher):
    """Whether a network taught a model, as its recipe says: as its teacher, or through its discriminators.

    Args:
        model: a path or a runner; one without a recipe counts as taught.
        teacher: `TeacherOptions`.
    """
    recipe = recipe_of(model)
    return recipe is None or not recipe.teachers or teacher.teacher in recipe.teachers


def _own_objective(model, teacher):
    """The objective that a model learned in this teacher's taps; None where it learned from another network."""
    recipe = recipe_of(model)
    own = getattr(recipe, "teacher", None)
    return recipe.tap_objective if own and own.teacher == teacher.teacher else None


def evaluate(models, dataset, metrics, *, teacher=None, out="", page="", bootstrap=200, report=None, **options):
    """Measures students.

    Args:
        models: a path or an object that generates, see `students`; or a list of several, see `finished_students`.
        dataset: a name of `DATASETS`, or a data set object with `load(split, resolution, ...)` and `name`; empty: that
            of the first model's recipe, with its `data_dir` and `max_bad_examples` where none are given.
        metrics: names, a list or one string with commas between them; see `resolve_metrics`.
        teacher: `TeacherOptions` for the metrics that need one; None: the one that the first model learned from.
        out: path of a JSON report, or empty.
        page: path of an HTML page, or empty.
        bootstrap: resamples for the intervals, 0 for none.
        report: called with each metric's table, as text, as soon as the last student has been measured; None: nothing.
        options: `data_dir`, `max_bad_examples`, `num_captions`, `seed`, `extractor`, `inception_weights`,
            `extractor_handle`, `retrieval_handle`, `cache_dir`; see `EvaluationContext`.

    Returns:
        What the JSON report holds: {"model": [labels], "dataset": name, "metrics": {metric: {student: {"protocol",
        "values", "intervals", "baselines"}}}, "comparisons": {metric: {student: what `resampling.compare` gave}},
        "notes": [what to bear in mind]}.

    Raises:
        UserError: naming the flag or file that is wrong.
    """
    models = [models] if isinstance(models, str | Path) or _is_runner(models) else list(models)
    _check(models, {"out": out, "page": page}, bootstrap, options.get("extractor", EXTRACTORS[0]))
    measures = resolve_metrics(metrics)
    if not dataset:
        dataset, options = _data_of(models[0], options)
    if page:
        _check_page(measures)
    found = Findings(measures, labels_of(models), bootstrap, report or (lambda text: None), bool(page))
    teacher = teacher or chosen_teacher(models[0])
    given = {"teacher": teacher, "tap_objective": _own_objective(models[0], teacher), "cache": {}, **options}
    given["teaching"] = functools.partial(_teaching_student, models[0])
    direction = _direction_of(models)
    for candidate in _with_identity(students(models[0]) if len(models) == 1 else finished_students(models)):
        context = _checked_context(candidate, dataset, measures, given, direction)
        for name, metric in measures.items():
            logging.info("%s: %s", candidate.label, name)
            found.add(name, candidate, metric.measure(context), context)
    taught = any(taught_by(model, teacher) for model in models)
    # Sources may have no targets, and are then compared with none.
    references = len(context.split("test").images) if COMPARE_SETS & measures.keys() else None
    whole = found.report(getattr(dataset, "name", dataset), options.get("extractor"), taught, references)
    if out:
        _write("out", out, json.dumps(whole, indent=2) + "\n")
    if page:
        _check_page(found.rated)
        _write("page", page, render_page(f"{whole['dataset']}: {found.rated[0]}", whole, found.sections))
    return whole


def _reads_images(student):
    return getattr(getattr(student, "condition", None), "kind", CaptionCondition.kind) != CaptionCondition.kind


def _with_identity(candidates):
    """The candidates and, after students that read images, one that gives its source as it is."""
    for candidate in candidates:
        student = candidate.student
        anchored = candidate.is_last and _reads_images(student)
        yield candidate._replace(is_last=candidate.is_last and not anchored)
        if anchored:
            yield Candidate(IDENTITY, IdentityRunner(student.condition, student.resolution), "", True)


def _direction_of(models):
    """Which of two sides models read, as their recipes say; A without one. The generator of the other direction, of a
    CycleGAN's run, reads the other side.

    Raises:
        UserError: where they read different sides.
    """
    found = {}
    for model in models:
        direction = getattr(getattr(recipe_of(model), "translation", None), "direction", DIRECTIONS[0])
        if _is_inverse(model):
            direction = DIRECTIONS[1 - DIRECTIONS.index(direction)]
        found[direction] = model
    if len(found) > 1:
        told = " and ".join(f"{model} is {direction}" for direction, model in found.items())
        raise UserError(f"--model: {told}; models of different directions are evaluated one by one")
    return next(iter(found))


def _is_inverse(model):
    return not _is_runner(model) and Path(model).name == INVERSE_FILE


def _teaching_student(model):
    """The generator that taught a model, as a runner; None where there is none."""
    recipe = None if _is_inverse(model) else recipe_of(model)
    student = build(recipe).teaching_student() if recipe else None
    return student and KerasRunner(student)


def _data_of(model, options):
    """The data set that a model was trained on, and the options with what it was read with, but for what is given."""
    data = getattr(recipe_of(model), "data", None)
    # Of a data set object a recipe has the name and the digest.
    if data is None or "@" in data.dataset:
        raise UserError("--dataset: missing; the model does not say what it was trained on")
    check_imported(data.dataset, "dataset", f"{model}'s {RECIPE_FILE}")
    told = {name: options.get(name) or getattr(data, name) for name in ("data_dir", "max_bad_examples")}
    logging.info("the data set of the model's recipe: %s %s", data.dataset, told["data_dir"])
    return data.dataset, {**options, **told}


def _checked_context(candidate, dataset, measures, given, direction):
    """A candidate's `EvaluationContext`, after every metric has been asked whether it suits it."""
    if _reads_images(candidate.student):
        context = TranslationContext(
            candidate.student, dataset, model_sha256=candidate.sha256, direction=direction, **given
        )
        for name, metric in measures.items():
            context.check_metric(name)
            metric.check(context)
        return context
    context = EvaluationContext(candidate.student, dataset, model_sha256=candidate.sha256, **given)
    if hasattr(candidate.student, "covering"):
        context = dataclasses.replace(context, student=candidate.student.covering(context.split("test")))
    for metric in measures.values():
        metric.check(context)
    return context


def _check_page(names):
    if not any(map(may_rate_pictures, names)):
        raise UserError(f"--page: none of --metrics rates pictures one by one; one of {', '.join(PICTURE_METRICS)}")


def _check(models, files, bootstrap, extractor):
    paths = [model for model in models if not _is_runner(model)]
    if not models or not all(paths):
        raise UserError("--model: missing")
    for path in paths:
        try:
            model_path(path)
        except UserError as error:
            raise UserError(f"--model: {error}") from None
    if len(set(map(str, paths))) < len(paths):
        raise UserError("--model: the same path twice")
    if extractor not in EXTRACTORS:
        raise UserError(f"--extractor: {extractor!r} is none of {', '.join(EXTRACTORS)}")
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
