"""What every condition offers: checks of items, and the way from an item to the student's inputs."""

import abc
import json
from dataclasses import dataclass
from pathlib import Path

from t2i_kd.imaging import write_file_atomically

FORMAT_VERSION = 1
CONDITION_FILE = "condition.json"


@dataclass(frozen=True)
class Input:
    """One of a student's inputs.

    Attributes:
        shape: without the batch.
        dtype: `int32` or `float32`.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Limits:
    """The bounds that suit one kind of item, where strangers send them; an endpoint's flags set others.

    Attributes:
        max_item_bytes: of one item as it is sent.
        max_body_bytes: of a whole request.
        max_items_per_request: in a request.
        max_pending_items: waiting at once.
        max_connections: at once.
    """

    max_item_bytes: int
    max_body_bytes: int
    max_items_per_request: int
    max_pending_items: int
    max_connections: int


class Condition(abc.ABC):
    """What a student is asked with.

    Attributes:
        kind: `caption` or `image`; its name in `condition.json`.
        request: the string input of the SavedModel's `serving_default`: `text` or `image_bytes`.
        core: the input of the SavedModel's `pixels`: `text`, string [batch], or `image`, uint8 [batch, H, W, 3].
        limits: `Limits` of an endpoint that serves it.
        quick: whether `check_request` takes microseconds, so that no other request need wait for it.
        reads_any: whether items that training did not know can be read, and `in_graph` exists.
    """

    kind: str
    request: str
    core: str
    limits: Limits
    quick = True
    reads_any = True

    @property
    @abc.abstractmethod
    def inputs(self):
        """{name: `Input`} of the student's inputs, noise left out."""

    @staticmethod
    @abc.abstractmethod
    def check_request(data):
        """A request's item, bytes, as the graph is to read it. Raises `UserError` where it cannot."""

    @abc.abstractmethod
    def check(self, item):
        """An item as the other methods read it. Raises `UserError` where it is none."""

    @abc.abstractmethod
    def arrays(self, items):
        """Items to the student's inputs outside any graph: {name: array [items, *shape]}."""

    @abc.abstractmethod
    def encode(self, items):
        """Items as requests: a list of bytes."""

    @abc.abstractmethod
    def in_graph(self, requests):
        """`arrays` inside a TensorFlow graph: string [batch] -> {name: tensor [batch, *shape]}."""

    @abc.abstractmethod
    def core_spec(self):
        """The `tf.TensorSpec` of `core`, with any batch."""

    @abc.abstractmethod
    def core_values(self, items):
        """Items as the values of `core`: something that `tf.constant` takes."""

    @abc.abstractmethod
    def core_in_graph(self, values):
        """The values of `core` to {name: tensor [batch, *shape]}."""

    def in_graph_module(self):
        """The `tf.Module` that owns the tables and variables of `in_graph`, or None; an export must track it."""
        return None

    @abc.abstractmethod
    def label(self, item):
        """What stands under an item's image on a sheet: a line of text."""

    def unread(self, item):
        """What of an item the student cannot read, each a line for whoever asked; nothing where all is read."""
        return []

    @abc.abstractmethod
    def awkward_items(self):
        """Items that users send and no training set has; every export is proven on them too."""

    @abc.abstractmethod
    def save_items(self, items, folder):
        """Keeps typical items in a run directory, for its export."""

    @abc.abstractmethod
    def load_items(self, folder):
        """The items that `save_items` kept. Raises `UserError` that names the file."""

    def covering(self, dataset):
        """A condition that also reads `dataset`'s items, and fast: itself, unless vectors are kept an item."""
        return self

    @abc.abstractmethod
    def describe(self):
        """All that a program must know to make the student's inputs, as JSON values."""

    def save(self, folder):
        """Writes `condition.json`, and what belongs to it, into a folder; `catalogue.load_condition` reads it."""
        text = json.dumps({"format_version": FORMAT_VERSION, **self.describe()}, indent=2) + "\n"
        write_file_atomically(Path(folder) / CONDITION_FILE, text.encode("utf-8"))

    def _described(self, **more):
        inputs = {name: {"shape": list(each.shape), "dtype": each.dtype} for name, each in self.inputs.items()}
        return {"kind": self.kind, "request": self.request, "inputs": inputs, **more}
