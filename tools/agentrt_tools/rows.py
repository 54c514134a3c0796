"""Rows: what a statement returns, as lines that a model reads.

Nothing but the standard library is imported here: the process that asks an SQLite file uses it, too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST_COLUMNS: Final = 100
BATCH: Final = 50
_MOST_VALUE: Final = 500
_LEAST_VALUE: Final = 20
"""So much of a value is told however many there are in a row."""
_MOST_NAME: Final = 100
_CUT: Final = "\n(values that end with … are cut: ask for fewer columns to see more of each)"


class TooMuch(Exception):
    """Say that a statement returns more than is told, or takes longer than it may."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Hold what is wanted of the rows: which are left out, and how many rows and characters to return, in what time."""

    offset: int
    rows: int
    characters: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rows:
    """Hold lines, the columns first, and the offset from which more rows can be had; None where there are none."""

    lines: Sequence[str]
    more: int | None = None


def done(changed: int, wanted: Wanted) -> Rows:
    """Return what is said of a statement that returns no rows; `changed` is below 0 where nobody knows how many."""
    if wanted.offset:
        return Rows(["(no more rows)"])
    return Rows(["done" if changed < 0 else f"done: {changed:,} rows"])


def written(
    columns: Sequence[str], fetch: Callable[[], Sequence[Sequence[Any]]], wanted: Wanted, *, whole: bool = False
) -> Rows:
    """Write rows, as many as fit; the others are not even fetched. Raises `TooMuch`.

    whole: fetches and drops the others, for a statement that does its work row by row.
    """
    if len(columns) > MOST_COLUMNS:
        raise TooMuch(f"the statement returns {len(columns):,} columns, at most {MOST_COLUMNS}: name those you need")
    lines = [_header(columns, wanted.characters // 4)]
    size = len(lines[0]) + 1
    room = wanted.characters - size
    fetched = _fetched(fetch, wanted.seconds)
    for number, row in enumerate(fetched):
        if number < wanted.offset:
            continue
        line = _line(row, columns, room)
        size += len(line) + 1
        if number - wanted.offset >= wanted.rows or (size > wanted.characters and number > wanted.offset):
            if whole:
                deque(fetched, maxlen=0)
            return Rows(lines, number)
        lines.append(line)
    return Rows(lines if len(lines) > 1 else [*lines, "(no rows)" if not wanted.offset else "(no more rows)"])


def _fetched(fetch: Callable[[], Sequence[Sequence[Any]]], seconds: float) -> Iterator[Sequence[Any]]:
    ends = time.monotonic() + seconds
    while batch := fetch():
        yield from batch
        if time.monotonic() > ends:
            raise TooMuch(f"the rows took longer than {seconds:g} s: ask for less")


def _header(columns: Sequence[str], room: int) -> str:
    most = min(_MOST_NAME, max(_LEAST_VALUE, room // len(columns)))
    return " | ".join(_plain(name if len(name) <= most else f"{name[: most - 1]}…") for name in columns)


def _line(values: Sequence[Any], columns: Sequence[str], room: int) -> str:
    """Write a row; of one that has no room less of each value is told."""
    shown = [_shown(value, column) for value, column in zip(values, columns, strict=True)]
    if len(line := " | ".join(shown)) <= room or len(columns) == 1:
        return line
    most = max(_LEAST_VALUE, room // len(columns) - len(" | "))
    return " | ".join(value if len(value) <= most else f"{value[: most - 1]}…" for value in shown) + _CUT


def _shown(value: Any, column: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value):,} bytes)"
    text = str(value)
    if len(text) > _MOST_VALUE:
        text = f"{text[:_MOST_VALUE]}… ({len(text):,} characters: {_rest(value, column)})"
    return _plain(text)


def _rest(value: Any, column: str) -> str:
    """Say by which expression a statement gets more of a value that is cut."""
    named = column if len(column) <= _MOST_NAME else "…"
    if isinstance(value, str):
        return f"substr({named}, {_MOST_VALUE + 1}, {_MOST_VALUE}) goes on"
    return f"read it in parts, with substr(CAST({named} AS TEXT), 1, {_MOST_VALUE})"


def _plain(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
