"""Reed's ten captions a picture, joined to the pictures by file name.

Source: Reed, Akata, Schiele & Lee, "Learning Deep Representations of Fine-grained Visual Descriptions" (CVPR 2016).
The archives are linked from the README of github.com/reedscot/cvpr2016 ("birds" and "flowers"); unpacked they hold

    text_c10/CLASS/IMAGE.txt     ten captions, one a line; CLASS is `001.Black_footed_Albatross` or `class_00001`
    trainvalclasses.txt          the classes to train on, one CLASS a line
    testclasses.txt              the classes to test on: the field's class-disjoint (zero-shot) split

and more that is not read. Where an archive lacks the two lists they may lie one folder further, as in the
`cub_icml.tar.gz` and `flowers_icml.tar.gz` of github.com/reedscot/icml2016, which hold the same lists.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from t2i_kd.data.examples import Example, collect
from t2i_kd.data.reed_pictures import SUFFIX, AtFirstUse, open_pictures
from t2i_kd.data.sources import MAX_CAPTIONS_BYTES
from t2i_kd.errors import UserError, all_of
from t2i_kd.files import read_bytes

CLASS_LISTS = {"train": "trainvalclasses.txt", "test": "testclasses.txt"}


@dataclass(frozen=True)
class ReedSet:
    """Where one of the two data sets lies, and under which names.

    Attributes:
        name: what `--dataset` says.
        archive: the captions' archive.
        captions_folder: what the archive unpacks to, in `--data_dir`.
        lists_folder: another folder in `--data_dir` that may hold the class lists.
        pictures_archive: the pictures' archive, in `--data_dir`.
        pictures_folder: the folder of the archive that holds the pictures, in `--data_dir` where it is unpacked.
        pictures_url: where the archive is.
        tfds_name: the pictures' name in TensorFlow Datasets, prepared in `--data_dir`/tfds.
        file_name_feature: the TFDS feature that holds a picture's file name.
        label_names: the classes' names, by label, where they are not in the names of their folders.
    """

    name: str
    archive: str
    captions_folder: str
    lists_folder: str
    pictures_archive: str
    pictures_folder: str
    pictures_url: str
    tfds_name: str
    file_name_feature: str
    label_names: tuple[str, ...] = ()


def needs(reed_set):
    """What `--data_dir` must hold, and where that comes from: a line."""
    return (
        f"a folder with {reed_set.archive} (linked from github.com/reedscot/cvpr2016) unpacked to "
        f"{reed_set.captions_folder}/, and {reed_set.pictures_archive} ({reed_set.pictures_url})"
    )


def load(reed_set, split, resolution, data_dir, max_bad_examples=0, decode=True, cache_dir=None):
    """The pictures of the split's classes with their captions, joined by file name.

    A picture is in the class in whose folder its captions lie. One without captions in any folder is a bad example of
    both splits; so is, in its own, one that has captions and no file.

    Args:
        reed_set: which of the two sets.
        split: `train` (Reed's trainval classes) or `test`.
        resolution: side of the pictures.
        data_dir: holds the pictures and the captions' folder.
        max_bad_examples: as for `collect`.
        decode: as for `collect`; without, the pictures are those that have captions, and are not even looked for.
        cache_dir: as for `open_pictures`.

    Raises:
        UserError: that says what to put where, when something is missing; for a split `validation`; for class lists
            that overlap; for captions of one picture in two classes.
    """
    if split not in CLASS_LISTS:
        raise UserError(f"--dataset: {reed_set.name} has no {split} split, only train and test classes")
    captions_root, train, test, pictures = all_of(
        lambda: _captions_root(reed_set, data_dir),
        lambda: _read_classes(reed_set, data_dir, "train"),
        lambda: _read_classes(reed_set, data_dir, "test"),
        lambda: open_pictures(reed_set, data_dir, cache_dir),
    )
    classes = {"train": train, "test": test}
    both = sorted(set(classes["train"].values()) & set(classes["test"].values()))
    if both:
        raise UserError(f"--data_dir: class {both[0]} is in both {' and '.join(CLASS_LISTS.values())}")
    label_names = _label_names(reed_set.label_names, {**classes["train"], **classes["test"]})
    described = _caption_files(captions_root)
    labels = {folder: label for label, folder in classes[split].items()}
    members = {name: labels[path.parent.name] for name, path in described.items() if path.parent.name in labels}
    examples = (_found if decode else _assumed)(pictures, described, members)
    name = f"{reed_set.name}/{split}"
    return collect(name, examples, label_names, resolution, max_bad_examples, len(members), decode)


def _captions_root(reed_set, data_dir):
    folder = Path(data_dir) / reed_set.captions_folder / "text_c10"
    if not folder.is_dir():
        raise UserError(
            f"--data_dir: {folder} is missing; unpack {reed_set.archive} (linked from github.com/reedscot/cvpr2016) "
            f"in {data_dir}, so that {folder}/CLASS/IMAGE.txt holds ten captions a picture"
        )
    return folder


def _read_classes(reed_set, data_dir, split):
    """The classes of a split as {label: folder name}; the label is the number in the folder's name minus 1."""
    name = CLASS_LISTS[split]
    places = [Path(data_dir) / folder / name for folder in (reed_set.captions_folder, reed_set.lists_folder)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(f"--data_dir: the class list {places[0]} is missing (it may also be {places[1]})")
    classes = {}
    for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
        folder = line.strip()
        if folder:
            found = re.fullmatch(r"(\d{1,5})\.\w[\w-]*|class_(\d{1,5})", folder)
            label = int(found[1] or found[2]) - 1 if found else -1
            if label < 0:
                raise UserError(f"--data_dir: {path} line {number}: {folder!r} is not the name of a class folder")
            classes[label] = folder
    return classes


def _label_names(names, classes):
    """Each label's name: the class folder's where that is a name, else the set's own, else its number."""
    names = list(names) + [str(label) for label in range(len(names), max(classes) + 1)]
    for label, folder in classes.items():
        if "." in folder:
            names[label] = folder.partition(".")[2].replace("_", " ").lower()
    return names


def _caption_files(captions_root):
    """{picture's name without suffix: the file of its captions} of every class."""
    files = {}
    for path in sorted(captions_root.glob("*/*.txt")):
        if path.stem in files:
            raise UserError(f"--data_dir: {path} and {files[path.stem]} are captions of one picture")
        files[path.stem] = path
    return files


def _found(pictures, described, members):
    """The split's examples as the pictures come; the pictures without captions; what is missing, last."""
    missing = set(members)
    for name, read in pictures(lambda name: name in missing or name not in described):
        if name in missing:
            missing.remove(name)
            yield _example(described[name], members[name], read)
        else:
            yield Example(name + SUFFIX, (), 0, read)
    yield from _assumed(lambda wanted: (), described, {name: members[name] for name in sorted(missing)})


def _assumed(pictures, described, members):
    """The split's examples as the captions name them; a picture is looked for at its first use."""
    later = AtFirstUse(pictures, members)
    for name, label in members.items():
        yield _example(described[name], label, functools.partial(later.read, name))


def _example(path, label, read):
    return Example(f"{path.parent.name}/{path.stem}{SUFFIX}", _captions(path), label, read)


def _captions(path):
    """The captions of a file as bytes, blank lines left out.

    The replacement characters that the collection holds in place of letters lost in encoding become spaces.
    """
    content = read_bytes(path, MAX_CAPTIONS_BYTES).replace("\N{REPLACEMENT CHARACTER}".encode(), b" ")
    lines = (line.strip() for line in content.split(b"\n"))
    return tuple(line for line in lines if line)
