"""A folder that nothing leads out of: files below a root, opened so that no link, `..` or device leads elsewhere."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import BinaryIO, Final

from agentrt import AgentrtError, DefinitionError

MOST_BYTES: Final = 5_000_000
"""Files of more bytes are neither read nor searched."""
_MOST_NAMES: Final = 50
_MOST_CHARACTERS: Final = 1_000
_HAS_DESCRIPTORS: Final = {os.open, os.stat, os.mkdir, os.unlink, os.rename} <= os.supports_dir_fd and (
    os.scandir in os.supports_fd and hasattr(os, "O_NOFOLLOW")
)
_FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
_DIRECTORY: Final = _FLAGS | getattr(os, "O_DIRECTORY", 0)


class FileError(AgentrtError):
    """Say why a file cannot be read or written, and what to do."""


class Place:
    """Be an open folder: what its names lead to is looked up in it, wherever it has been moved meanwhile.

    Where the system cannot do that (`descriptor` is None) names are looked up by path.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    def name(self, name: str) -> str:
        """Return how the system is told the name."""
        return name if self.descriptor is not None else str(self.path / name)

    def status(self, name: str) -> os.stat_result:
        """Return the status of what a name stands for, not of what it points at."""
        return os.stat(self.name(name), dir_fd=self.descriptor, follow_symlinks=False)

    def open(self, name: str, flags: int, mode: int = 0o666) -> int:
        return os.open(self.name(name), flags, mode, dir_fd=self.descriptor)

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """Yield what is in the folder, in no order."""
        with os.scandir(self.path if self.descriptor is None else self.descriptor) as found:
            yield from found

    def enter(self, name: str) -> Place:
        """Return the folder of a name; raises `OSError` where it is none, as for a link."""
        if self.descriptor is not None:
            return Place(self.path / name, self.open(name, _DIRECTORY | os.O_RDONLY))
        path = self.path / name
        # A junction is a folder to `stat`; what it leads to has another path.
        if not stat.S_ISDIR(self.status(name).st_mode) or os.path.realpath(path) != str(path):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))
        return Place(path, None)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


class Folder:
    """Read and write the files below a folder, and nothing else; links are not followed, wherever they lead.

    Each name of a path is opened in the folder before it, which is open already: what is swapped in between is found
    there or is an error. A file with several names (hard links) may be one from elsewhere, and is refused unless
    `hard_links`. Without `descriptors`, as on Windows, names are checked before they are opened, so that there whoever
    can make links in the folder at the same moment can lead out of it.

    Raises `DefinitionError` for a root that is no folder; every method raises `FileError`.
    """

    def __init__(self, root: str | Path, *, hard_links: bool = False, descriptors: bool = _HAS_DESCRIPTORS) -> None:
        self.root = Path(os.path.realpath(root))
        self._hard_links = hard_links
        self._descriptors = descriptors
        if not self.root.is_dir():
            raise DefinitionError(f"{root} is no folder: make it first, or name another")

    def read(self, path: str) -> bytes:
        """Return what a file holds."""
        with _told(path), self._holding(path) as (place, name), self.open(place, name, path) as file:
            return file.read(MOST_BYTES)

    def open(self, place: Place, name: str, path: str) -> BinaryIO:
        """Open a regular file of an open folder for reading; raises `FileError` for anything else, without waiting."""
        self._check(place.status(name), path)
        # What is swapped in from here on does not hold up the opening, and is looked at again.
        file = os.fdopen(place.open(name, _FLAGS | _NO_WAIT | os.O_RDONLY), "rb")
        try:
            self._check(os.fstat(file.fileno()), path)
        except BaseException:
            file.close()
            raise
        return file

    def _check(self, status: os.stat_result, path: str) -> None:
        _check_kind(status, path)
        if status.st_nlink > 1 and not self._hard_links:
            raise FileError(f"{path} has other names (hard links), and is not opened: work with a copy of it")
        if status.st_size > MOST_BYTES:
            raise FileError(f"{path} has {status.st_size:,} bytes, and {MOST_BYTES:,} are the most: use another file")

    def write(self, path: str, data: bytes) -> bool:
        """Make a file hold this, all at once; return whether it is new. Folders that are missing are made."""
        with _told(path), self._holding(path, make=True) as (place, name):
            try:
                status = place.status(name)
            except FileNotFoundError:
                status = None
            mode = None if status is None else _mode(status, path)
            _replace(place, name, data, mode)
            return mode is None

    @contextmanager
    def place(self, path: str) -> Iterator[Place]:
        """Open a folder."""
        with _told(path), self._at(self._names(path), path) as place:
            yield place

    @contextmanager
    def _holding(self, path: str, *, make: bool = False) -> Iterator[tuple[Place, str]]:
        """Open the folder that holds a file, and name the file in it."""
        names = self._names(path)
        if not names:
            raise FileError(f"{path!r} is a folder: name a file in it")
        with self._at(names[:-1], path, make=make) as place:
            yield place, names[-1]

    def _names(self, path: str) -> Sequence[str]:
        try:
            return _names(path)
        except FileError:
            if PurePath(path).is_relative_to(self.root) and ".." not in path:
                below = PurePath(path).relative_to(self.root).as_posix()
                raise FileError(f"{path}: write it from the folder on: {below}") from None
            raise

    @contextmanager
    def _at(self, names: Sequence[str], path: str, *, make: bool = False) -> Iterator[Place]:
        place = Place(self.root, os.open(self.root, os.O_RDONLY | _DIRECTORY) if self._descriptors else None)
        try:
            for name in names:
                below = self._below(place, name, path, make=make)
                place.close()
                place = below
            yield place
        finally:
            place.close()

    def _below(self, place: Place, name: str, path: str, *, make: bool) -> Place:
        if make:
            with suppress(FileExistsError):
                os.mkdir(place.name(name), dir_fd=place.descriptor)
        try:
            return place.enter(name)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            raise FileError(f"{path}: {name} is {_no_folder(place, name)}") from error


