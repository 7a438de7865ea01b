"""What every reader of files shares: examples are checked one by one, then reachable by index."""

import contextlib
import functools
import gc
import hashlib
import operator
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from absl import logging

from t2i_kd.data.captioned_images import CaptionedImages, check_caption
from t2i_kd.data.decoding import decode_square
from t2i_kd.data.sources import SourceFile
from t2i_kd.errors import UserError
from t2i_kd.processors import usable_cores

# Decoded pictures kept in memory; what goes beyond is decoded from its file at each use.
CACHE_BYTES = 2**30
# How many pictures are decoded before they are asked for.
AHEAD_PER_CORE = 8
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
        read: gives the encoded picture, or raises `UserError` with the reason. Where it is a `SourceFile`, what is
            found of the file is kept, and looked up at the next start.
    """

    name: str
    captions: Sequence[str | bytes]
    label: int
    read: Callable[[], bytes]

    def picture(self, encoded, resolution):
        """The picture of what `read` gives, at a resolution; see `decode_square`, and its errors."""
        return decode_square(encoded, resolution)


class Pictures(Sequence):
    """`pictures[i]` is a read-only uint8 RGB [resolution, resolution, 3]: from memory, or decoded at its use.

    What is decoded stays in memory while there is room; no other picture replaces it, because training visits every
    picture equally often.

    Args:
        unread: for each picture what reads it: `name`, `read` and `picture`, as `Example` has; of those that are held,
            anything.
        resolution: side of the pictures.
        held: {index: picture} of those that are decoded already.
        room: how many stay in memory.

    Raises:
        UserError: naming the picture, where one that is decoded at its use cannot be read.
    """

    def __init__(self, unread, resolution, held=None, room=0):
        self._unread, self._resolution, self._held, self._room = unread, resolution, held or {}, room

    def __len__(self):
        return len(self._unread)

    def __getitem__(self, index):
        index = range(len(self))[operator.index(index)]
        picture = self._held.get(index)
        if picture is None:
            unread = self._unread[index]
            try:
                picture = unread.picture(unread.read(), self._resolution)
            except UserError as error:
                raise UserError(f"{unread.name} {error}") from None
            picture.flags.writeable = False
            if len(self._held) < self._room:
                self._held[index] = picture
        return picture

    def unread(self, index):
        """What reads a picture, and has its name; None where it is held and need not be read again."""
        return self._unread[index]

    def many(self, indices):
        """The pictures of some indices, a list; those that are not in memory are decoded on all cores."""
        if all(index in self._held for index in indices):
            return [self._held[index] for index in indices]
        return list(decoders().map(self.__getitem__, indices))


@functools.cache
def decoders():
    """The threads that decode pictures, one a core: Pillow and zlib leave Python to the others meanwhile."""
    return ThreadPoolExecutor(usable_cores(), "decoder")


# The threads are not in a forked process. Windows has none.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=decoders.cache_clear)


@contextlib.contextmanager
def collection_paused():
    """Leaves Python's cyclic garbage collector off meanwhile, which otherwise walks over all examples again and again.

    What is made of a data set's lists has no cycles, and of 100,000 pictures it took a quarter of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
    without a caption left. Each is counted, and all are named in a warning. Pictures are ordered by name. `CACHE_BYTES`
    of decoded pictures stay in memory, see `Pictures`. A file that an earlier start has checked and that has not
    changed since is decoded when it is first used.

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
    room = held_pictures(resolution) if decode else 0
    progress = Progress(name, total)
    for example, found in checked(examples, resolution) if decode else ((each, Found()) for each in examples):
        captions = _good_captions(example, bad)
        if found.wrong:
            bad.append(f"{example.name} {found.wrong}")
        elif captions:
            picture = found.picture if len(good) < room else None
            # What is held need not be read again; an example of an archive holds its file.
            unread = example if picture is None else None
            good.append((example.name, captions, example.label, unread, picture, found.sha256))
        progress.advance()
        if len(bad) > max_bad_examples + MOST_TOLD:
            break
    report_bad(name, bad, max_bad_examples)
    good.sort(key=operator.itemgetter(0))
    held = {index: picture for index, (*_, picture, _) in enumerate(good) if picture is not None}
    return CaptionedImages(
        name=name,
        images=Pictures([unread for *_, unread, _, _ in good], resolution, held, room),
        captions=tuple(captions for _, captions, *_ in good),
        labels=np.array([label for _, _, label, *_ in good], dtype=np.int32),
        label_names=tuple(label_names),
        file_names=tuple(file_name for file_name, *_ in good),
        origin=origin,
        digests=tuple(digest for *_, digest in good) if decode else (),
        left_out=tuple(bad),
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


@dataclass(frozen=True)
class Found:
    """What checking a picture's file has found.

    Attributes:
        sha256: of the file, in hexadecimal.
        wrong: why it cannot be used; empty for a whole picture.
        picture: the picture, read-only; None where an earlier start has checked the file.
    """

    sha256: str = ""
    wrong: str = ""
    picture: np.ndarray | None = None


def checked(unread, resolution):
    """Every picture's file, decoded on all cores where no earlier start has done it.

    Args:
        unread: iterable of what has `name`, `read` and `picture(encoded, resolution)`, as `Example` has.
        resolution: side of the pictures.

    Yields:
        (what was unread, `Found`), in order; a few are decoded ahead.
    """
    ahead, records, most = deque(), {}, AHEAD_PER_CORE * usable_cores()
    try:
        for each in unread:
            found = _known(each)
            if found and not ahead:
                yield each, found
                continue
            if isinstance(each.read, SourceFile):
                records[id(each.read.checked)] = each.read.checked
            ahead.append((each, found or decoders().submit(check_file, each, resolution)))
            while len(ahead) > most or (ahead and isinstance(ahead[0][1], Found)):
                yield _finished(*ahead.popleft())
                for record in records.values():
                    record.save_now_and_then()
        while ahead:
            yield _finished(*ahead.popleft())
    finally:
        for _, found in ahead:
            if not isinstance(found, Found):
                found.cancel()
        for record in records.values():
            record.save()


def _finished(unread, found):
    return unread, found if isinstance(found, Found) else found.result()


def _known(unread):
    """What an earlier start has found of a file that has not changed; None: nothing."""
    if not isinstance(unread.read, SourceFile):
        return None
    sha256, wrong = unread.read.checked.found(unread.read.name, unread.read.state) or ("", None)
    return None if wrong is None else Found(sha256, wrong)


def check_file(unread, resolution):
    """`Found` of a picture's file that is read now; see `checked`."""
    # Before it is read: a file that changes meanwhile has another state afterwards.
    state = unread.read.state if isinstance(unread.read, SourceFile) else ""
    try:
        encoded = unread.read()
    except UserError as error:
        return Found(wrong=str(error))
    found = Found(hashlib.sha256(encoded).hexdigest())
    try:
        picture = unread.picture(encoded, resolution)
        picture.flags.writeable = False
        found = Found(found.sha256, "", picture)
    except UserError as error:
        found = Found(found.sha256, str(error))
    if state:
        unread.read.checked.keep(unread.read.name, state, found.sha256, found.wrong)
    return found


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
    """Says every few seconds how many pictures, or what it is, are checked; silent for a set that is read sooner."""

    def __init__(self, name, total, unit="pictures"):
        self._name, self._of = name, f" of {total:,} {unit}" if total else f" {unit}"
        self._count, self._said = 0, time.monotonic()

    def advance(self):
        self._count += 1
        if time.monotonic() - self._said > SECONDS_BETWEEN_PROGRESS:
            self._said = time.monotonic()
            logging.info("%s: %s%s checked", self._name, f"{self._count:,}", self._of)
