"""The pictures that Reed's captions describe: from their authors' archive or its folder, else from TensorFlow Datasets.

All three give the same encoded files. An archive or folder that is there is always preferred, and needs neither TFDS
nor TensorFlow.
"""

import functools
from pathlib import Path, PurePosixPath

from t2i_kd.data import prepared_tfds
from t2i_kd.data.sources import FolderSource, tar_files
from t2i_kd.errors import UserError

SUFFIX = ".jpg"


def open_pictures(reed_set, data_dir, cache_dir=None):
    """How the pictures of a set are read.

    Args:
        reed_set: `t2i_kd.data.reed_captions.ReedSet`.
        data_dir: where they lie.
        cache_dir: as of `open_source`, where they lie in a folder.

    Returns:
        A function of `wanted(name)`, which says of a file's name without folders and suffix whether the picture is
        read, to an iterator of (name, function that gives the encoded picture). Names come in the order of the files;
        of an archive no more than one picture is held at a time.

    Raises:
        UserError: that says what to put where, when there are no pictures and TFDS cannot fetch them.
    """
    folder, archive = (Path(data_dir) / name for name in (reed_set.pictures_folder, reed_set.pictures_archive))
    if folder.is_dir():
        return functools.partial(_from_folder, folder, cache_dir)
    if archive.is_file():
        return functools.partial(_from_archive, archive)
    hint = f"put {archive.name} ({reed_set.pictures_url}) in {data_dir}, or unpack it there, to get {folder}"
    if not prepared_tfds.is_installed():
        raise UserError(f"--data_dir: the pictures of {reed_set.name} are missing; {hint}")
    prepared = Path(data_dir) / "tfds"
    return functools.partial(
        prepared_tfds.prepared_pictures, reed_set.tfds_name, prepared, reed_set.file_name_feature, hint
    )


def _from_folder(folder, cache_dir, wanted):
    source = FolderSource(folder, cache_dir)
    for name in source.names():
        if _is_wanted(name, wanted):
            yield PurePosixPath(name).stem, source.file(name)


def _from_archive(path, wanted):
    for name, encoded in tar_files(path, lambda name: _is_wanted(name, wanted)):
        yield PurePosixPath(name).stem, functools.partial(bytes, encoded)


def _is_wanted(name, wanted):
    path = PurePosixPath(name)
    return path.suffix.lower() == SUFFIX and wanted(path.stem)


class AtFirstUse:
    """Pictures by name that are looked for when the first of them is read.

    Args:
        pictures: what `open_pictures` returns.
        names: the names that will be read.
    """

    def __init__(self, pictures, names):
        self._pictures, self._names = pictures, frozenset(names)

    @functools.cached_property
    def _found(self):
        return dict(self._pictures(self._names.__contains__))

    def read(self, name):
        """The encoded picture. Raises `UserError` with the reason where it cannot be read."""
        if name not in self._found:
            raise UserError("does not exist")
        return self._found[name]()
