"""From a path to a student that draws: a version folder, a `.tflite`, an `.onnx` or a run directory.

Only a version folder and a run directory load TensorFlow and Keras; the other two need their own small runtime.
"""

from pathlib import Path

from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA, MANIFEST, check_file, read_manifest
from t2i_kd.exporting.runners import KerasRunner, LiteRTRunner, OnnxRunner, SavedModelRunner, require_any_text
from t2i_kd.text.tokenizer import Tokenizer

FILE_RUNNERS = {".tflite": LiteRTRunner, ".onnx": OnnxRunner}


def load_artifact(path, threads=0):
    """Opens a trained or exported student.

    Args:
        path: `saved_models/NAME/VERSION`, a run directory, or a `.tflite` or `.onnx` file, which needs the
            `manifest.json` and `vocabulary.txt` of its export beside it. Exported files are checked against the
            manifest's checksums.
        threads: that may work on one picture; 0 for the runtime's own choice. A run directory takes none.

    Returns:
        A `runners.Runner`, with `generate(captions, seeds)` and `resolution`.

    Raises:
        UserError: naming the file that is missing, damaged or no model, or the extra to install.
    """
    path = Path(path)
    try:
        if path.is_file():
            return _load_file(path, threads)
        if not path.is_dir():
            raise UserError(f"{path}: no such file or folder")
        return _load_folder(path, threads)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _load_folder(folder, threads):
    if (folder / "saved_model.pb").is_file():
        return SavedModelRunner(folder, check_saved_model(folder), threads)
    if (folder / "student.keras").is_file():
        from t2i_kd.student import load_student

        student = load_student(folder)
        require_any_text(student.front_end)
        return KerasRunner(student)
    versions = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit() and entry.is_dir())
    if versions:
        raise UserError(f"{folder}: holds versions of a model; give one of them: {folder / str(versions[-1])}")
    raise UserError(f"{folder}: neither a version folder (saved_model.pb) nor a finished run (student.keras)")


def check_saved_model(folder):
    """The manifest of a version folder whose SavedModel is whole.

    Raises:
        UserError: naming the file that is missing or has another checksum than the manifest says.
    """
    manifest = read_manifest(folder / EXTRA / MANIFEST)
    for entry in manifest["artifacts"]["saved_model"]["files"]:
        check_file(folder / entry["file"], entry)
    return manifest


def _load_file(path, threads):
    runner = FILE_RUNNERS.get(path.suffix)
    if runner is None:
        raise UserError(f"{path}: not a model; a version folder, a run directory, a .tflite or an .onnx is one")
    manifest = read_manifest(path.parent / MANIFEST)
    artifacts = manifest["artifacts"].values()
    entries = {Path(entry["file"]).name: entry for artifact in artifacts for entry in artifact["files"]}
    if path.name not in entries:
        raise UserError(f"{path}: not listed in the {MANIFEST} beside it")
    check_file(path, entries[path.name])
    return runner(path, _tokenizer(path, manifest), manifest, threads)


def _tokenizer(path, manifest):
    text = manifest["text"]
    if "tokenizer" not in text:
        raise UserError(f"{path}: reads vectors of {text['encoder']!r}, not captions; give the version folder instead")
    vocabulary = path.parent / "vocabulary.txt"
    for entry in manifest["support_files"]:
        if Path(entry["file"]).name == vocabulary.name:
            check_file(vocabulary, entry)
    return Tokenizer.load(vocabulary, text["tokenizer"], text["length"])
