"""The package from Python, without a command line: `t2i_kd.load`, `train`, `evaluate` and `export`.

Errors that the caller can mend are `UserError`s. What is imported here is imported when a function is called.
"""

import contextlib
import math
import time
from typing import NamedTuple

from t2i_kd.command_line import plain_path
from t2i_kd.errors import DISK_REFUSES, UserError, raise_all


class Trained(NamedTuple):
    """What `train` has done.

    Attributes:
        chief: whether this process alone writes; True without a cluster.
        finished: whether every stage is; False where the time was over before.
    """

    chief: bool
    finished: bool


def load(path, threads=0):
    """Opens a trained or exported student.

    Args:
        path: a version folder `saved_models/NAME/VERSION`, a run directory, a `.tflite` or an `.onnx` file; where there
            is no such path, the name of a model that comes with the package, such as `shapes32`.
        threads: that may work on one image; 0 for the runtime's own choice.

    Returns:
        A `t2i_kd.runners.Runner`: `generate(captions_or_images, seeds)` gives uint8 RGB [n, side, side, 3].

    Raises:
        UserError: naming the file that is missing, damaged or no model. A name that is none is answered with those
            that there are.
    """
    from t2i_kd.loading import load_artifact

    return load_artifact(plain_path(path, "model"), threads)


def train(
    recipe, run_dir, export_dir="", overwrite=False, dataset=None, distribute="none", max_minutes=None, report=None
):
    """Trains a recipe, or goes on with it where a stopped run of it lies in `run_dir`.

    TensorFlow's operations are made deterministic, for the process; Keras's random generator is seeded with the
    recipe's seed, and its counters of automatic names begin anew. Python's and NumPy's generators, and Keras's dtype
    policy, are afterwards as they were.

    Args:
        recipe: a `Recipe` of a system, such as `t2i_kd.sdn.SDNRecipe`.
        run_dir: the folder of the run.
        export_dir: where the student will be exported to: checked before the training begins.
        overwrite: an export may replace what is there.
        dataset: a data set object in place of the one that the recipe names; see `t2i_kd.data.from_arrays`.
        distribute: `none`, `mirrored` or `multi_worker`.
        max_minutes: after which the training ends early, at a checkpoint from which the same recipe goes on; the
            student is then what there is. None: never.
        report: called with each line about the data and what is seldom meant, once the run begins; None: nothing is
            said.

    Returns:
        A `Trained`.

    Raises:
        UserError: naming the option or file that is wrong.
    """
    from t2i_kd import systems
    from t2i_kd.training.determinism import begin_names_anew, make_deterministic
    from t2i_kd.training.distribution import check_batch_size, ending_with_the_cluster, is_chief, make_strategy
    from t2i_kd.training.memory import keep_freed_memory
    from t2i_kd.training.precision import AUTO
    from t2i_kd.training.run_directory import as_begun, open_run_directory, run_directory_locked
    from t2i_kd.training.system import random_state_restored

    began = time.monotonic()
    run_dir, export_dir = plain_path(run_dir, "run_dir"), plain_path(export_dir, "export_dir")
    if max_minutes is not None and not 0 < max_minutes < math.inf:
        raise UserError(f"--max_minutes: {max_minutes:g} is not positive and finite")
    if max_minutes and distribute == "multi_worker":
        raise UserError("--max_minutes: the workers of --distribute=multi_worker would not stop at one step")
    if recipe.training.dtype_policy == AUTO and distribute == "multi_worker":
        raise UserError("--dtype_policy=auto: the workers of multi_worker might each find another; name one")
    recipe = as_begun(run_dir, recipe)
    keep_freed_memory()
    strategy = make_strategy(distribute)
    make_deterministic()
    if strategy is None:
        begin_names_anew()
    scope = strategy.scope() if strategy else contextlib.nullcontext()
    with random_state_restored(), scope, contextlib.ExitStack() as held:
        check_batch_size(recipe.training.batch_size)
        system = systems.build(recipe, dataset=dataset)
        system.prepare()
        if export_dir:
            check_exportable(system, export_dir, overwrite)
        if is_chief():
            held.enter_context(run_directory_locked(run_dir))
            open_run_directory(run_dir, system.recipe, system.inputs(), system.plans)
            for line in system.describe_start() if report else ():
                report(line)
        try:
            with ending_with_the_cluster():
                finished = system.train(run_dir, began + 60 * max_minutes if max_minutes else math.inf)
        except OSError as error:
            if error.errno not in DISK_REFUSES:
                raise
            raise UserError(f"--run_dir: cannot write into {run_dir}: {error.strerror}") from None
        return Trained(is_chief(), finished)


