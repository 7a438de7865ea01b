"""What a start has found of a data set's files, kept for the next one: what has not changed is not read again."""

import hashlib
import json
import time
from pathlib import Path

import PIL
from absl import logging

import t2i_kd
from t2i_kd.data.decoding import readable_formats
from t2i_kd.imaging import write_file_atomically

# A file that changed less than this before it was read may change again without another time of change.
SETTLED_SECONDS = 2
SECONDS_BETWEEN_SAVES = 30
# The usual folder, and how a recipe says it on every machine.
AUTO, USUAL_FOLDER = "auto", "~/.cache/t2i_kd"


class CheckedFiles:
    """SHA-256 and soundness of files by their names and states, in one file of a folder.

    A state is a text that changes with the file: of a folder's file its size, time of modification and time of change,
    of a .zip's entry the archive's checksum and its sizes. What was found holds for this version of the package and of
    Pillow; a kept file that is damaged, or of other versions, counts as none. One that cannot be written is warned of.

    Args:
        folder: where the file is kept, made when it is first needed; `auto`: `USUAL_FOLDER`; empty or None keeps
            nothing.
        place: the data set's folder or archive, by which its file is found again.
        use: what the pictures are checked for, where that is more than that they can be decoded.
    """

    def __init__(self, folder, place, use=""):
        self._path, self._found, self._changed, self._saved = None, {}, False, time.monotonic()
        if folder:
            key = hashlib.sha256(f"{use}{Path(place).resolve()}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
            folder = USUAL_FOLDER if folder == AUTO else folder
            self._path = Path(folder).expanduser() / f"pictures-{key}.json"
            self._found = _read(self._path)

    def found(self, name, state):
        """(the file's SHA-256, what is wrong with it) of a file in this state; None where it was not seen so.

        What is wrong is empty for a whole picture, and None where only the SHA-256 was looked for.
        """
        known, sha256, wrong = self._found.get(name, (None, "", None))
        return (sha256, wrong) if state and known == state else None

    def keep(self, name, state, sha256, wrong):
        """Keeps what `found` will give. An empty state is that of a file that cannot be known again."""
        if state and self._path:
            self._found[name] = (state, sha256, wrong)
            self._changed = True

    def save_now_and_then(self):
        """Saves where that was not done for a while, so that a start that is stopped has not worked for nothing."""
        if time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self):
        """Writes what is new."""
        if not self._changed:
            return
        content = json.dumps({**_versions(), "files": dict(self._found)}).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file_atomically(self._path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        except OSError as error:
            logging.warning("--cache_dir: cannot write %s: %s", self._path, error.strerror or error)
        self._changed, self._saved = False, time.monotonic()


def settled(changed_ns):
    """Whether a file whose last change was then, in nanoseconds, shows its next one by another time."""
    return time.time() - changed_ns / 1e9 > SETTLED_SECONDS


def _versions():
    return {"t2i_kd": t2i_kd.__version__, "pillow": PIL.__version__, "formats": list(readable_formats())}


def _read(path):
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
        if checksum.decode("ascii", "replace") == hashlib.sha256(content).hexdigest():
            values = json.loads(content)
            files = values.pop("files")
            return files if values == _versions() else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        logging.warning("--cache_dir: cannot read %s: %s", path, error.strerror or error)
        return {}
    logging.warning("%s: damaged, made anew", path)
    return {}
