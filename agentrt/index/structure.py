"""Structure: the headings and blocks of a text, as spans of it.

Lines are read one by one, never back: what pages and files hold may be anything, and no text takes long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agentrt.heading import heading

Kind: TypeAlias = Literal["heading", "paragraph", "item", "row", "code"]

_LINE: Final = re.compile(r"[^\n\f]*[\n\f]?")
_UNDERLINE: Final = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")
_FENCE: Final = re.compile(r"[ \t]*(`{3,}|~{3,})")
_ITEM: Final = re.compile(r"[ \t]*([-*+]|\d{1,9}[.)])[ \t]+\S")
_ROW: Final = re.compile(r"[ \t]*\||.*\S \| ")
_LONGEST_HEADING: Final = 200


@dataclass(frozen=True, slots=True)
class Block:
    """Hold where a block is in its text; of a heading its `level`, from 1, and its `title`."""

    start: int
    end: int
    kind: Kind = "paragraph"
    level: int = 0
    title: str = ""


def blocks(text: str, *, markdown: bool) -> Iterator[Block]:
    """Yield the blocks of a text in their order; in plain text, those between blank lines and page breaks."""
    return _Blocks(text, markdown).read()


class _Blocks:
    """Read the lines of a text; a block is open until a line ends it."""

    def __init__(self, text: str, markdown: bool) -> None:
        self._text = text
        self._markdown = markdown
        self._start = self._end = 0
        self._kind: Kind = "paragraph"
        self._lines = 0
        self._fence = ""

    def read(self) -> Iterator[Block]:
        for found in _LINE.finditer(self._text):
            line = found[0].rstrip()
            if self._fence:
                yield from self._in_code(line, found)
            elif not line.strip():
                yield from self._close()
            elif self._markdown:
                yield from self._marked(line, found)
            else:
                self._extend(found)
            if found[0].endswith("\f"):
                yield from self._close()
        yield from self._close()

    def _marked(self, line: str, found: re.Match[str]) -> Iterator[Block]:
        if len(line) <= _LONGEST_HEADING and (marked := heading(line)) and marked[1]:
            yield from self._close()
            yield Block(found.start(), found.start() + len(line), "heading", *marked)
        elif (under := _UNDERLINE.match(line)) and self._may_be_heading():
            title = self._text[self._start : self._end].strip()
            yield Block(self._start, found.start() + len(line), "heading", 1 if under[1][0] == "=" else 2, title)
            self._lines = 0
        elif fence := _FENCE.match(line):
            yield from self._close()
            self._extend(found, "code")
            self._fence = fence[1]
        elif _ROW.match(line) or _ITEM.match(line):
            yield from self._close()
            self._extend(found, "row" if _ROW.match(line) else "item")
        else:
            if self._lines and self._kind == "row":
                yield from self._close()
            self._extend(found)

    def _may_be_heading(self) -> bool:
        return self._lines == 1 and self._kind == "paragraph" and self._end - self._start <= _LONGEST_HEADING

    def _in_code(self, line: str, found: re.Match[str]) -> Iterator[Block]:
        self._extend(found)
        if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
            self._fence = ""
            yield from self._close()

    def _extend(self, found: re.Match[str], kind: Kind = "paragraph") -> None:
        if not self._lines:
            self._start, self._kind = found.start(), kind
        if found[0].strip():
            self._end = found.start() + len(found[0].rstrip())
        self._lines += 1

    def _close(self) -> Iterator[Block]:
        if self._fence and self._end:  # a page ends within code
            self._fence = ""
        if self._lines:
            yield Block(self._start, self._end, self._kind)
        self._lines = 0
