"""Boilerplate: lines that stand in many documents, such as headers, footers and notices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

from agentrt.index.document import Document

_LINE: Final = re.compile(r"[^\n\f]+")
_DIGITS: Final = re.compile(r"\d+")
_LONGEST: Final = 200
_RECORDS: Final = frozenset({"csv", "jsonl"})
"""Formats whose documents have the names of their fields in common."""


class Boilerplate:
    """Find the lines that stand in at least `least` documents and in at least `share` of all; numbers are alike.

    Takes 100 bytes for each different line of at most 200 characters.
    """

    def __init__(self, documents: Iterable[Document], *, least: int = 5, share: float = 0.3) -> None:
        counts: dict[bytes, int] = {}
        total = 0
        for document in documents:
            if document.metadata.get("format") in _RECORDS:
                continue
            total += 1
            for key in {_key(line[0]) for line in _lines(document.text)}:
                counts[key] = counts.get(key, 0) + 1
        self._repeated = {key for key, n in counts.items() if n >= max(least, share * total)}

    def __len__(self) -> int:
        return len(self._repeated)

    def blanked(self, document: Document) -> tuple[str, list[str]]:
        """Return a text with spaces in place of such lines, so that all else stays where it is, and the lines."""
        if not self._repeated or document.metadata.get("format") in _RECORDS:
            return document.text, []
        found = [line for line in _lines(document.text) if _key(line[0]) in self._repeated]
        parts, end = [], 0
        for line in found:
            parts += [document.text[end : line.start()], " " * len(line[0])]
            end = line.end()
        return "".join((*parts, document.text[end:])), [line[0].strip() for line in found]


def _lines(text: str) -> Iterator[re.Match[str]]:
    """Yield the lines that may be boilerplate: what is marked as heading, code or table may be in many documents."""
    for line in _LINE.finditer(text):
        if (
            len(line[0]) <= _LONGEST
            and any(map(str.isalnum, line[0]))
            and not line[0].lstrip().startswith(("#", "```"))
        ):
            yield line


def _key(line: str) -> bytes:
    plain = _DIGITS.sub("0", " ".join(line.split()).casefold())
    return blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest()
