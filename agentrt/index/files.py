"""Files of folders: which are there to be read, and which are left out and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentrt.errors import DefinitionError
from agentrt.index.problem import Problem

FORMATS: Final = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_PACKED: Final = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z"})


def find_files(path: Path) -> Iterator[tuple[str, Path] | Problem]:
    """Yield each file below a folder with its name there, in their order, and a problem for each that is left out.

    Raises `DefinitionError` for one that does not exist.
    """
    if not path.exists():
        raise DefinitionError(f"{path} does not exist")
    if not path.is_dir():
        yield _checked(path.name, path)
        return
    troubles: list[OSError] = []
    for folder, folders, files in os.walk(path, onerror=troubles.append):
        folders.sort()
        here = Path(folder).relative_to(path)
        for name in [f for f in folders if _unvisited(Path(folder), f)]:
            folders.remove(name)
            yield Problem((here / name).as_posix() + "/", _unvisited(Path(folder), name))
        for name in sorted(files):
            yield _offered((here / name).as_posix(), Path(folder, name), path)
    for trouble in troubles:
        inner = Path(trouble.filename).relative_to(path)
        yield Problem(f"{inner.as_posix()}/", f"the folder cannot be read: {trouble.strerror}", unread=True)


def _unvisited(folder: Path, name: str) -> str:
    if name.startswith("."):
        return "hidden folders are not read"
    return "links to folders are not followed" if (folder / name).is_symlink() else ""


def _offered(source: str, file: Path, root: Path) -> tuple[str, Path] | Problem:
    if file.name.startswith("."):
        return Problem(source, "hidden files are not read")
    if file.is_symlink() and not file.resolve().is_relative_to(root.resolve()):
        return Problem(source, "it is a link that leads out of the folder")
    return _checked(source, file)


def _checked(source: str, file: Path) -> tuple[str, Path] | Problem:
    try:
        if not file.is_file():
            return Problem(source, "it is no ordinary file")
    except OSError as error:
        return Problem(source, f"it cannot be read: {error.strerror or error}", unread=True)
    suffix = file.suffix.lower()
    if suffix in _PACKED:
        return Problem(source, "packed files are not read: unpack it first")
    if suffix not in FORMATS:
        return Problem(source, f"files of type {suffix or '(none)'} are not read")
    return source, file
