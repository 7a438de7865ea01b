"""What every reader of files shares: examples are checked one by one, then reachable by index."""

import hashlib
import operator
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from absl import logging

from t2i_kd.data.captioned_images import CaptionedImages, check_caption
from t2i_kd.data.decoding import decode_square
from t2i_kd.errors import UserError

# Decoded pictures kept in memory; what goes beyond is decoded from its file at each use.
CACHE_BYTES = 2**30
SECONDS_BETWEEN_PROGRESS = 5
# So many more bad examples than are allowed are counted; each has a line that says what is wrong.
MOST_TOLD = 100_000


@dataclass(frozen=True)
class Example:
    """A picture and its captions as a reader found them, unchecked.

    Attributes:
        name: file name; names the example in reports and orders the set.
        captions: text, or bytes that should be UTF-8.
        label: the picture's class.
        read: gives the encoded picture, or raises `UserError` with the reason.
    """

    name: str
    captions: Sequence[str | bytes]
    label: int
    read: Callable[[], bytes]

    def picture(self, encoded, resolution):
        """The picture of what `read` gives, at a resolution; see `decode_square`, and its errors."""
        return decode_square(encoded, resolution)


class Pictures(Sequence):
    """`pictures[i]` is a read-only uint8 RGB [resolution, resolution, 3]: from memory, or decoded at each use.

    Raises:
        UserError: naming the picture, where one that is decoded at its use cannot be read.
    """

    def __init__(self, held, resolution):
        """`held`: for each picture its array, or what reads it: `name`, `read` and `picture`, as `Example` has."""
        self._held = held
        self._resolution = resolution

    def __len__(self):
        return len(self._held)

    def __getitem__(self, index):
        held = self._held[operator.index(index)]
        if isinstance(held, np.ndarray):
            return held
        try:
            return held.picture(held.read(), self._resolution)
        except UserError as error:
            raise UserError(f"{held.name} {error}") from None


def collect(
    name,
    examples: Iterable[Example],
    label_names,
    resolution,
    max_bad_examples=0,
    total=0,
    decode=True,
    skipped=(),
    origin="",
):
    """A data set of the examples that pass: every picture is decoded once and every caption checked.

    A picture that cannot be decoded is left out; so is a caption that is empty, too long or not UTF-8, and a picture
    without a caption left. Each is counted, and all are named in a warning. Pictures are ordered by name. The first
    `CACHE_BYTES` of decoded pictures stay in memory; no other ones replace them, because training visits every
    picture equally often.

    Args:
        name: `DATASET/SPLIT`.
        examples: what the reader found.
        label_names: the classes' names, by label.
        resolution: side of the pictures.
        max_bad_examples: how many bad pictures and captions may be left out.
        total: number of examples, for the progress lines; 0 where it is unknown.
        decode: without, no picture is read here, and none is kept: each is decoded at every use, and one that cannot
            be decoded stays in the set until its use raises `UserError`.
        skipped: what the reader has left out already, each a name with its reason; they count as bad.
        origin: where the splits come from, see `CaptionedImages`.

    Raises:
        UserError: naming the first bad example, its reason and how many there are, where there are too many.
    """
    bad, good = list(skipped), []
    capacity = held_pictures(resolution) if decode else 0
    progress = Progress(name, total)
    for example in examples:
        captions = _good_captions(example, bad)
        picture, digest = decoded(example, resolution, bad) if decode else (None, "")
        if captions and (picture is not None or not decode):
            kept = picture if len(good) < capacity else example
            good.append((example.name, captions, example.label, kept, digest))
        progress.advance()
        if len(bad) > max_bad_examples + MOST_TOLD:
            break
    report_bad(name, bad, max_bad_examples)
    good.sort(key=operator.itemgetter(0))
    return CaptionedImages(
        name=name,
        images=Pictures([kept for *_, kept, _ in good], resolution),
        captions=tuple(captions for _, captions, *_ in good),
        labels=np.array([label for _, _, label, *_ in good], dtype=np.int32),
        label_names=tuple(label_names),
        file_names=tuple(file_name for file_name, *_ in good),
        origin=origin,
        digests=tuple(digest for *_, digest in good) if decode else (),
    )


def _good_captions(example, bad):
    """The captions that pass; what is wrong with the others is added to `bad`."""
    captions = []
    if not example.captions:
        bad.append(f"{example.name} has no caption")
    for caption in example.captions:
        try:
            captions.append(check_caption(caption))
        except UserError as error:
            bad.append(f"{example.name}: {error}")
    return tuple(captions)


def decoded(example, resolution, bad):
    """An example's picture, read-only, and its file's SHA-256; None where it cannot be decoded, `bad` gets the reason.

    Args:
        example: what has `name`, `read` and `picture(encoded, resolution)`.
        resolution: side of the picture.
        bad: list of reasons.
    """
    try:
        encoded = example.read()
        picture = example.picture(encoded, resolution)
    except UserError as error:
        bad.append(f"{example.name} {error}")
        return None, ""
    picture.flags.writeable = False
    return picture, hashlib.sha256(encoded).hexdigest()


def held_pictures(resolution):
    """How many decoded pictures of a resolution are kept in memory."""
    return CACHE_BYTES // (3 * resolution**2)


def report_bad(name, bad, max_bad_examples):
    """Warns of the examples that are left out, a list of reasons. Raises `UserError` where there are too many."""
    if len(bad) > max_bad_examples:
        raise UserError(
            f"--max_bad_examples: {len(bad)} bad pictures or captions in {name}, {max_bad_examples} allowed; "
            f"the first: {bad[0]}"
        )
    if bad:
        logging.warning("%s: %d bad pictures or captions left out:\n  %s", name, len(bad), "\n  ".join(bad))


class Progress:
    """Says every few seconds how many examples are checked; silent for a set that is read sooner."""

    def __init__(self, name, total):
        self._name, self._of = name, f" of {total:,}" if total else ""
        self._count, self._said = 0, time.monotonic()

    def advance(self):
        self._count += 1
        if time.monotonic() - self._said > SECONDS_BETWEEN_PROGRESS:
            self._said = time.monotonic()
            logging.info("%s: %s%s pictures checked", self._name, f"{self._count:,}", self._of)
