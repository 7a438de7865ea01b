"""A model's folder on disk: what tells that a version has changed, and what the model is asked with."""

from pathlib import Path

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.conditions.catalogue import CONDITIONS
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA, MANIFEST, read_manifest
from t2i_kd.versions import find_versions


def find_condition(base):
    """The `Condition` class of the newest version whose manifest can be read; captions where there is none.

    Raises:
        UserError: when there is no such folder.
    """
    if not Path(base).is_dir():
        raise UserError(f"--model_base_path: the folder {base} does not exist")
    for _, folder in sorted(find_versions(base).items(), reverse=True):
        try:
            return CONDITIONS[read_manifest(folder / EXTRA / MANIFEST)["condition"]["kind"]]
        except UserError:
            continue
    return CaptionCondition


def fingerprint(folder):
    """Changes with every file that is added, removed or written, and with nothing else; a folder that cannot be read
    is known by the reason."""
    try:
        return tuple((str(path), *_state(path)) for path in sorted(folder.rglob("*")))
    except OSError as error:
        return str(error)


def _state(path):
    try:
        found = path.stat()
    except OSError:
        # A link to nothing is seen as what it is.
        found = path.lstat()
    return found.st_size, found.st_mtime_ns
