"""Files of folders: which are there to be read, and which are left out and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Final

from agentrt.errors import DefinitionError
from agentrt.index.document import FORMATS
from agentrt.index.problem import Problem

_PACKED: Final = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z"})


def find_files(path: Path) -> Iterator[tuple[str, Path] | Problem]:
    """Yield each file below a folder with its name there, in their order, and a problem for each that is left out.

    Of a name that is no Unicode the odd bytes are written as numbers. Raises `DefinitionError` for a path that does
    not exist.
    """
    if not os.path.exists(path):  # Path.exists, and the like, raise where a folder must not be entered
        raise DefinitionError(f"{path} does not exist")
    if not os.path.isdir(path):
        yield _checked(_written(path.name), path)
        return
    root = os.path.realpath(path)
    waiting = [""]
    while waiting:  # no call within calls, so that no folder is too deep
        here = waiting.pop()
        folder = os.path.join(path, here)
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            yield Problem(_written(here) or "./", f"the folder cannot be read: {error.strerror}", unread=True)
            continue
        below = {name: _unvisited(folder, name) for name in names if os.path.isdir(os.path.join(folder, name))}
        yield from (Problem(_written(here + name) + "/", why) for name, why in below.items() if why)
        for name in names:
            if name not in below:
                yield _offered(_written(here + name), Path(folder, name), root)
        waiting += [f"{here}{name}/" for name, why in reversed(below.items()) if not why]


def _written(name: str) -> str:
    """Return a name as text that can be kept: bytes of it that are no UTF-8 as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _unvisited(folder: str, name: str) -> str:
    if name.startswith("."):
        return "hidden folders are not read"
    return "links to folders are not followed" if os.path.islink(os.path.join(folder, name)) else ""


def _offered(source: str, file: Path, root: str) -> tuple[str, Path] | Problem:
    if file.name.startswith("."):
        return Problem(source, "hidden files are not read")
    if os.path.islink(file):
        target = Path(os.path.realpath(file))
        if not target.is_relative_to(root):
            return Problem(source, "it is a link that leads out of the folder")
        if any(part.startswith(".") for part in target.relative_to(root).parts):
            return Problem(source, "it is a link to what is hidden")
    return _checked(source, file)


def _checked(source: str, file: Path) -> tuple[str, Path] | Problem:
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        return Problem(source, f"it cannot be read: {error.strerror or error}", unread=True)
    if not S_ISREG(mode):
        return Problem(source, "it is no ordinary file")
    suffix = file.suffix.lower()
    if suffix in _PACKED:
        return Problem(source, "packed files are not read: unpack it first")
    if suffix not in FORMATS:
        return Problem(source, f"files of type {_written(suffix) or '(none)'} are not read")
    return source, file
