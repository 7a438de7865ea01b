"""From a path or a name to a student that generates images: a version folder, a `.tflite`, an `.onnx`, a run directory
or a `.keras` in one.

Only a version folder and a run load TensorFlow and Keras; the other two need their own small runtime.
"""

from pathlib import Path

from t2i_kd.conditions.base import CONDITION_FILE
from t2i_kd.conditions.catalogue import load_condition
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA, MANIFEST, check_file, read_manifest
from t2i_kd.runners import KerasRunner, LiteRTRunner, OnnxRunner, SavedModelRunner, require_any_item
from t2i_kd.shipped import model_path
from t2i_kd.trust import SAVED_MODEL, check_graph
from t2i_kd.versions import find_versions

# Folders of a SavedModel beside its graph.
SAVED_PARTS = ("variables", "assets")
FILE_RUNNERS = {".tflite": LiteRTRunner, ".onnx": OnnxRunner}


def load_artifact(path, threads=0):
    """Opens a trained or exported student.

    Args:
        path: `saved_models/NAME/VERSION`, a run directory, a `.keras` file in one, such as a stage's `best.keras`, or a
            `.tflite` or `.onnx` file, which needs the `manifest.json`, `condition.json` and vocabulary of its export
            beside it; or the name of a model that comes with the package, see `shipped.model_path`. Exported files are
            checked against the manifest's checksums.
        threads: that may work on one image; 0 for the runtime's own choice. A run takes none.

    Returns:
        A `runners.Runner`, with `generate(items, seeds)`, `condition` and `resolution`.

    Raises:
        UserError: naming the file that is missing, damaged or no model, a graph that does more than compute (see
            `trust.check_graph`), or the extra to install.
    """
    path = model_path(path)
    try:
        if path.is_file():
            return _load_file(path, threads)
        if not path.is_dir():
            raise UserError(f"{path}: not a file or folder")
        return _load_folder(path, threads)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _load_folder(folder, threads):
    if (folder / SAVED_MODEL).is_file():
        manifest = check_saved_model(folder)
        check_graph(folder)
        return SavedModelRunner(folder, load_listed_condition(folder / EXTRA, manifest), manifest, threads)
    if (folder / "student.keras").is_file():
        return _trained(folder, "student.keras")
    versions = find_versions(folder)
    if versions:
        raise UserError(f"{folder}: holds versions of a model; give one of them: {versions[max(versions)]}")
    raise UserError(f"{folder}: neither a version folder ({SAVED_MODEL}) nor a finished run (student.keras)")


def load_listed_condition(extra, manifest):
    """The condition of an exported student.

    Args:
        extra: the folder of its files.
        manifest: from `read_manifest`.

    Raises:
        UserError: when a file is missing, wrong, not listed in the manifest, or has another checksum.
    """
    listed = {Path(entry["file"]).name: entry for entry in manifest["support_files"]}
    for name in (CONDITION_FILE, manifest["condition"].get("vocabulary")):
        if name and name not in listed:
            raise UserError(f"{extra / MANIFEST}: does not list {name}")
        if name:
            check_file(extra / name, listed[name])
    return load_condition(extra)


def check_saved_model(folder):
    """The manifest of a version folder whose SavedModel is whole.

    Raises:
        UserError: naming the file that is missing or has another checksum than the manifest says.
    """
    manifest = read_manifest(folder / EXTRA / MANIFEST)
    if "saved_model" not in manifest["artifacts"]:
        raise UserError(f"{folder / EXTRA / MANIFEST}: lists no saved_model")
    entries = {entry["file"]: entry for entry in manifest["artifacts"]["saved_model"]["files"]}
    # What TensorFlow reads, whether listed or not.
    read = [folder / SAVED_MODEL, *(path for part in SAVED_PARTS for path in (folder / part).rglob("*"))]
    for path in read:
        if path.relative_to(folder).as_posix() not in entries and not path.is_dir():
            raise UserError(f"{folder / EXTRA / MANIFEST}: does not list {path.relative_to(folder).as_posix()}")
    for name, entry in entries.items():
        check_file(folder / name, entry)
    return manifest


def _trained(folder, file):
    from t2i_kd.student import load_student

    student = load_student(folder, file)
    require_any_item(student.condition)
    return KerasRunner(student)


def _load_file(path, threads):
    if path.suffix == ".keras":
        folder = next((parent for parent in path.parents if (parent / CONDITION_FILE).is_file()), None)
        if folder is None:
            raise UserError(f"{path}: no folder above it holds the {CONDITION_FILE} of a run")
        return _trained(folder, path.relative_to(folder))
    runner = FILE_RUNNERS.get(path.suffix)
    if runner is None:
        raise UserError(
            f"{path}: not a model; a version folder, a run directory, a .keras, a .tflite or an .onnx is one"
        )
    manifest = read_manifest(path.parent / MANIFEST)
    artifacts = manifest["artifacts"].values()
    entries = {Path(entry["file"]).name: entry for artifact in artifacts for entry in artifact["files"]}
    if path.name not in entries:
        raise UserError(f"{path}: not listed in the {MANIFEST} beside it")
    check_file(path, entries[path.name])
    return runner(path, load_listed_condition(path.parent, manifest), manifest, threads)
