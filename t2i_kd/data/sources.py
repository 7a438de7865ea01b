"""Where a data set's files lie: a folder, a .zip or a .tgz, all read in place and never left."""

import functools
import hashlib
import os
import re
import stat
import tarfile
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from t2i_kd.data.checked_files import CheckedFiles, settled
from t2i_kd.errors import UserError

# A single file beyond this is refused: no picture or caption list is so large, and a small zip can claim any size.
MAX_FILE_BYTES = 256 * 2**20
# Of a list of captions, whose lines take several times their bytes in memory; and of one picture's captions.
MAX_LIST_BYTES, MAX_CAPTIONS_BYTES = 64 * 2**20, 2**20
PIECE_BYTES = 2**16
# What `safe_name` need not look at: no part is empty or begins with a dot, and nothing may be of Windows.
PLAIN_NAME = re.compile(r"(?!\.)[^/\\\0:]+(/(?!\.)[^/\\\0:]+)*")


def safe_name(name):
    """A file name from a data set in its plainest form (`./a.jpg` is `a.jpg`).

    Raises:
        UserError: for a name that is empty, absolute, or leads out of the folder through `..`.
    """
    if PLAIN_NAME.fullmatch(name):
        return name
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)
    if "\0" in name or "\\" in name or path.is_absolute() or windows.drive or ".." in path.parts:
        raise UserError(f"file_name {name!r} is not a plain path inside the data set's folder")
    if not path.parts:
        raise UserError("file_name is empty")
    return str(path)


@dataclass(frozen=True)
class SourceFile:
    """A file of a source; a call reads it, see the source's `read`.

    Attributes:
        source: the `FolderSource` or `ZipSource`.
        name: the file's name there.
    """

    source: "FolderSource | ZipSource"
    name: str

    def __call__(self):
        return self.source.read(self.name)

    @property
    def state(self):
        """What changes with the file, though it is not read; see `CheckedFiles`. Empty: there is nothing such."""
        return self.source.state(self.name)

    @property
    def checked(self):
        """The `CheckedFiles` of its source."""
        return self.source.checked


def open_source(path, cache_dir=None, use=""):
    """The files under `--data_dir`.

    Args:
        path: a folder, or a .zip, which is read in place.
        cache_dir: the folder of `CheckedFiles`; None: what is found of the files is not kept.
        use: of `CheckedFiles`.

    Returns:
        A source: `names()`, the sorted names of its files, hidden ones left out; `read(name)`, a file's bytes; and
        `file(name)`, its `SourceFile`.

    Raises:
        UserError: naming --data_dir, where the path is neither.
    """
    path = Path(path)
    if path.is_dir():
        return FolderSource(path, cache_dir, use)
    if path.is_file() and zipfile.is_zipfile(path):
        return ZipSource(path, cache_dir, use)
    raise UserError(f"--data_dir: {path} is neither a folder nor a readable .zip")


