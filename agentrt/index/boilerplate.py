"""Boilerplate: lines that stand in many documents, such as headers, footers and notices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

from agentrt.index.document import Document
from agentrt.index.structure import blocks

_LINE: Final = re.compile(r"[^\n\f]+")
_LONGEST: Final = 200
_MOST: Final = 0.5
"""How much of a text may be boilerplate: what has more in common with others is a copy of them."""
RECORDS: Final = frozenset({"csv", "jsonl"})
"""Formats whose documents have the names of their fields in common."""


class Boilerplate:
    """Find the lines of prose that stand, but for space, in at least `least` different texts and `share` of all.

    Headings, tables and code have lines in common by nature, and are left alone. Takes 100 bytes for each different
    line of at most 200 characters.
    """

    def __init__(self, documents: Iterable[Document], *, least: int = 5, share: float = 0.3) -> None:
        counts: dict[bytes, int] = {}
        texts = set[bytes]()
        for document in documents:
            if document.metadata.get("format") in RECORDS or (text := _digest(document.text)) in texts:
                continue
            texts.add(text)
            for key in {_key(line[0]) for line in _lines(document.text)}:
                counts[key] = counts.get(key, 0) + 1
        self._repeated = {key for key, n in counts.items() if n >= max(least, share * len(texts))}

    def __len__(self) -> int:
        return len(self._repeated)

    def blanked(self, document: Document) -> tuple[str, list[str]]:
        """Return a text with spaces in place of such lines, so that all else stays where it is, and the lines."""
        text = document.text
        if not self._repeated or document.metadata.get("format") in RECORDS:
            return text, []
        found = [line for line in _lines(text) if _key(line[0]) in self._repeated]
        if sum(len(line[0].strip()) for line in found) > _MOST * len(text.strip()):
            return text, []
        parts, end = [], 0
        for line in found:
            parts += [text[end : line.start()], " " * len(line[0])]
            end = line.end()
        return "".join((*parts, text[end:])), [line[0].strip() for line in found]


def _lines(text: str) -> Iterator[re.Match[str]]:
    """Yield the lines that may be boilerplate."""
    for block in blocks(text, markdown=True):
        if block.kind in ("paragraph", "item"):
            for line in _LINE.finditer(text, block.start, block.end):
                if len(line[0]) <= _LONGEST and any(map(str.isalnum, line[0])):
                    yield line


def _key(line: str) -> bytes:
    return _digest(" ".join(line.split()))


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