def check_exportable(system, export_dir, overwrite=False):
    """Raises `UserError` where a system's student could not be exported there."""
    from t2i_kd.exporting.exporter import check_export

    if not system.makes_student:
        raise UserError(f"--export_dir: {system.recipe.system} makes no generator that could be exported")
    check_export(system.condition, export_dir, overwrite=overwrite)


def describe(recipe, dataset=None, cost=False):
    """The lines of `--dry_run`: the recipe, and of its system all that can be known here.

    `cost` also trains a few steps of each stage, to say how long the whole will take.

    Yields:
        Lines of text.

    Raises:
        UserError: after the last line, naming everything that is missing or wrong.
    """
    from t2i_kd import systems
    from t2i_kd.training.system import random_state_restored

    yield recipe.to_json().rstrip("\n")
    missing = []
    with random_state_restored():
        system = systems.build(recipe, dataset=dataset)
        for part in system.descriptions():
            try:
                yield from part()
            except UserError as error:
                missing.append(str(error))
        if cost and not missing:
            yield from system.describe_cost()
    raise_all(missing)


def export(run_dir, export_dir, version=1, overwrite=False, artifacts=None, truncation=1.0, report=None):
    """Exports a finished run as SavedModel, LiteRT and ONNX, and proves that they agree.

    Args:
        run_dir: the folder of a finished run.
        export_dir: `saved_models/NAME`.
        version: number of the version, a folder in it.
        overwrite: replace the version if it exists.
        artifacts: which kinds of `t2i_kd.exporting.manifest.FILES` stand beside the SavedModel; None: all.
        truncation: factor on the student's noise, 0 to 1.
        report: called with one line of text at each step; None: nothing is said.

    Returns:
        The version's folder, a `pathlib.Path`.

    Raises:
        UserError: naming the option or file that is wrong.
        t2i_kd.exporting.fidelity.FidelityError: when an artifact differs too much from the Keras model.
    """
    from t2i_kd.exporting.exporter import export_run, no_report
    from t2i_kd.exporting.manifest import FILES

    run_dir, export_dir = plain_path(run_dir, "run_dir"), plain_path(export_dir, "export_dir")
    kinds = tuple(FILES) if artifacts is None else tuple(artifacts)
    for kind in kinds:
        if kind not in FILES:
            raise UserError(f"--artifacts: {kind!r} is none of {', '.join(FILES)}")
    return export_run(run_dir, export_dir, version, overwrite, kinds, report or no_report, truncation)


def evaluate(models, dataset, metrics, **options):
    """Measures trained or exported students; see `t2i_kd.evaluation.evaluate`.

    Args:
        models: a path or a name, as for `load`, an object with `generate(items, seeds)` and `resolution`, or a list of
            several, which are compared with the first.
        dataset: the name of a data set, or a data set object; see `t2i_kd.data.from_arrays`.
        metrics: names, a list or one string with commas between them.
        options: of `t2i_kd.evaluation.evaluate`.

    Returns:
        The report, a dict.

    Raises:
        UserError: naming the option or file that is wrong.
    """
    from t2i_kd.evaluation import evaluate as measure

    return measure(models, dataset, metrics, **options)
