"""Records: the rows of a table and the lines of JSON, each a document of its own."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from agentrt.index.document import Document
from agentrt.index.problem import Problem
from agentrt.passage import Fact

_TEXTS: Final = ("text", "content", "body", "contents", "abstract")
_IDS: Final = ("_id", "id")
_DELIMITERS: Final = ",;\t|"
_LONGEST_FACT: Final = 200
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d*[1-9])?")


def rows(lines: Iterable[str], source: str) -> Iterator[Document | Problem]:
    """Yield a document for each row of CSV, whose first row names the columns; the delimiter is the header's most used.

    A row of another length is a problem.
    """
    lines = iter(lines)
    head = next(lines, "")
    reader = csv.reader(_from(head, lines), delimiter=max(_DELIMITERS, key=head.count))
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # the reader goes on with the next line
            yield Problem(source, str(error), f"line {line}")
            continue
        if not any(row):
            continue
        if columns is None:
            columns = [name.strip() or f"column {i}" for i, name in enumerate(row, 1)]
        elif len(row) != len(columns):
            yield Problem(source, f"{len(row)} fields under {len(columns)} columns", f"line {line}")
        else:
            fields = {name: _number(value) for name, value in zip(columns, row, strict=True)}
            yield record(fields, source, line, "csv")


def _number(text: str) -> str | int | float:
    """Return what is written as a number as one, so that it can be compared; 007 and the like are text."""
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _from(head: str, lines: Iterator[str]) -> Iterator[str]:
    yield head
    yield from lines


def json_lines(lines: Iterable[str], source: str) -> Iterator[Document | Problem]:
    """Yield a document for each line of JSON: an object, or a text."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Problem(source, f"no JSON: {error}", f"line {number}")
            continue
        value = {"text": value} if isinstance(value, str) else value
        if isinstance(value, dict):
            yield record(value, source, number, "jsonl")
        else:
            yield Problem(source, "neither an object nor a text", f"line {number}")


def record(fields: Mapping[str, Any], source: str, line: int, kind: str) -> Document:
    """Make a document of named fields: its text is the field of that name, else all of them.

    It is named by its id, else by its line; short fields are its metadata, too.
    """
    name = next((str(fields[i]) for i in _IDS if fields.get(i) not in (None, "")), str(line))
    title = fields.get("title")
    text = next((fields[t] for t in _TEXTS if isinstance(fields.get(t), str)), None)
    facts = {n: v for n, v in fields.items() if _is_fact(v) and n not in (*_IDS, *_TEXTS, "title")}
    if text is None:
        text = "\n".join(f"{n}: {_shown(v)}" for n, v in fields.items() if v not in (None, ""))
    return Document(
        source=f"{source}:{name}",
        text=text,
        title=title if isinstance(title, str) else "",
        metadata={**facts, "format": kind, "line": line},
    )


def _is_fact(value: object) -> bool:
    return isinstance(value, Fact) and not (isinstance(value, str) and len(value) > _LONGEST_FACT)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
