"""Tables: the rows of CSV, and of what is no row where it is and why."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_DELIMITERS: Final = ",;\t|"
_LONGEST: Final = 5_000_000
"""How many characters a row may have: one whose quote is not closed would else take all the rest."""


@dataclass(frozen=True, slots=True)
class Row:
    """Hold the fields of a row, and the lines that it stands on."""

    fields: tuple[str, ...]
    first: int
    last: int

    @property
    def place(self) -> str:
        return f"line {self.first}" if self.first == self.last else f"lines {self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class Wrong:
    """Say why a line is no row."""

    why: str
    place: str


class Table:
    """Iterate over the rows of CSV, the header among them, and over what is wrong in it.

    Of a row whose quotes do not fit only the first line is given up: what comes after it is read again.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = _Lines(lines)

    def __iter__(self) -> Iterator[Row | Wrong]:
        delimiter = _delimiter(self._lines)
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))  # the module's own: it can only be set for all
        reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        while True:
            first = self._lines.begin()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Wrong(_why(error), f"line {first}")
                self._lines.go_back(keep=1)
                reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
                continue
            if any(fields):
                yield Row(tuple(fields), first, self._lines.number)


class _Lines:
    """Hand out lines one by one, and keep those of the row being read, so that they can be read again."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self._size = 0
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._size > _LONGEST:
            raise csv.Error(f"a quote is opened here and not closed within {_LONGEST:,} characters")
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self._row.append(line)
        self._size += len(line)
        return line

    def begin(self) -> int:
        """Begin a row, and return the number of its first line."""
        self._row.clear()
        self._size = 0
        return self.number + 1

    def go_back(self, *, keep: int) -> None:
        """Hand out the lines of this row again, but for some."""
        self._again.extendleft(reversed(self._row[keep:]))
        self.number -= len(self._row[keep:])


def _delimiter(lines: _Lines) -> str:
    """Return the delimiter, and leave out what stands before the header."""
    lines.begin()
    for line in lines:
        said = line.strip("\r\n")
        if len(said) == 5 and said.lower().startswith("sep="):
            return said[4]
        if said.strip():
            lines.go_back(keep=0)
            unquoted = "".join(line.split('"')[::2])
            return max(_DELIMITERS, key=unquoted.count)
        lines.begin()
    return ","


def _why(error: csv.Error) -> str:
    return "a quote is opened here and never closed" if "unexpected end" in str(error) else str(error)
