"""`--dataset=paired_folder`: pairs of pictures, A and B, from a folder or straight from a .zip.

`--data_dir` is the folder or the .zip, in one of the two layouts of pix2pix' code:

    train/1.jpg, val/2.jpg, test/3.jpg     A on the left and B on the right half of one picture
    A/train/1.jpg, B/train/1.jpg, ...      A and B apart, under names that are equal but for their endings

`test` is `val` where there is none. Each side is cut to its centred square and resized; see `t2i_kd.data.decoding`.
"""

from pathlib import PurePosixPath

from t2i_kd.data.decoding import decode as decode_picture
from t2i_kd.data.image_pairs import FOLDERS, Folders, Side, collect_pairs
from t2i_kd.errors import UserError

NEEDS = "a folder or .zip with train and test (or val) of pictures A|B side by side, or with A/train and B/train"


def load(split, resolution, data_dir, max_bad_examples=0, decode=True, cache_dir=None):
    """The pairs of a split as `ImagePairs`; `decode` as of `t2i_kd.data.examples.collect`, `cache_dir`
    as of `open_source`.

    Raises:
        UserError: naming --data_dir, for a split that is not there, a side that is empty, or names that differ between
            the sides; or for more bad pairs than `max_bad_examples`, a picture side by side of odd width among them.
    """
    known = [name for names in FOLDERS.values() for name in names]
    folders = Folders(data_dir, [*known, *(f"{side}/{name}" for side in "AB" for name in known)], cache_dir)
    for name in FOLDERS[split] + (FOLDERS["validation"] if split == "test" else ()):
        joined, apart = folders.pictures(name), [folders.pictures(f"{side}/{name}") for side in "AB"]
        if joined and any(apart):
            raise UserError(f"--data_dir: {data_dir} has {name} and A/{name}; which of the two layouts is meant?")
        if joined:
            return collect_pairs(
                f"paired_folder/{name}", *_halves(folders, joined), resolution, max_bad_examples, decode
            )
        if any(apart):
            sides = _twins(folders, data_dir, name, apart)
            return collect_pairs(f"paired_folder/{name}", *sides, resolution, max_bad_examples, decode)
    raise UserError(f"--data_dir: {data_dir} has no pictures for {split}; --dataset=paired_folder needs {NEEDS}")


def _halves(folders, names):
    return [[Side(name, folders.file(name), cut) for name in names] for cut in (_left, _right)]


def _left(encoded):
    image = _even(encoded)
    return image.crop((0, 0, image.width // 2, image.height))


def _right(encoded):
    image = _even(encoded)
    return image.crop((image.width // 2, 0, image.width, image.height))


def _even(encoded):
    image = decode_picture(encoded)
    if image.width % 2:
        raise UserError(f"is {image.width} pixels wide; A and B side by side have an even width")
    return image


def _twins(folders, data_dir, split, apart):
    named = []
    for side, names in zip("AB", apart, strict=True):
        stems = {str(PurePosixPath(name).relative_to(f"{side}/{split}").with_suffix("")): name for name in names}
        if not stems:
            raise UserError(f"--data_dir: {data_dir}: {side}/{split} is empty")
        if len(stems) < len(names):
            other = next(name for name in names if name not in stems.values())
            raise UserError(f"--data_dir: {data_dir}: {other} has the name of another picture but for its ending")
        named.append(stems)
    alone = sorted(set(named[0]) ^ set(named[1]))
    if alone:
        side, other = ("A", "B") if alone[0] in named[0] else ("B", "A")
        raise UserError(
            f"--data_dir: {data_dir}: {len(named[0])} pictures in A/{split} and {len(named[1])} in B/{split}, "
            f"{len(alone)} without a twin, such as {side}/{split}/{alone[0]}, which {other}/{split} lacks"
        )
    return [[Side(stems[stem], folders.file(stems[stem]), decode_picture) for stem in sorted(stems)] for stems in named]