def place_state(path):
    """What changes with any file of a folder or archive, though none is read. Empty: there is nothing such yet.

    A folder's is made of the names, sizes and times of all files in it, an archive's of its own.

    Args:
        path: of a folder or an archive.
    """
    if not os.path.isdir(path):
        try:
            return _state(os.stat(path))
        except (OSError, ValueError):
            return ""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = os.path.join(folder, name)
            try:
                state = _state(os.stat(file))
            except (OSError, ValueError):
                state = ""
            if not state:
                return ""
            digest.update(f"{file}\0{state}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _is_shown(name):
    if not name.startswith(".") and "/." not in name and "__MACOSX" not in name:
        return True
    return not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


class FolderSource:
    """The files of a folder; a symbolic link out of it is not followed."""

    def __init__(self, path, cache_dir=None, use=""):
        self.path = Path(path)
        self._root = self.path.resolve()
        self.checked = CheckedFiles(cache_dir, self.path, use)

    def names(self):
        found = []
        for folder, _, files in os.walk(self._root):
            relative = Path(folder).relative_to(self._root).as_posix()
            found.extend(files if relative == "." else [f"{relative}/{file}" for file in files])
        return sorted(filter(_is_shown, found))

    def file(self, name):
        """A file, unread: `SourceFile`."""
        return SourceFile(self, name)

    def state(self, name):
        """See `SourceFile.state`."""
        try:
            return _state(os.stat(f"{self._root}/{name}"))
        except (OSError, ValueError):
            return ""  # It cannot be read, which is told where it is read.

    def read(self, name, most=None):
        """A file's bytes, `MAX_FILE_BYTES` or `most`. Raises `UserError` with the reason where it cannot be read."""
        most = MAX_FILE_BYTES if most is None else most
        try:
            path = (self._root / safe_name(name)).resolve()
            if not path.is_relative_to(self._root):
                raise UserError("is a link that leaves the data set's folder")
            found = path.stat()
            # A pipe or a device would be waited for.
            if not stat.S_ISREG(found.st_mode):
                raise UserError("is not a file")
            if found.st_size > most:
                raise UserError(f"is larger than {most:,} bytes")
            return path.read_bytes()
        except FileNotFoundError:
            raise UserError("does not exist") from None
        except (OSError, RuntimeError) as error:  # Python before 3.13 has a RuntimeError for links in a circle.
            raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
        except UnicodeEncodeError:
            raise UserError("has a name that no file can have") from None

    def same_content(self, names):
        """Groups, of two and more, of those of the files that have the same bytes; only files of one size are read."""
        sizes = {}
        for name in names:
            try:
                found = os.stat(f"{self._root}/{name}")
                if stat.S_ISREG(found.st_mode):
                    sizes.setdefault(found.st_size, []).append((name, found))
            except (OSError, ValueError):
                continue  # It cannot be read, which is told where it is read.
        alike = {}
        for size, files in sizes.items():
            if len(files) > 1 and size <= MAX_FILE_BYTES:
                for name, found in files:
                    alike.setdefault(self._sha256(name, found), []).append(name)
        self.checked.save()
        return [group for group in alike.values() if len(group) > 1]

    def _sha256(self, name, stat_result):
        """A file's SHA-256, from what is known of it where it has not changed; what cannot be read is like no other."""
        state = _state(stat_result)
        known = self.checked.found(name, state)
        if known:
            return known[0]
        path = f"{self._root}/{name}"
        digest = _digest(path, stat_result.st_size, stat_result.st_mtime_ns)
        if digest != path:
            self.checked.keep(name, state, digest, None)
        return digest


def _state(found):
    """`SourceFile.state` of a file's `os.stat_result`."""
    if not stat.S_ISREG(found.st_mode) or not settled(max(found.st_mtime_ns, found.st_ctime_ns)):
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


@functools.lru_cache(maxsize=100_000)
def _digest(path, size, changed):
    """A file's SHA-256, kept for as long as it does not change; the path where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return path


class Within:
    """A source whose names start in one of its folders."""

    def __init__(self, source, prefix):
        self._source, self._prefix, self.path = source, prefix, source.path

    @classmethod
    def single_folder(cls, source, files, is_split):
        """The source, its names starting in the one folder at its top that holds one of the files, where that is so.

        A folder that `is_split` by its name is not left out.
        """
        names = source.names()
        found = (name for name in names if name.rpartition("/")[2].lower() in files)
        holders = {PurePosixPath(name).parts[:-1] for name in found}
        if len(holders) == 1 and len(*holders) == 1 and not is_split(next(iter(*holders))):
            return cls(source, next(iter(*holders)) + "/")
        return source

    def names(self):
        start = len(self._prefix)
        return [name[start:] for name in self._source.names() if name.startswith(self._prefix)]

    def read(self, name, most=None):
        """See `FolderSource.read`."""
        return self._source.read(self._prefix + safe_name(name), most)

    def file(self, name):
        """A file, unread: `SourceFile`."""
        return self._source.file(self._prefix + name)

    def same_content(self, names):
        """See `FolderSource.same_content`."""
        start = len(self._prefix)
        groups = self._source.same_content([self._prefix + name for name in names])
        return [[name[start:] for name in group] for group in groups]


class ZipSource:
    """The files of a .zip; where `metadata.jsonl` lies one folder down, names start in that folder."""

    def __init__(self, path, cache_dir=None, use=""):
        self.path = Path(path)
        self.checked = CheckedFiles(cache_dir, self.path, use)
        self._archive, self._process, self._lock = None, None, threading.Lock()
        entries = [entry.filename for entry in self._open().infolist() if not entry.is_dir()]
        self._prefix = _single_folder(entries)
        start = len(self._prefix)
        self._names = sorted({name[start:] for name in entries if name.startswith(self._prefix) and _is_shown(name)})

    def _open(self):
        # Forked workers would share the parent's position in the file, so each process opens its own.
        if self._process != os.getpid():
            try:
                self._archive, self._process = zipfile.ZipFile(self.path), os.getpid()
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"--data_dir: {self.path} is not a readable .zip: {error}") from None
        return self._archive

    def names(self):
        return list(self._names)

    def file(self, name):
        """A file, unread: `SourceFile`."""
        return SourceFile(self, name)

    def state(self, name):
        """See `SourceFile.state`."""
        try:
            entry = self._open().getinfo(self._prefix + name)
        except KeyError:
            return ""
        return f"{entry.CRC:08x} {entry.file_size} {entry.compress_size}"

    def read(self, name, most=None):
        """See `FolderSource.read`."""
        archive, most = self._open(), MAX_FILE_BYTES if most is None else most
        try:
            entry = archive.getinfo(self._prefix + safe_name(name))
            if entry.file_size > most:
                raise UserError(f"is larger than {most:,} bytes")
            # In pieces: at once, zipfile unpacks all that there is before it looks at what the entry claims. One thread
            # at a time: zipfile counts its open entries without a lock.
            with self._lock, archive.open(entry) as file:
                return b"".join(iter(functools.partial(file.read, PIECE_BYTES), b""))
        except KeyError:
            raise UserError("does not exist") from None
        except UserError:
            raise
        except Exception as error:  # zipfile and zlib raise many kinds on a damaged or encrypted entry.
            raise UserError(f"cannot be read: {error}") from None

    def same_content(self, names):
        """Groups, of two and more, of those of the files whose sizes and checksums in the archive agree."""
        archive, alike = self._open(), {}
        for name in names:
            try:
                entry = archive.getinfo(self._prefix + name)
                alike.setdefault((entry.file_size, entry.CRC), []).append(name)
            except KeyError:
                continue  # It does not exist, which is told where it is read.
        return [group for group in alike.values() if len(group) > 1]

    def __getstate__(self):
        return {**self.__dict__, "_archive": None, "_process": None, "_lock": None}

    def __setstate__(self, state):
        self.__dict__.update(state, _lock=threading.Lock())


def _single_folder(names):
    if "metadata.jsonl" in names:
        return ""
    inner = [name for name in names if name.count("/") == 1 and name.endswith("/metadata.jsonl") and _is_shown(name)]
    return inner[0].partition("/")[0] + "/" if len(inner) == 1 else ""


def tar_files(path, wanted):
    """The wanted files of a .tgz, one after the other as they lie in it, hidden ones left out.

    Args:
        path: of the archive.
        wanted: says of a name, which starts below the archive's own top folder, whether the file is read.

    Yields:
        (name, bytes); no more than one file is held in memory.

    Raises:
        UserError: naming --data_dir, where the archive is damaged.
    """
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = "/".join(PurePosixPath(member.name).parts[1:])
                if member.isfile() and member.size <= MAX_FILE_BYTES and _is_shown(member.name) and wanted(name):
                    yield name, archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"--data_dir: {path} is not a readable .tgz: {error}") from None


class TarSource:
    """The wanted files of a .tgz, held in memory; the names start below the archive's own top folder."""

    def __init__(self, path, wanted):
        """Reads every file whose name `wanted(name)` accepts. Raises `UserError` where the archive is damaged."""
        self.path = Path(path)
        self._files = dict(tar_files(path, wanted))

    def names(self):
        return sorted(self._files)

    def read(self, name):
        """A file's bytes. Raises `UserError` with the reason where it is not there."""
        try:
            return self._files[safe_name(name)]
        except KeyError:
            raise UserError("does not exist") from None

    def file(self, name):
        """A file, unread: a function that gives what `read` does. Its archive was read at this start, as at each."""
        return functools.partial(self.read, name)
