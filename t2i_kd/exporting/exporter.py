"""From a trained student to a published version: convert, prove, and only then rename into place."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import keras

from t2i_kd.errors import DISK_REFUSES, UserError
from t2i_kd.exporting import fidelity, manifest
from t2i_kd.exporting.litert import convert_litert, takes_8_bit_activations
from t2i_kd.exporting.onnx import KINDS as ONNX_KINDS
from t2i_kd.exporting.onnx import convert_onnx, with_int8_weights
from t2i_kd.exporting.saved_model import write_saved_model
from t2i_kd.exporting.tf_serving import BATCHING, write_serving_files
from t2i_kd.files import read_text
from t2i_kd.locking import LOCK, only_process
from t2i_kd.quiet import quiet_converters
from t2i_kd.recipe import RECIPE_FILE
from t2i_kd.runners import (
    KerasRunner,
    LiteRTRunner,
    NotFiniteError,
    OnnxRunner,
    SavedModelRunner,
    core_inputs,
    require_any_item,
)

EXTRA = Path(manifest.EXTRA)
CALIBRATION_ITEMS = 64
CHECKED_ITEMS = 64


def no_report(line):
    """Says nothing."""


def export_run(
    run_dir, export_dir, version=1, overwrite=False, artifacts=tuple(manifest.FILES), report=no_report, truncation=1.0
):
    """Exports a run directory's student, with the typical items that its training left there.

    Args and errors as for `export_student`; also `UserError` when the run is not finished. `truncation` multiplies the
    student's noise. The run's `recipe.json` goes along where there is one; a student that was made by hand has none.
    """
    run_dir = Path(run_dir)
    check_export_dir(export_dir, version, overwrite)
    if not (run_dir / "student.keras").is_file():
        raise UserError(f"--run_dir: {run_dir} holds no student.keras; is its training finished?")
    from t2i_kd.student import load_student

    student = load_student(run_dir).truncated(truncation)
    items = student.condition.load_items(run_dir)
    recipe = read_text(run_dir / RECIPE_FILE) if (run_dir / RECIPE_FILE).exists() else ""
    return export_student(student, export_dir, items, version, overwrite, artifacts, report, truncation, recipe)


def export_student(
    student,
    export_dir,
    items,
    version=1,
    overwrite=False,
    artifacts=tuple(manifest.FILES),
    report=no_report,
    truncation=1.0,
    recipe="",
):
    """Writes `export_dir/version/`: SavedModel, TF Serving's files, LiteRT files, ONNX, condition, recipe, manifest.

    All is made and proven in a hidden folder beside the version and renamed at the end, so that a server which watches
    `export_dir` never sees half a version, and nothing appears when anything fails.

    Args:
        student: a `t2i_kd.student.Student` in float32.
        export_dir: `saved_models/NAME`; NAME is the model's name in the manifest.
        items: typical items of the student's condition, at least one. From some of them 8-bit ranges are taken, and
            servers warm up with them; on some, and on the condition's awkward ones, every artifact is compared with the
            Keras model, item i with seed i.
        version: number of the version.
        overwrite: replace the version if it exists.
        artifacts: which of `manifest.FILES` stand beside the SavedModel.
        report: called with one line of text at each step.
        truncation: what the student's noise is multiplied by already; for the manifest.
        recipe: the text of its `recipe.json`, which goes along; empty: none.

    Returns:
        The version's folder, a `pathlib.Path`.

    Raises:
        UserError: when the version exists, `export_dir` cannot be written, or the student cannot read new items.
        fidelity.FidelityError: when an artifact differs too much from the Keras model.
    """
    target = check_export(student.condition, export_dir, version, overwrite)
    with _locked(target):
        return _export_alone(student, target, items, artifacts, report, truncation, recipe)


@contextlib.contextmanager
def _locked(target):
    """Within it no other process exports this version; what a killed one left is removed."""
    with only_process(target.with_name(f".{target.name}{LOCK}"), f"--export_dir: {target}"):
        for left in (*target.parent.glob(f".exporting-{target.name}-*"), *_replaced(target)):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _replaced(target):
    """The versions that a killed export had moved aside; one that nothing has replaced moves back."""
    left = sorted(target.parent.glob(f".replaced-{target.name}-*"))
    if left and not target.exists():
        os.replace(left.pop(), target)
    return left


def _export_alone(student, target, items, artifacts, report, truncation, recipe):
    _prepare_backend()
    calibration = _spread(items, CALIBRATION_ITEMS)
    awkward = student.condition.awkward_items()
    checked = _spread(items, CHECKED_ITEMS - len(awkward)) + awkward
    temporary = target.with_name(f".exporting-{target.name}-{os.getpid()}")
    try:
        (temporary / EXTRA).mkdir(parents=True)
        _write_files(student, temporary, calibration, artifacts, recipe, report)
        with quiet_converters():
            write_serving_files(temporary, target.parent.name, student.condition, calibration)
        described = manifest.describe_student(student, target.parent.name, int(target.name), truncation, recipe)
        _write_manifest(student, temporary, described, checked, artifacts, report)
        _publish(temporary, target)
    except OSError as error:
        raise UserError(f"--export_dir: {target}: {error.strerror or error}") from None
    except Exception as error:
        # TensorFlow and its converters have their own words for a disk that refuses.
        reason = _disks_reason(error)
        if not reason:
            raise
        raise UserError(f"--export_dir: {target}: cannot write: {reason}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    report(f"Published {target}")
    return target


def _disks_reason(error):
    """What a disk says where an error, or what led to it, is a disk's; empty where it is not."""
    import tensorflow as tf

    said = re.compile("|".join(re.escape(os.strerror(number)) for number in DISK_REFUSES), re.IGNORECASE)
    while error is not None:
        kinds = (tf.errors.OpError, OSError, RuntimeError, ValueError)
        if getattr(error, "errno", None) in DISK_REFUSES:
            return os.strerror(error.errno)
        if isinstance(error, kinds) and (found := said.search(str(error))):
            return found[0]
        error = error.__cause__ or error.__context__
    return ""


