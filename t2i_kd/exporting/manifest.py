"""`manifest.json`: what an exported version is, and each file's size, checksum and distance to the Keras model."""

import hashlib
import json
from pathlib import Path

import t2i_kd
from t2i_kd.conditions.catalogue import CONDITIONS
from t2i_kd.errors import UserError

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
EXTRA = "assets.extra"
# The artifacts beside the SavedModel, by kind.
FILES = {
    "litert": "student.tflite",
    "litert_float16": "student_float16.tflite",
    "litert_int8": "student_int8.tflite",
    "onnx": "student.onnx",
}


def sha256_of(path):
    """A file's SHA-256 in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        UserError: naming the file, when it is missing, not JSON, or of another format.
    """
    path = Path(path)
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; it belongs to every exported model") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: unreadable: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: not a manifest of format {FORMAT_VERSION}; was it exported by another version of t2i_kd? Export "
            "the run again"
        )
    for key in ("artifacts", "support_files", "resolution", "noise_dim", "condition"):
        if key not in manifest:
            raise UserError(f"{path}: {key} is missing")
    kind = manifest["condition"].get("kind") if isinstance(manifest["condition"], dict) else None
    if kind not in CONDITIONS:
        raise UserError(f"{path}: asked with {kind!r}; known are {', '.join(CONDITIONS)}")
    return manifest


def check_file(path, entry):
    """Raises `UserError` unless the file at `path` has the size and checksum of its manifest entry."""
    path = Path(path)
    try:
        intact = path.stat().st_size == entry["size"] and sha256_of(path) == entry["sha256"]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not intact:
        raise UserError(f"{path}: damaged: its checksum is not the one in {MANIFEST}")
