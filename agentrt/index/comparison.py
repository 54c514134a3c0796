"""Comparison: the same queries put to the ways of searching one index, and to bm25s on the same passages."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import anyio.to_thread

from agentrt.index.evaluation import documents_of
from agentrt.index.sqlite import SqliteIndex
from agentrt.index.stored import Mode
from agentrt.passage import Passage

PEER: Final = "bm25s"
_PASSAGES_A_DOCUMENT: Final = 3
"""How many times as many passages are asked for as documents wanted: several may be of one document."""


async def rankings(path: Path, queries: Mapping[str, str], k: int) -> dict[str, dict[str, list[str]]]:
    """Return the first k documents that each way finds for each query, by way; bm25s only where it is installed."""
    ways: dict[str, dict[str, list[str]]] = {}
    index = SqliteIndex(path)
    try:
        modes: Sequence[Mode] = get_args(Mode) if index.embedder is not None else ("text",)
        for mode in modes:
            index.mode = mode
            ways[mode] = {q: await _documents(index, text, k) for q, text in queries.items()}
        if is_installed(PEER):
            passages = [p for source in await index.sources() for p in await index.passages(source)]
            ways[PEER] = await anyio.to_thread.run_sync(peer, passages, queries, k)
    finally:
        await index.aclose()
    return ways


async def _documents(index: SqliteIndex, text: str, k: int) -> list[str]:
    found = await index.search(text, k * _PASSAGES_A_DOCUMENT)
    return documents_of([p.source for p in found])[:k]


def is_installed(module: str) -> bool:
    """Say whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


def peer(
    passages: Sequence[Passage], queries: Mapping[str, str], k: int, *, stopwords: str | list[str] = "en"
) -> dict[str, list[str]]:
    """Return what bm25s finds, without English stop words or others, and with stems where PyStemmer is installed."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    stemmer: Any = None
    if is_installed("Stemmer"):
        import Stemmer

        stemmer = Stemmer.Stemmer("english")

    def tokens(texts: Iterable[str]) -> Any:
        return bm25s.tokenize(list(texts), stopwords=stopwords, stemmer=stemmer, show_progress=False)

    engine = bm25s.BM25()
    engine.index(tokens(f"{p.title}\n{p.text}" for p in passages), show_progress=False)
    most = min(len(passages), k * _PASSAGES_A_DOCUMENT)
    found, scores = engine.retrieve(tokens(queries.values()), k=most, show_progress=False)
    return {
        query: documents_of([passages[i].source for i, score in zip(row, points, strict=True) if score > 0])[:k]
        for query, row, points in zip(queries, found, scores, strict=True)
    }
