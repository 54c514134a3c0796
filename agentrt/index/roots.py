"""Roots: the folders and files that documents are read from, and how documents are named by where they lie."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Roots:
    """Hold what is read, and `base`: documents are named by their path from there, so that no two have one name."""

    paths: tuple[Path, ...]
    base: Path

    @classmethod
    def of(cls, paths: Iterable[str | Path], base: str | Path | None = None) -> Self:
        """Return some roots without those that lie within others; the base is the folder that holds them all."""
        whole = [_absolute(path) for path in paths]
        folders = [path if path.is_dir() else path.parent for path in whole]
        common = os.path.commonpath(folders) if folders else os.curdir
        return cls(_outermost(whole), _absolute(common if base is None else base))

    def together(self, others: Iterable[str | Path]) -> Self:
        """Return these roots with others; documents keep their names, and those from elsewhere begin with `..`."""
        return type(self).of([*self.paths, *others], self.base)

    def prefix(self, path: Path) -> str:
        """Return what the names of documents of a root begin with: empty, or a folder with a slash."""
        inner = os.path.relpath(path if path.is_dir() else path.parent, self.base)
        return "" if inner == os.curdir else f"{Path(inner).as_posix()}/"

    def write(self, beside: Path) -> str:
        """Return these as text, by where they lie from a file: both may move together."""
        here = _absolute(beside).parent
        paths = [os.path.relpath(path, here) for path in self.paths]
        return json.dumps({"paths": paths, "base": os.path.relpath(self.base, here)})

    @classmethod
    def read(cls, text: str, beside: Path) -> Self:
        here, written = _absolute(beside).parent, json.loads(text)
        return cls.of([here / path for path in written["paths"]], here / written["base"])

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths))


def _absolute(path: str | Path) -> Path:
    """Return a path from the root, with the links in it: they are names, too."""
    return Path(os.path.abspath(Path(path).expanduser()))


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return paths without those that are there within another; one that is missing stays, to be told."""
    given = dict.fromkeys(paths)
    return tuple(path for path in given if not path.exists() or not any(p in given for p in path.parents))
