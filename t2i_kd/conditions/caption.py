"""A caption as the condition: text in, token ids or a vector out."""

from dataclasses import dataclass
from pathlib import Path

from t2i_kd.conditions.base import Condition, Input, Limits
from t2i_kd.data.captioned_images import check_caption
from t2i_kd.errors import UserError
from t2i_kd.files import read_text
from t2i_kd.imaging import write_file_atomically
from t2i_kd.text.base import TextFrontEnd
from t2i_kd.text.front_end import load_front_end

NAMED_TOKENS = 20
CAPTIONS_FILE = "captions.txt"
AWKWARD_CAPTIONS = ("  UPPER case,with punctuation!?", "ein rotes Fünfeck 红色 🟥", "it's", "unknown " * 60)


def _named(tokens):
    """Tokens between quotation marks, each once, up to `NAMED_TOKENS`."""
    each = list(dict.fromkeys(tokens))
    more = f" and {len(each) - NAMED_TOKENS} more" if len(each) > NAMED_TOKENS else ""
    return ", ".join(f"'{token}'" for token in each[:NAMED_TOKENS]) + more


@dataclass(frozen=True)
class CaptionCondition(Condition):
    """Captions, read by a text front end. Items are strings.

    Attributes:
        front_end: `TextFrontEnd`.
    """

    front_end: TextFrontEnd

    kind = "caption"
    request = "text"
    core = "text"
    # 8,000 bytes are 2,000 characters of any script.
    limits = Limits(8000, 1 << 20, 64, 1024, 256)

    @property
    def reads_any(self):
        return self.front_end.reads_any_text

    @property
    def inputs(self):
        front_end = self.front_end
        return {front_end.input_name: Input(tuple(front_end.input_shape), front_end.input_dtype)}

    @staticmethod
    def check_request(data):
        check_caption(data)
        return data

    def check(self, item):
        return check_caption(item)

    def arrays(self, items):
        return {self.front_end.input_name: self.front_end.features(items)}

    def encode(self, items):
        return [item.encode("utf-8") for item in items]

    def in_graph(self, requests):
        return {self.front_end.input_name: self.front_end.in_graph(requests)}

    def core_spec(self):
        import tensorflow as tf

        return tf.TensorSpec([None], tf.string, name=self.core)

    def core_values(self, items):
        return self.encode(items)

    def core_in_graph(self, values):
        return self.in_graph(values)

    def in_graph_module(self):
        return self.front_end.in_graph_module()

    def label(self, item):
        return item

    def unread(self, item):
        tokenizer = self.front_end.tokenizer
        unknown, beyond = tokenizer.unread(item) if tokenizer else ((), ())
        unit = getattr(tokenizer, "kind", "")
        lines = []
        if unknown:
            lines.append(f"the student does not know {_named(unknown)}")
        if beyond:
            lines.append(f"the student reads {tokenizer.length} {unit}, not {_named(beyond)}")
        return lines

    def awkward_items(self):
        return list(AWKWARD_CAPTIONS)

    def save_items(self, items, folder):
        # A line is a caption: a line separator within one becomes a space.
        lines = [" ".join(item.splitlines()) for item in items]
        write_file_atomically(Path(folder) / CAPTIONS_FILE, ("\n".join(lines) + "\n").encode("utf-8"))

    def load_items(self, folder):
        path = Path(folder) / CAPTIONS_FILE
        captions = [line for line in read_text(path).splitlines() if line.strip()]
        if not captions:
            raise UserError(f"{path}: holds no caption")
        return captions

    def covering(self, dataset):
        return CaptionCondition(self.front_end.covering(dataset))

    def describe(self):
        return self._described(**self.front_end.describe())

    def save(self, folder):
        self.front_end.save(folder)
        super().save(folder)

    @classmethod
    def load(cls, folder, described):
        """The condition of `describe()`'s values and the vocabulary in the folder."""
        return cls(load_front_end(folder, described))
