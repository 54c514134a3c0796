"""Rows: what a statement returns, as lines that a model reads.

Nothing but the standard library is imported here: the process that asks an SQLite file uses it, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST_COLUMNS: Final = 100
BATCH: Final = 50
_MOST_VALUE: Final = 500


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


def written(columns: Sequence[str], fetch: Callable[[], Sequence[Sequence[Any]]], wanted: Wanted) -> Rows:
    """Write rows, as many as fit; the others are not even fetched. Raises `TooMuch`."""
    if len(columns) > MOST_COLUMNS:
        raise TooMuch(f"the statement returns {len(columns):,} columns, at most {MOST_COLUMNS}: name those you need")
    lines, size = [_line(columns)], 0
    for number, row in enumerate(_fetched(fetch, wanted.seconds)):
        if number < wanted.offset:
            continue
        line = _line(row)
        size += len(line) + 1
        if number - wanted.offset >= wanted.rows or (size > wanted.characters and number > wanted.offset):
            return Rows(lines, number)
        lines.append(line)
    return Rows(lines if len(lines) > 1 else [*lines, "(no rows)" if not wanted.offset else "(no more rows)"])


def _fetched(fetch: Callable[[], Sequence[Sequence[Any]]], seconds: float) -> Iterator[Sequence[Any]]:
    ends = time.monotonic() + seconds
    while batch := fetch():
        yield from batch
        if time.monotonic() > ends:
            raise TooMuch(f"the rows took longer than {seconds:g} s: ask for less")


def _line(values: Sequence[Any]) -> str:
    return " | ".join(_shown(value) for value in values)


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value):,} bytes)"
    text = str(value)
    if len(text) > _MOST_VALUE:
        text = f"{text[:_MOST_VALUE]}… ({len(text):,} characters)"
    return text.replace("\r", "\\r").replace("\n", "\\n")
