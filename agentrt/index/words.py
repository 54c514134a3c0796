"""Words: what of a query full-text search looks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from unicodedata import combining, normalize

_WORD: Final = re.compile(r"[^\W_]+")
_MOST_WORDS: Final = 200
MOST_RANKED: Final = 5_000
"""How many passages BM25 ranks for one query, some microseconds each: the rarest words of it choose which."""


def plain(text: str) -> str:
    """Return the words of a text alone, without accents, for a database that would cut it otherwise."""
    letters = "".join(c for c in normalize("NFKD", text) if not combining(c))
    return " ".join(_WORD.findall(letters))


def words_in(query: str) -> list[str]:
    """Return the different words of a query, at most 200, without case."""
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(query)))[:_MOST_WORDS]


def rarest(counts: Mapping[str, int], most: int) -> list[str]:
    """Return the rarest words, as many as are found `most` times at most together, and at least one.

    counts: how many passages have each word. Ranking every passage that has some common word takes as long as
    there are such passages, and says little: a common word weighs little.
    """
    kept, total = list[str](), 0
    for word, count in sorted(counts.items(), key=lambda pair: pair[1]):
        total += count
        if kept and total > most:
            break
        if count:
            kept.append(word)
    return kept


def any_of(words: Iterable[str]) -> str:
    """Write the FTS5 query for passages with any of the words: each quoted, so that nothing in it is syntax."""
    return " OR ".join(f'"{word}"' for word in words)
