"""What every data set is to the rest of the project: pictures with captions, reachable by index; what a caption is."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from t2i_kd.errors import UserError

MAX_CAPTION_CHARACTERS = 2000


@dataclass(frozen=True)
class CaptionedImages:
    """A captioned set of images.

    Attributes:
        name: `DATASET/SPLIT`.
        images: `images[i]` is the i-th picture, uint8 RGB [resolution, resolution, 3] in 0-255: an array, or a
            reader that decodes on demand.
        captions: for each picture its captions, at least one, none empty.
        labels: int32 [n], each picture's class.
        label_names: the classes' names, by label.
        attributes: for each picture what is in it, by the attribute's name (`captioned_shapes`); else empty.
        file_names: each picture's path inside the set, where it came from a file; else empty.
    """

    name: str
    images: Sequence
    captions: tuple[tuple[str, ...], ...]
    labels: np.ndarray
    label_names: tuple[str, ...]
    attributes: tuple[dict[str, str], ...] = field(default=())
    file_names: tuple[str, ...] = ()

    def __len__(self):
        return len(self.captions)

    @property
    def all_captions(self):
        """Every caption of every picture, in order."""
        return [caption for captions in self.captions for caption in captions]


class Chosen(Sequence):
    """Some of a reader's pictures, in any order, as often as asked for.

    Attributes:
        indices: theirs in the reader.
    """

    def __init__(self, images, indices):
        self._images, self.indices = images, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self._images[self.indices[operator.index(index)]]


def check_caption(caption):
    """A user's caption, if it is one.

    Args:
        caption: str, or bytes in UTF-8.

    Returns:
        The caption as str, unchanged.

    Raises:
        UserError: when it is empty or blank, not UTF-8, or longer than 2,000 characters.
    """
    try:
        text = caption.decode("utf-8") if isinstance(caption, bytes) else caption
        text.encode("utf-8")
    except UnicodeError:
        raise UserError("caption: not UTF-8 text") from None
    if not text.strip():
        raise UserError("caption: empty")
    if len(text) > MAX_CAPTION_CHARACTERS:
        raise UserError(f"caption: {len(text)} characters, more than the {MAX_CAPTION_CHARACTERS} allowed")
    return text
