"""Words: what of a query full-text search looks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple
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


class Choice(NamedTuple):
    """Hold the words of which a passage must have one to be ranked, and those that only add to its score."""

    any: Sequence[str]
    more: Sequence[str]

    def whole(self) -> Choice:
        """Return the choice by which all passages with any of the words are ranked."""
        return Choice([*self.any, *self.more], [])


def chosen(counts: Mapping[str, int], n: int, *, passages: int, among: int | None = None) -> Choice:
    """Choose the words of a query that say which passages are ranked: the rarest, in some thousand passages together.

    counts: how many passages of the index have each word; what is nowhere is left out. n: how many are to be found.
    among: how many of all `passages` may be found at all, where that is fewer.

    To rank all that have some common word takes as long as there are such passages. Those without a rarer word could
    be among the best only if common words weighed more than rare ones; in the others, common words count as they do.
    """
    asked = sorted((word for word, count in counts.items() if count), key=counts.__getitem__)
    if among is not None and among <= MOST_RANKED:
        return Choice(asked, [])
    most = MOST_RANKED if among is None else MOST_RANKED * passages / among
    total = 0
    for place, word in enumerate(asked):
        if place and total >= n and total + counts[word] > most:
            return Choice(asked[:place], asked[place:])
        total += counts[word]
    return Choice(asked, [])


def any_of(words: Iterable[str]) -> str:
    """Write the FTS5 query for passages with any of the words: each quoted, so that nothing in it is syntax."""
    return " OR ".join(f'"{word}"' for word in words)


def both(one: Iterable[str], other: Iterable[str]) -> str:
    """Write the FTS5 query for passages with a word of each."""
    return f"({any_of(one)}) AND ({any_of(other)})"
