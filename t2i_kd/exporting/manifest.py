"""`manifest.json`: what an exported version is, and each file's size, checksum and distance to the Keras model."""

import hashlib
import json
import re
from pathlib import Path, PurePosixPath

import t2i_kd
from t2i_kd.checksums import sha256_of
from t2i_kd.conditions.catalogue import CONDITIONS
from t2i_kd.errors import UserError
from t2i_kd.files import read_json

FORMAT_VERSION = 2
# Of the whole numbers of a manifest that is read.
LARGEST_NUMBER = 2**16
MANIFEST = "manifest.json"
EXTRA = "assets.extra"
# The artifacts beside the SavedModel, by kind.
FILES = {
    "litert": "student.tflite",
    "litert_float16": "student_float16.tflite",
    "litert_int8": "student_int8.tflite",
    "onnx": "student.onnx",
    "onnx_int8": "student_int8.onnx",
}


def describe_student(student, name, version, truncation=1.0, recipe=""):
    """The manifest's part about the student: all that a program needs to feed it, as JSON values.

    Args:
        student: a `t2i_kd.student.Student`.
        name, version: of the model.
        truncation: what the student's noise is multiplied by.
        recipe: the text of the recipe that it was trained by; empty where there is none.
    """
    import keras
    import tensorflow as tf

    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "version": version,
        "system": json.loads(recipe).get("system", "") if recipe else "",
        "made_with": {"t2i_kd": t2i_kd.__version__, "tensorflow": tf.__version__, "keras": keras.__version__},
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest() if recipe else "",
        "parameters": student.network.count_params(),
        "resolution": student.resolution,
        "noise_dim": student.noise_dim,
        "truncation": truncation,
        "condition": student.condition.describe(),
    }


def describe_files(folder, paths):
    """[{file, size in bytes, sha256}] of `paths`, each relative to the version's folder."""
    folder = Path(folder)
    return [
        {"file": path.as_posix(), "size": (folder / path).stat().st_size, "sha256": sha256_of(folder / path)}
        for path in map(Path, paths)
    ]


def describe_artifact(folder, paths, found):
    """The manifest's entry of one artifact: its files and its `fidelity.Difference`."""
    files = describe_files(folder, paths)
    return {
        "files": files,
        "size": sum(entry["size"] for entry in files),
        "largest_difference": found.largest,
        "mean_difference": round(found.mean, 6),
        "items": found.items,
    }


def read_manifest(path):
    """The manifest of an exported version.

    Raises:
        UserError: naming the file, when it is missing, no file, too large, not JSON, of another format, without what
            belongs to a manifest, or names a file outside its folder.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: missing; it belongs to every exported model")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: not a manifest of format {FORMAT_VERSION}; was it exported by another version of t2i_kd? Export "
            "the run again"
        )
    for key in ("artifacts", "support_files", "resolution", "noise_dim", "condition"):
        if key not in manifest:
            raise UserError(f"{path}: {key} is missing")
    kind = manifest["condition"].get("kind") if isinstance(manifest["condition"], dict) else None
    if not isinstance(kind, str) or kind not in CONDITIONS:
        raise UserError(f"{path}: asked with {str(kind)[:100]!r}; known are {', '.join(CONDITIONS)}")
    _check_values(path, manifest)
    return manifest


def _check_values(path, manifest):
    for key, least in (("resolution", 1), ("noise_dim", 0)):
        if type(manifest[key]) is not int or not least <= manifest[key] <= LARGEST_NUMBER:
            raise UserError(f"{path}: {key} is no whole number from {least} to {LARGEST_NUMBER}")
    vocabulary = manifest["condition"].get("vocabulary", "")
    if not isinstance(vocabulary, str) or Path(vocabulary).name != vocabulary:
        raise UserError(f"{path}: condition: vocabulary is no name of a file")
    artifacts = manifest["artifacts"]
    if not isinstance(artifacts, dict) or not all(isinstance(each, dict) for each in artifacts.values()):
        raise UserError(f"{path}: artifacts is no object of objects")
    for where, files in [
        ("support_files", manifest["support_files"]),
        *((k, v.get("files")) for k, v in artifacts.items()),
    ]:
        if not isinstance(files, list):
            raise UserError(f"{path}: {where[:100]}: the files are no list")
        for entry in files:
            _check_entry(f"{path}: {where[:100]}", entry)


def _check_entry(where, entry):
    """Raises `UserError` unless a manifest's entry names a file within the version's folder, its size and checksum."""
    name, size, digest = (entry.get(key) if isinstance(entry, dict) else None for key in ("file", "size", "sha256"))
    plain = isinstance(name, str) and name and not {"\0", "\\"} & set(name)
    if not plain or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(f"{where}: {str(name)[:100]!r} is not a file within the model's folder")
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise UserError(f"{where}: {name[:100]} has no size and SHA-256")


def check_file(path, entry):
    """Raises `UserError` unless the file at `path` has the size and checksum of its manifest entry."""
    path = Path(path)
    try:
        intact = path.stat().st_size == entry["size"] and sha256_of(path, entry["size"]) == entry["sha256"]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!a}: no file has such a name") from None
    if not intact:
        raise UserError(f"{path}: damaged: its checksum is not the one in {MANIFEST}")
