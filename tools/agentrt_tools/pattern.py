"""Glob patterns, and what in a folder fits them, looked for in bounded time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Set
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Final, NamedTuple

from agentrt import InvalidArguments
from agentrt_tools.folder import Place

_MOST_CHARACTERS: Final = 200
_DEEPEST: Final = 50
_ALTERNATIVES: Final = re.compile(r"\{[^{}/]*,[^{}/]*\}")
_TWICE: Final = ("**", "**")


class Pattern:
    """Match paths name by name: `*` and `?` within a name, `**` any number of folders.

    A pattern without a slash is looked for in all folders. As in shells only a pattern that writes the dot fits names
    that begin with one. Each name costs at most a comparison a part of the pattern, whatever either is.

    Raises `InvalidArguments` for a pattern that is too long, and for one that could fit nothing.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _MOST_CHARACTERS:
            raise InvalidArguments(f"pattern: at most {_MOST_CHARACTERS} characters: use a shorter one")
        if ".." in text.split("/"):
            raise InvalidArguments("pattern: nothing above the folder is looked at: leave out ..")
        if _ALTERNATIVES.search(text):
            raise InvalidArguments("pattern: {a,b} is not known here, only * ? [ab] and **: ask once for each")
        parts = [part for part in text.split("/") if part not in {"", "."}] or ["**"]
        parts = [*(() if "/" in text else ("**",)), *parts, *(("*",) if parts[-1:] == ["**"] else ())]
        self._parts = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if (part, after) != _TWICE]
        self.start: Set[int] = self._closed({0})

    def step(self, reached: Set[int], name: str) -> Set[int]:
        """Return the parts of the pattern that are reached with one more name of a path; none if it cannot fit."""
        return self._closed({to for i in reached if i < len(self._parts) for to in self._next(i, name)})

    def fits(self, reached: Set[int]) -> bool:
        """Say whether a path whose names have led here fits."""
        return len(self._parts) in reached

    def leads_on(self, reached: Set[int]) -> bool:
        """Say whether a path below may fit."""
        return any(i < len(self._parts) for i in reached)

    def _next(self, i: int, name: str) -> Iterable[int]:
        part = self._parts[i]
        if name.startswith(".") and not part.startswith("."):
            return ()
        if part == "**":
            return (i,)
        return (i + 1,) if fnmatchcase(name, part) else ()

    def _closed(self, reached: set[int]) -> Set[int]:
        """Add what is reached where `**` stands for no folder."""
        return reached | {i + 1 for i in reached if self._parts[i : i + 1] == ["**"]}


class Bound:
    """Count what a search looks at; `over` says why it has to stop."""

    def __init__(self, *, entries: int, bytes: int, seconds: float) -> None:
        self.over = ""
        self._entries, self._bytes = entries, bytes
        self._ends = time.monotonic() + seconds

    def allows(self, *, entries: int = 0, bytes: int = 0) -> bool:
        """Take so much from what is left, and say whether there was as much."""
        self._entries -= entries
        self._bytes -= bytes
        if self._entries < 0:
            self.over = "there are too many files"
        elif self._bytes < 0:
            self.over = "the files are too large"
        elif time.monotonic() > self._ends:
            self.over = "it takes too long"
        return not self.over


class Found(NamedTuple):
    """Be what a walk comes to: an entry of an open folder, and its path from where the walk began."""

    place: Place
    entry: os.DirEntry[str]
    path: str


def walk(place: Place, pattern: Pattern, bound: Bound, *, path: str = "") -> Iterator[Found]:
    """Yield what below an open folder fits a pattern, in the order of names, until the bound is reached."""
    yield from _walk(place, path, pattern, pattern.start, bound, _DEEPEST)


def _walk(place: Place, path: str, pattern: Pattern, reached: Set[int], bound: Bound, depth: int) -> Iterator[Found]:
    entries = list(takewhile(lambda _: bound.allows(entries=1), place.entries()))
    for entry in sorted(entries, key=lambda entry: entry.name):
        here = pattern.step(reached, entry.name)
        if pattern.fits(here):
            yield Found(place, entry, path + entry.name)
        if depth and pattern.leads_on(here) and entry.is_dir(follow_symlinks=False) and not bound.over:
            try:
                below = place.enter(entry.name)
            except OSError:  # gone by now, a link by now, or not to be entered
                continue
            try:
                yield from _walk(below, f"{path}{entry.name}/", pattern, here, bound, depth - 1)
            finally:
                below.close()