def _names(path: str) -> Sequence[str]:
    """Return the names that a path below the root is made of; raises `FileError` for one that is not below it."""
    if "\0" in path or len(path) > _MOST_CHARACTERS:
        raise FileError(f"a path has no NUL, and at most {_MOST_CHARACTERS:,} characters: use another name")
    windows = os.name == "nt"
    parts = PureWindowsPath(path) if windows else PurePosixPath(path)
    names = parts.parts
    # On Windows a name with a colon is a drive or a stream of a file, and some names are devices.
    if parts.anchor or ".." in names or (windows and (":" in path or PureWindowsPath(path).is_reserved())):
        raise FileError(
            f"{path} is not below the folder: write a path like notes/plan.md, without .. and / at the start"
        )
    if len(names) > _MOST_NAMES:
        raise FileError(f"{path[:60]}… has more than {_MOST_NAMES} folders: use fewer")
    return names


def _check_kind(status: os.stat_result, path: str) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"{path} is a folder: name a file in it")
    kind = "a link, and links are not followed" if stat.S_ISLNK(status.st_mode) else "no regular file"
    raise FileError(f"{path} is {kind}: use another file")


def _mode(status: os.stat_result, path: str) -> int:
    """Return who may do what with a file that is about to be replaced."""
    _check_kind(status, path)
    if not status.st_mode & 0o222:
        raise FileError(f"{path} may only be read: write another file")
    return status.st_mode & 0o777


def _no_folder(place: Place, name: str) -> str:
    """Say what a name stands for that is no folder."""
    try:
        mode = place.status(name).st_mode
    except OSError:
        mode = 0
    if stat.S_ISLNK(mode):
        return "a link, and links are not followed"
    return "a file, and no folder: read it" if stat.S_ISREG(mode) else "no folder"


def _replace(place: Place, name: str, data: bytes, mode: int | None) -> None:
    """Write to a new file beside the old one, and then give it the name, so that nobody sees half of it."""
    other = f".{secrets.token_hex(8)}.tmp"
    descriptor = place.open(other, _FLAGS | os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(place.name(other), place.name(name), src_dir_fd=place.descriptor, dst_dir_fd=place.descriptor)
    except BaseException:
        with suppress(OSError):
            os.unlink(place.name(other), dir_fd=place.descriptor)
        raise


_REASONS: Final = {
    errno.ENOENT: "does not exist: list the folder to see what does",
    errno.EACCES: "may not be used: use another file",
    errno.EPERM: "may not be used: use another file",
    errno.ELOOP: "is a link, and links are not followed: use another file",
    errno.ENOTDIR: "goes through something that is no folder",
    errno.ENAMETOOLONG: "has a name that is too long: use a shorter one",
    errno.ENOSPC: "cannot be written: the disk is full",
}


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Say of an error of the system what it means to who named the path."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or f"cannot be used: {error.strerror}"
        raise FileError(f"{path} {reason}") from error
    except UnicodeEncodeError as error:
        raise FileError(f"{path!r} cannot name a file: use another name") from error
