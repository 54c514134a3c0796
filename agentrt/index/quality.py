"""Quality: what makes a text no prose, data or notes, but debris.

The rules on repetition and symbols, and their limits, are those of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1
and section A.1.1), with four that are milder, since these are people's own documents and no crawl of the web: notes
may be shorter than 50 words, tables have few letters, a text may repeat its title (runs of ten words, 0.1 there), and
repeated lines count by their length, so that a short one such as "Read more" may stand everywhere.
Code, tables and headings repeat themselves by nature and are not judged by repetition.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from agentrt.index.script import count_words
from agentrt.index.structure import Block, blocks

_WORD: Final = re.compile(r"\S+")
_SYMBOLS: Final = re.compile(r"#+|\.\.\.|…")
_MOST_SYMBOLS: Final = 0.1
_LEAST_LETTERS: Final = 0.3
_MOST_REPEATED_LINES: Final = 0.3
_MOST_OF_ONE_RUN: Final = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED_RUN: Final = 10
_MOST_IN_REPEATED_RUNS: Final = 0.3
_JUDGED: Final = 100
"""How many words a text must have to be judged by its repetitions and symbols."""
_MOST_WORDS: Final = 20_000
"""How many words of a long text are judged: the first."""
_MOST_CHARACTERS: Final = 20 * _MOST_WORDS


def flaw(text: str, *, least_words: int) -> str | None:
    """Return what is wrong with a text, None if nothing is."""
    words = [found[0] for _, found in zip(range(_MOST_WORDS), _WORD.finditer(text), strict=False)]
    if count_words(text[:_MOST_CHARACTERS]) < least_words:
        return "too short"
    if sum(1 for word in words if any(map(str.isalpha, word))) < _LEAST_LETTERS * len(words):
        return "few letters"
    prose = [
        text[block.start : block.end] for block in blocks(text[:_MOST_CHARACTERS], markdown=True) if _is_prose(block)
    ]
    words = [word for part in prose for word in part.split()][:_MOST_WORDS]
    if len(words) < _JUDGED:
        return None
    if len(_SYMBOLS.findall(" ".join(words))) > _MOST_SYMBOLS * len(words):
        return "many symbols"
    return _repetition([line.strip() for part in prose for line in part.splitlines()], words)


def _is_prose(block: Block) -> bool:
    return block.kind in ("paragraph", "item")


def _repetition(lines: Sequence[str], words: Sequence[str]) -> str | None:
    if sum(map(len, lines)) - sum(map(len, set(lines))) > _MOST_REPEATED_LINES * sum(map(len, lines)):
        return "repeated lines"
    size = sum(map(len, words))
    if any(_most_frequent(words, n) > most * size for n, most in _MOST_OF_ONE_RUN.items()):
        return "repeated words"
    if _in_repeated(words, _REPEATED_RUN) > _MOST_IN_REPEATED_RUNS * size:
        return "repeated passages"
    return None


def _runs(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _most_frequent(words: Sequence[str], n: int) -> int:
    """Return how many characters the most frequent run of n words takes, if there is more than one of it."""
    ((run, count),) = Counter(_runs(words, n)).most_common(1)
    return count * sum(map(len, run)) if count > 1 else 0


def _in_repeated(words: Sequence[str], n: int) -> int:
    """Return how many characters stand in runs of n words that were there before, each counted once."""
    seen = set[tuple[str, ...]]()
    repeated = [False] * len(words)
    for i, run in enumerate(_runs(words, n)):
        if run in seen:
            repeated[i : i + n] = [True] * n
        seen.add(run)
    return sum(len(word) for word, again in zip(words, repeated, strict=True) if again)