def check_export(condition, export_dir, version=1, overwrite=False):
    """What `check_export_dir` does, and that a student with this condition can be exported by this process."""
    require_any_item(condition)
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={keras.backend.backend()}: exporting needs TensorFlow; run python -m t2i_kd.export "
            "--run_dir=... --export_dir=... where it is installed"
        )
    return check_export_dir(export_dir, version, overwrite)


def check_export_dir(export_dir, version=1, overwrite=False):
    """The version's folder, after making sure that it may be written; cheap enough to call before a training.

    Raises:
        UserError: naming the flag and the folder.
    """
    if version < 1:
        raise UserError(f"--version: {version} is not a positive number")
    target = Path(export_dir) / str(version)
    if target.exists() and not overwrite:
        raise UserError(
            f"--export_dir: {target} exists; --overwrite replaces it, and python -m t2i_kd.export --version=N writes "
            "another beside it"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--export_dir: {export_dir}: {error.strerror}") from None
    if not os.access(target.parent, os.W_OK):
        raise UserError(f"--export_dir: {export_dir}: not writable")
    return target


def _prepare_backend():
    import tensorflow as tf

    # On a GPU, convolutions in TF32 would move pixels by more than the proof allows.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def _write_files(student, folder, calibration, artifacts, recipe, report):
    report("Writing the SavedModel")
    with quiet_converters():
        write_saved_model(student, folder)
    contents = {}
    if kinds := [kind for kind in artifacts if kind not in ONNX_KINDS]:
        report(f"Converting to LiteRT: {', '.join(kinds)}")
        inputs = core_inputs(student.condition, student.noise_dim, calibration, range(len(calibration)))
        with quiet_converters():
            contents = convert_litert(student, inputs, kinds)
    if kinds := [kind for kind in artifacts if kind in ONNX_KINDS]:
        report(f"Converting to ONNX: {', '.join(kinds)}")
        with quiet_converters():
            contents["onnx"] = convert_onnx(student)
        if "onnx_int8" in kinds:
            contents["onnx_int8"] = with_int8_weights(contents["onnx"])
    extra = folder / EXTRA
    for kind in artifacts:
        (extra / manifest.FILES[kind]).write_bytes(contents[kind])
    student.condition.save(extra)
    if recipe:
        (extra / RECIPE_FILE).write_text(recipe, "utf-8")


def _write_manifest(student, folder, description, items, kinds, report):
    """Compares every artifact with the Keras model, and writes down what was found."""
    seeds = list(range(len(items)))
    try:
        expected = KerasRunner(student).generate(items, seeds)
    except NotFiniteError as error:
        raise fidelity.FidelityError(str(error)) from None

    def compared(kind):
        return fidelity.difference(expected, _open(kind, folder, student.condition, description).generate(items, seeds))

    artifacts = {}
    for kind in ("saved_model", *kinds):
        found = compared(kind)
        if kind == "litert_int8" and found.mean > fidelity.MOST_OF_CALIBRATED and takes_8_bit_activations(student):
            report(f"  {kind}: activations in 8 bits move pixels by {found.mean:.1f}/255 on average; now weights alone")
            with quiet_converters():
                content = convert_litert(student, None, (kind,))[kind]
            (folder / EXTRA / manifest.FILES[kind]).write_bytes(content)
            found = compared(kind)
        report(f"  {kind}: largest difference {found.largest}/255, mean {found.mean:.4f}/255")
        fidelity.check(kind, found)
        artifacts[kind] = manifest.describe_artifact(folder, _files_of(kind, folder), found)
    artifact_names = set(manifest.FILES.values())
    support = [EXTRA / path.name for path in sorted((folder / EXTRA).iterdir()) if path.name not in artifact_names]
    support.append(Path(BATCHING))
    description |= {"artifacts": artifacts, "support_files": manifest.describe_files(folder, support)}
    (folder / EXTRA / manifest.MANIFEST).write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def _open(kind, folder, condition, description):
    if kind == "saved_model":
        return SavedModelRunner(folder, condition, description)
    runner = OnnxRunner if kind in ONNX_KINDS else LiteRTRunner
    return runner(folder / EXTRA / manifest.FILES[kind], condition, description)


def _files_of(kind, folder):
    if kind in manifest.FILES:
        return [EXTRA / manifest.FILES[kind]]
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if EXTRA not in path.parents and path != Path(BATCHING)]


def _publish(temporary, target):
    replaced = None
    if target.exists():
        replaced = target.with_name(f".replaced-{target.name}-{os.getpid()}")
        os.replace(target, replaced)
    os.replace(temporary, target)
    if replaced:
        shutil.rmtree(replaced, ignore_errors=True)


def _spread(items, count):
    """`count` of the items at even distances; where there are fewer, some come again (with another seed)."""
    return [items[index * len(items) // count] for index in range(count)]
