"""Records: the rows of a table and the lines of JSON, each a document of its own."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from agentrt.index.document import Document
from agentrt.index.problem import Problem
from agentrt.index.table import Table, Wrong
from agentrt.passage import Fact

_TEXTS: Final = ("text", "content", "body", "contents", "abstract")
_IDS: Final = ("_id", "id")
_OWN: Final = ("format", "line")
"""Names in the metadata that are not the fields'."""
_LONGEST_FACT: Final = 200
_GREATEST: Final = 1 << 63
"""Databases keep integers below it."""
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d*[1-9])?", re.ASCII)


def rows(lines: Iterable[str], source: str) -> Iterator[Document | Problem]:
    """Yield a document for each row of CSV, whose first row names the columns.

    The delimiter is the header's most used, or what a line `sep=;` before it says. A row of another length is a
    problem, and so is one whose quotes do not fit.
    """
    records: _Records | None = None
    columns: Sequence[str] = ()
    for found in Table(lines):
        if isinstance(found, Wrong):
            yield Problem(source, found.why, found.place)
            if records is None:
                yield Problem(source, "without its header no row is read")
                return
        elif records is None:
            records = _Records(source, "csv")
            named = [name.strip() or f"column {i}" for i, name in enumerate(found.fields, 1)]
            columns = _distinct(named)
            yield from (records.called(a, b) for a, b in zip(named, columns, strict=True) if a != b)
        elif len(found.fields) != len(columns):
            yield Problem(source, f"{len(found.fields)} fields under {len(columns)} columns", found.place)
        else:
            fields = dict(zip(columns, map(_number, found.fields), strict=True))
            yield from records.read(fields, found.first)


def _distinct(names: Iterable[str], taken: Collection[str] = ()) -> list[str]:
    """Return names with a number after each that is taken."""
    used = dict.fromkeys(taken, 1)
    distinct: list[str] = []
    for name in names:
        free = name
        while free in used:
            used[name] = n = used.get(name, 1) + 1
            free = f"{name} {n}"
        used[free] = 1
        distinct.append(free)
    return distinct


def _number(text: str) -> str | int | float:
    """Return what is written as a number as one, so that it can be compared; 007 and the like are text."""
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def json_lines(lines: Iterable[str], source: str) -> Iterator[Document | Problem]:
    """Yield a document for each line of JSON: an object, or a text."""
    records = _Records(source, "jsonl")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            value = {"text": value} if isinstance(value, str) else value
            if isinstance(value, dict):
                yield from records.read(value, number)
            else:
                yield Problem(source, "neither an object nor a text", f"line {number}")
        except (ValueError, RecursionError) as error:
            yield Problem(source, f"no JSON: {error}", f"line {number}")


class _Records:
    """Make documents of named fields; what is true of every record of a file is told once."""

    def __init__(self, source: str, kind: str) -> None:
        self._source = source
        self._kind = kind
        self._called: set[str] = set()

    def called(self, name: str, instead: str) -> Problem:
        return Problem(self._source, f"the field {name!r} is called {instead!r}: the name is taken", lost=False)

    def read(self, fields: Mapping[str, Any], line: int) -> Iterator[Document | Problem]:
        """Yield a document: its text is the field of that name, else all of them.

        It is named by its id, else by its line; short fields are its metadata, too.
        """
        name = next((str(fields[i]) for i in _IDS if fields.get(i) not in (None, "")), str(line))
        title = fields.get("title")
        text = next((fields[t] for t in _TEXTS if isinstance(fields.get(t), str)), None)
        facts = {n: v for n, v in fields.items() if _is_fact(v) and n not in (*_IDS, *_TEXTS, "title")}
        if text is None:
            text = "\n".join(f"{n}: {_shown(v)}" for n, v in fields.items() if v not in (None, ""))
        for odd in [n for n, v in facts.items() if not _is_kept(v)]:
            yield Problem(self._source, f"{odd!r} is no number that can be kept: it is left out", f"line {line}")
            del facts[odd]
        names = _distinct(facts, _OWN)
        yield from self._renamed(facts, names)
        yield Document(
            source=f"{self._source}:{name}",
            text=text,
            title=title if isinstance(title, str) else "",
            metadata={**dict(zip(names, facts.values(), strict=True)), "format": self._kind, "line": line},
        )

    def _renamed(self, facts: Iterable[str], names: Iterable[str]) -> Iterator[Problem]:
        for old, new in zip(facts, names, strict=True):
            if old != new and old not in self._called:
                self._called.add(old)
                yield self.called(old, new)


def _is_fact(value: object) -> bool:
    return isinstance(value, Fact) and not (isinstance(value, str) and len(value) > _LONGEST_FACT)


def _is_kept(value: object) -> bool:
    """Say whether a database can keep a value: JSON has no infinite numbers, and integers have 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -_GREATEST <= value < _GREATEST


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
