"""What a run has read, as digests: a run belongs to its data, vocabulary, embeddings and pretrained weights.

`run_dir/inputs.json` keeps them from the run's beginning. Paths are not among them: what was moved, packed or spelt
otherwise is the same as long as its content is.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from t2i_kd.checksums import sha256_of
from t2i_kd.data.captioned_images import digest_of
from t2i_kd.errors import UserError
from t2i_kd.files import read_json, reason

INPUTS_FILE = "inputs.json"
FORMAT_VERSION = 1
# Of the file, in bytes: a line an example.
LARGEST_INPUTS = 2**27
# An example's digest is for naming what changed; this many hexadecimal digits tell examples of one set apart.
EXAMPLE_DIGITS = 16


@dataclass(frozen=True)
class Inputs:
    """Digests of what a run reads.

    Attributes:
        examples: {name of a training example: digest of its picture, its captions and its label}, in training's order.
        held_out: digest of the held-out examples' names, captions and labels; no weight depends on them.
        networks: {what: SHA-256} of the text's reading and the pretrained weights; see `System.inputs`.
    """

    examples: dict[str, str] = field(default_factory=dict)
    held_out: str = ""
    networks: dict[str, str] = field(default_factory=dict)

    def to_json(self):
        """The text of `inputs.json`."""
        values = {"format_version": FORMAT_VERSION, "held_out": self.held_out, "networks": self.networks}
        return json.dumps({**values, "examples": self.examples}, indent=1) + "\n"

    @classmethod
    def load(cls, path):
        """What `to_json` wrote. Raises `UserError` that names the file."""
        try:
            values = read_json(path, LARGEST_INPUTS)
            if values.pop("format_version") != FORMAT_VERSION:
                raise ValueError("another format")
            inputs = cls(**values)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: not the inputs of a run of this version of t2i_kd: {reason(error)}") from None
        digests = [inputs.held_out]
        for each in (inputs.examples, inputs.networks):
            digests += each.values() if isinstance(each, dict) else [None]
        if not all(isinstance(digest, str) for digest in digests):
            raise UserError(f"{path}: not the inputs of a run of this version of t2i_kd: a digest is no text")
        return inputs


def example_digests(datasets):
    """`Inputs.examples` of one data set or several.

    A picture counts by its file's bytes where it came from a file, else by its pixels. The order of a set, which
    decides the batches, is that of the names.

    Args:
        datasets: a list of `CaptionedImages` or `ImagePairs`.

    Returns:
        {name: hexadecimal digits}.
    """
    found = {}
    for number, dataset in enumerate(datasets):
        for name, described in dataset.described():
            key = name if len(datasets) == 1 else f"{number}/{name}"
            found[key] = _sha256(described)[:EXAMPLE_DIGITS]
    return found


def captions_digest(datasets):
    """SHA-256 over the names, captions and labels of data sets whose pictures are not read."""
    return _sha256([each.named() for each in datasets])


def _sha256(values):
    return hashlib.sha256(json.dumps(values).encode("utf-8", "surrogatepass")).hexdigest()


def network_digest(model):
    """SHA-256 over a network's weights and, where they are named, its outputs' names and shapes."""
    sha256 = hashlib.sha256(digest_of(*model.get_weights()).encode())
    outputs = model.output if isinstance(getattr(model, "output", None), dict) else {}
    for name, output in sorted(outputs.items()):
        sha256.update(f"{name}{tuple(output.shape[1:])}".encode())
    return sha256.hexdigest()


def file_digest(path):
    """SHA-256 of a file, or of all files of a folder with their names."""
    path, sha256 = Path(path), hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            sha256.update(f"{each.relative_to(path).as_posix()} {sha256_of(each)}\n".encode())
    return sha256.hexdigest()


def data_differences(theirs, ours):
    """What is told of examples that are not those of the run: how many, and the first; empty where all are."""
    if list(theirs.items()) == list(ours.items()):
        return ""
    changed = [name for name in theirs if name in ours and theirs[name] != ours[name]]
    gone = [name for name in theirs if name not in ours]
    new = [name for name in ours if name not in theirs]
    kinds = {"changed": changed, "gone": gone, "new": new}
    told = [f"{len(names):,} {kind} (the first: {names[0]})" for kind, names in kinds.items() if names]
    return ", ".join(told) or "another order"
