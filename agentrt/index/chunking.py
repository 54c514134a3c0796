"""Chunking: documents cut into passages along their headings, paragraphs and sentences."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from agentrt.errors import DefinitionError
from agentrt.index.document import Document
from agentrt.index.script import WORD, count_words
from agentrt.index.structure import Block, blocks
from agentrt.passage import Metadata, Passage

Measure = Callable[[str], int]

_MARKED: Final = frozenset({"markdown", "html"})
_SENTENCE: Final = re.compile(r"(?<=[.!?…])[\"'”’)\]]{0,3}\s+|(?<=[。！？])|\n\s*\n")
_LINES: Final = re.compile(r"\n")


@dataclass(frozen=True, slots=True)
class Chunker:
    """Cut documents into passages of at most `size` words, each within one section, and on one page.

    Whole paragraphs, list items, rows and blocks of code stay together where they fit; longer ones are cut between
    sentences or lines, and longer sentences between words. A passage is its document's text from `start` on, as it
    stands there; its title is the path of headings above it, which are not part of its text. Where the text has pages,
    `page` in the metadata is the one it is on, from 1. A document is read as Markdown, with headings, lists, tables and
    code, where its `format` is that, or HTML. Words are those of `agentrt.index.script`.

    overlap: how many words of the passage before are repeated at most, in whole sentences, within a section.
    measure: counts what a text has in place of words, such as the tokens of an embedder.
    """

    size: int = 200
    overlap: int = 40
    measure: Measure = count_words

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap < self.size:
            raise DefinitionError(f"size={self.size}, overlap={self.overlap}: 0 <= overlap < size, please")

    def __call__(self, document: Document) -> Iterator[Passage]:
        """Yield the passages of a document in their order."""
        text, pages = document.text, _pages(document.text)
        marked = document.format in _MARKED
        position = 0
        for section in _sections(blocks(text, markdown=marked), document.title):
            for start, end in self._spans(text, section.blocks, pages):
                yield Passage(
                    text=text[start:end],
                    source=document.source,
                    position=position,
                    title=section.title,
                    start=start,
                    metadata=_on_page(document.metadata, pages, start),
                )
                position += 1

    def _spans(self, text: str, parts: Sequence[Block], pages: Sequence[int]) -> Iterator[tuple[int, int]]:
        for _, on_page in groupby(parts, lambda block: bisect_right(pages, block.start)):
            packing = _Packing(self.size, self.overlap)
            for block in on_page:
                yield from packing.add(list(self._atoms(text, block)))
            yield from packing.rest()

    def _atoms(self, text: str, block: Block) -> Iterator[_Atom]:
        """Yield what a block may be cut into: its sentences or lines; of one that is too long, its words."""
        between = _LINES if block.kind in ("code", "row") else _SENTENCE
        for start, end in _between(between, text, block.start, block.end):
            size = self.measure(text[start:end])
            if size <= self.size:
                yield _Atom(start, end, size)
            else:
                for word in WORD.finditer(text, start, end):
                    yield _Atom(word.start(), word.end(), min(self.measure(word[0]), self.size))


@dataclass(frozen=True, slots=True)
class _Atom:
    start: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    blocks: Sequence[Block]


class _Packing:
    """Fill passages with atoms, a block's together where they fit."""

    def __init__(self, size: int, overlap: int) -> None:
        self._size = size
        self._overlap = overlap
        self._atoms: list[_Atom] = []
        self._fresh = 0
        """How many atoms at the end are in no passage yet; those before are repeated."""
        self._filled = 0

    def add(self, block: Sequence[_Atom]) -> Iterator[tuple[int, int]]:
        whole = sum(atom.size for atom in block)
        if self._fresh and self._filled + whole > self._size and (whole <= self._size or 2 * self._filled > self._size):
            yield self._close()
        if whole <= self._size:
            self._make_room(whole)
        for atom in block:
            if self._fresh and self._filled + atom.size > self._size:
                yield self._close()
            self._make_room(atom.size)
            self._atoms.append(atom)
            self._filled += atom.size
            self._fresh += 1

    def rest(self) -> Iterator[tuple[int, int]]:
        if self._fresh:
            yield self._close()

    def _close(self) -> tuple[int, int]:
        """End the passage, and begin the next with what of it is repeated."""
        span = self._atoms[0].start, self._atoms[-1].end
        kept = list[_Atom]()
        self._filled = 0
        for atom in reversed(self._atoms[1:]):
            if self._filled + atom.size > self._overlap:
                break
            kept.append(atom)
            self._filled += atom.size
        self._atoms, self._fresh = kept[::-1], 0
        return span

    def _make_room(self, size: int) -> None:
        """Repeat less where what comes would not fit otherwise."""
        if self._fresh:
            return
        gone = 0
        while gone < len(self._atoms) and self._filled + size > self._size:
            self._filled -= self._atoms[gone].size
            gone += 1
        del self._atoms[:gone]


def _sections(parts: Iterable[Block], title: str) -> Iterator[_Section]:
    """Yield what stands under each heading; a heading with nothing under it, not even others, is its own text."""
    path: list[Block] = []
    under: list[Block] = []
    for block in parts:
        if block.kind != "heading":
            under.append(block)
            continue
        if under:
            yield _Section(_path(title, path), under)
        elif path and block.level <= path[-1].level:
            yield _Section(_path(title, path), [path[-1]])
        under = []
        path = [h for h in path if h.level < block.level] + [block]
    if under or path:
        yield _Section(_path(title, path), under or [path[-1]])


def _path(title: str, path: Sequence[Block]) -> str:
    names = [title, *(heading.title for heading in path)]
    return " > ".join(name for i, name in enumerate(names) if name and name not in names[:i])


def _between(separator: re.Pattern[str], text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the spans between separators, without the space around them; closing quotes stay with their sentence."""
    begin = start
    for found in separator.finditer(text, start, end):
        yield from _trimmed(text, begin, found.end())
        begin = found.end()
    yield from _trimmed(text, begin, end)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    part = text[start:end]
    stripped = part.strip()
    if stripped:
        begin = start + len(part) - len(part.lstrip())
        yield begin, begin + len(stripped)


def _pages(text: str) -> list[int]:
    return [found.start() for found in re.finditer("\f", text)]


def _on_page(metadata: Metadata, pages: Sequence[int], start: int) -> Metadata:
    return (
        {**metadata, "page": bisect_right(pages, start) + 1} if pages or metadata.get("format") == "pdf" else metadata
    )
