"""Loading: files and folders as documents, with a report of what could not be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

from agentrt.errors import DefinitionError
from agentrt.index.conditions import storable
from agentrt.index.confined import Parsers, Unreadable
from agentrt.index.document import FORMATS, Document
from agentrt.index.encoding import encoding_of, is_ascii
from agentrt.index.files import find_files
from agentrt.index.html import readable
from agentrt.index.problem import Problem
from agentrt.index.records import json_lines, rows
from agentrt.index.roots import Roots
from agentrt.index.structure import blocks

PAGE_BREAK: Final = "\f"
"""What stands between two pages in the text of a document."""
_LONGEST_LINE: Final = 5_000_000
_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*(?:[\"']\s*)?([\w.:-]+)", re.IGNORECASE)


class Loading:
    """Iterate over the documents of files and folders, one file at a time; `problems` tells what was not read.

    base: documents are named by their path from there; without it from the folder, or that which holds all of them.
    largest: files of more bytes are left out. CSV and JSON lines are read line by line and may be of any size.
    seconds: how long one page of HTML or one PDF may take.

    Raises `DefinitionError` for a path that does not exist; whatever else is wrong is a problem, and the rest goes on.
    """

    def __init__(
        self,
        *paths: str | Path,
        base: str | Path | None = None,
        largest: int = 100_000_000,
        seconds: float = 60.0,
    ) -> None:
        self.paths = [Path(p) for p in paths]
        self.base = base
        self.largest = largest
        self.seconds = seconds
        self.problems: list[Problem] = []
        self.files = 0

    def __iter__(self) -> Iterator[Document]:
        self.problems.clear()
        self.files = 0
        seen: set[str] = set()
        roots = Roots.of(self.paths, self.base)
        with Parsers(seconds=self.seconds) as parsers:
            for path in roots.paths:
                prefix = roots.prefix(path)
                for found in find_files(path):
                    yield from self._new(self._file(_named(prefix, found), parsers), seen)

    def is_gone(self, source: str) -> bool:
        """Say whether a document that was not read is there no more, so that an index may forget it.

        One of a file or folder that could not be read this time may be: `update(loading, prune=loading.is_gone)`.
        """
        unread = (problem.source for problem in self.problems if problem.unread)
        return not any(source == u or source.startswith(u if u.endswith("/") else f"{u}:") or u == "./" for u in unread)

    def _new(self, found: Iterator[Document | Problem], seen: set[str]) -> Iterator[Document]:
        """Yield documents that have text and a name of their own, and note the rest."""
        for one in found:
            if isinstance(one, Problem):
                self.problems.append(one)
            elif not one.text.strip():
                self.problems.append(Problem(one.source, "there is no text in it"))
            elif storable(one.source) in seen:
                self.problems.append(Problem(one.source, "a document of this name was read before"))
            else:
                seen.add(storable(one.source))
                yield one

    def _file(self, found: tuple[str, Path] | Problem, parsers: Parsers) -> Iterator[Document | Problem]:
        if isinstance(found, Problem):
            yield found
            return
        source, file = found
        self.files += 1
        try:
            yield from self._read(source, file, parsers)
        except (Unreadable, DefinitionError, UnicodeError) as error:
            yield Problem(source, str(error), unread=True)
        except OSError as error:
            yield Problem(source, f"it cannot be read: {error.strerror or error}", unread=True)

    def _read(self, source: str, file: Path, parsers: Parsers) -> Iterator[Document | Problem]:
        kind = FORMATS[file.suffix.lower()]
        size = file.stat().st_size
        if size > self.largest and kind not in ("csv", "jsonl"):
            yield Problem(source, f"it has {size:,} bytes, more than {self.largest:,}", unread=True)
        elif kind == "pdf":
            yield from _pdf(source, file, parsers)
        else:
            encoding, guessed = encoding_of(file, _declared(file) if kind == "html" else None)
            if guessed:
                yield Problem(source, f"it is not UTF-8; read as {encoding}", lost=False)
            yield from _text(source, file, kind, encoding, parsers)


def load(*paths: str | Path) -> Loading:
    """Return what iterates over the documents of files and folders; raises as `Loading` says."""
    return Loading(*paths)


def _named(prefix: str, found: tuple[str, Path] | Problem) -> tuple[str, Path] | Problem:
    if isinstance(found, Problem):
        return replace(found, source=prefix + found.source.removeprefix("./") or "./")
    return prefix + found[0], found[1]


def _text(source: str, file: Path, kind: str, encoding: str, parsers: Parsers) -> Iterator[Document | Problem]:
    if kind in ("csv", "jsonl"):
        with file.open(encoding=encoding, newline="" if kind == "csv" else None) as stream:
            yield from (rows if kind == "csv" else json_lines)(_lines(stream), source)
        return
    text = file.read_text(encoding=encoding)
    title = ""
    if kind == "html":
        page = readable(text, parsers=parsers)
        title, text = page.title, page.text
    elif kind == "markdown":
        title = next((block.title for block in blocks(text, markdown=True) if block.kind == "heading"), "")
    yield Document(source=source, text=text, title=title or file.stem, metadata={"format": kind})


def _lines(stream: TextIO) -> Iterator[str]:
    """Yield lines; raises `Unreadable` for one that is too long to be held, and what comes after it is not read."""
    number = 0
    while line := stream.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise Unreadable(f"line {number} has more than {_LONGEST_LINE:,} characters: it and the rest are not read")
        yield line


def _why_empty(failed: Mapping[str, str]) -> str:
    """Say why no page of a PDF has text; `failed` holds why pages could not be read, by their number."""
    for number, why in failed.items():
        return f"page {number} cannot be read: {why}"
    return "there is no text on its pages: they may be pictures"


def _declared(file: Path) -> str | None:
    with file.open("rb") as stream:
        found = _CHARSET.search(stream.read(2048))
    named = found[1].decode("ascii", "replace") if found else None
    return named if named and is_ascii(named) else None


def _pdf(source: str, file: Path, parsers: Parsers) -> Iterator[Document | Problem]:
    """Yield a PDF as one document, and a problem for each page that has no text."""
    read = parsers.parse("pdf", file.read_bytes())
    pages = [page.replace(PAGE_BREAK, "\n") for page in read["pages"]]
    if not any(page.strip() for page in pages):
        yield Problem(source, _why_empty(read["failed"]))
        return
    for number, page in enumerate(pages, 1):
        if not page.strip():
            yield Problem(source, read["failed"].get(str(number)) or "there is no text on it", f"page {number}")
    text = PAGE_BREAK.join(pages)
    yield Document(source=source, text=text, title=read["title"] or file.stem, metadata={"format": "pdf"})
