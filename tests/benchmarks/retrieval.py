"""Making and searching an index, beside bm25s in the same run; and how well it finds, on Cranfield and known items.

    python -m tests.benchmarks.retrieval [CHUNKS]
    AGENTRT_DATA=FOLDER python -m tests.benchmarks.retrieval quality
    python -m tests.benchmarks.retrieval known

Chunks are 200 words each, drawn by Zipf's law from 50,000; a query is eight words drawn from one of them, common ones
too. What the texts take to be drawn is not counted. bm25s (`pip install bm25s PyStemmer`) gets all texts at once, as it
must. Known items are passages of 30 words of the docstrings of the standard library; a query is some words of one of
them, which is to be found.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import resource
import statistics
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from math import log2
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import anyio
import numpy as np

from agentrt import Passage, Query, embedder
from agentrt.embedding import Vector
from agentrt.index import Document, Mode, PostgresIndex, SqliteIndex, StoredIndex
from agentrt.index.comparison import peer as peer_rankings
from agentrt.index.evaluation import estimate, reciprocal_rank, scores
from tests.stores.postgresql import Server

CHUNKS = 100_000
WORDS_OF_CHUNK, VOCABULARY, WORDS_OF_QUERY, QUERIES = 200, 50_000, 8, 200
DRAWN_AT_ONCE = 1000


def words() -> np.ndarray:
    """Return made-up words, the commonest first."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    return np.array([syllables[i % 70] + syllables[i // 70 % 70] + syllables[i // 4900] for i in range(VOCABULARY)])


class Texts:
    """Draw texts, the same for the same seed; `seconds` is what that took."""

    def __init__(self, n: int, seed: int = 1) -> None:
        self._n, self._random, self._words = n, np.random.default_rng(seed), words()
        weights = 1 / np.arange(1, VOCABULARY + 1)
        self._weights = weights / weights.sum()
        self.seconds = self.cpu = 0.0

    def __iter__(self) -> Iterator[str]:
        for first in range(0, self._n, DRAWN_AT_ONCE):
            began, cpu = time.perf_counter(), time.process_time()
            shape = (min(DRAWN_AT_ONCE, self._n - first), WORDS_OF_CHUNK)
            texts = [" ".join(row) for row in self._words[self._random.choice(VOCABULARY, shape, p=self._weights)]]
            self.seconds += time.perf_counter() - began
            self.cpu += time.process_time() - cpu
            yield from texts


class TimedEmbedder:
    """Embed, and count the seconds."""

    def __init__(self) -> None:
        self._embedder = embedder("wordllama")
        self.seconds = self.cpu = 0.0

    async def __call__(self, texts: Sequence[str]) -> Sequence[Vector]:
        began, cpu = time.perf_counter(), time.process_time()
        vectors = (await self._embedder.embed(texts)).vectors
        self.seconds += time.perf_counter() - began
        self.cpu += time.process_time() - cpu
        return vectors


async def build(path: Path, n: int) -> tuple[float, float]:
    """Make an index; return the CPU seconds it took, embedding aside, and those of embedding."""
    index, texts, embed = SqliteIndex(path, make=True, embedder="wordllama"), Texts(n), TimedEmbedder()
    await embed(["warm"])
    embed.seconds = embed.cpu = 0.0
    before, began, cpu = peak(), time.perf_counter(), time.process_time()
    await index.update((Document(source=str(i), text=t) for i, t in enumerate(texts)), embed=embed)
    seconds, cpu = time.perf_counter() - began - texts.seconds, time.process_time() - cpu - texts.cpu
    size = os.stat(path).st_size / 1e6
    print(
        f"index  {n:,} chunks: {seconds:.1f} s, of it embedding {embed.seconds:.1f} s (CPU {cpu:.1f} s, embedding "
        f"{embed.cpu:.1f} s); {size:,.0f} MB; "
        f"peak memory {before:,.0f} MB before, {peak():,.0f} MB after",
        flush=True,
    )
    await index.aclose()
    return cpu - embed.cpu, embed.cpu


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def search(path: Path) -> None:
    random = np.random.default_rng(2)
    queries = [
        " ".join(random.choice(text.split(), WORDS_OF_QUERY, replace=False)) for text in Texts(QUERIES, seed=1)
    ]  # fmt: skip
    for mode in ("text", "vector", "hybrid"):
        index = SqliteIndex(path, mode=mode)
        began = time.perf_counter()
        await index.search(queries[0], 10)
        first = time.perf_counter() - began
        taken = sorted([await timed(index, query) for query in queries])
        found = [p.source for p in await index.search(queries[7], 10)]
        print(
            f"{mode:7} p50 {statistics.median(taken):.1f} ms, p95 {taken[int(len(taken) * 0.95)]:.1f} ms, the first "
            f"{first * 1000:.0f} ms; the source of the query is {'' if '7' in found else 'not '}among the ten found",
            flush=True,
        )
        await index.aclose()


async def timed(index: SqliteIndex, query: str) -> float:
    began = time.perf_counter()
    await index.search(query, 10)
    return (time.perf_counter() - began) * 1000


def peer(n: int) -> float:
    import bm25s

    texts = list(Texts(n))
    began, cpu = time.perf_counter(), time.process_time()
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    cpu = time.process_time() - cpu
    print(f"bm25s  {n:,} chunks: {time.perf_counter() - began:.1f} s (CPU {cpu:.1f} s)", flush=True)
    return cpu


class Collection:
    """Read the Cranfield collection, and measure rankings of it."""

    def __init__(self, folder: Path) -> None:
        self.documents = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
        self.queries = [json.loads(line) for line in (folder / "queries.jsonl").open()]
        self._gains: dict[str, dict[str, int]] = {}
        for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
            query, document, gain = line.split()
            self._gains.setdefault(query, {})[document] = int(gain)

    def ndcg(self, query: str, ranking: Sequence[str]) -> float:
        gains = self._gains.get(query, {})
        ideal = _dcg(sorted(gains.values(), reverse=True)[:10])
        return _dcg([gains.get(document, 0) for document in ranking[:10]]) / ideal if ideal else 0.0

    def report(self, name: str, rankings: Mapping[str, Sequence[str]]) -> None:
        """Print nDCG@10 of all queries, and of those with odd and with even numbers: a setting should gain on both."""
        scores = [self.ndcg(query, ranking) for query, ranking in rankings.items()]
        halves = statistics.mean(scores[::2]), statistics.mean(scores[1::2])
        print(f"{name:8} nDCG@10 {statistics.mean(scores):.4f}  odd {halves[0]:.4f}  even {halves[1]:.4f}", flush=True)


def _dcg(gains: Sequence[int]) -> float:
    return sum((2**gain - 1) / log2(rank + 1) for rank, gain in enumerate(gains, 1))


async def quality(folder: Path, path: Path) -> None:
    collection = Collection(folder)
    documents = [Document(source=d["id"], title=d["title"], text=d["text"]) for d in collection.documents]
    collection.report("bm25s", bm25s_rankings(collection))
    print("SQLite")
    await compare(SqliteIndex(path, make=True, embedder="wordllama"), collection, documents)
    print("PostgreSQL")
    with Server() as server:
        await compare(await PostgresIndex.open(server.url, make=True, embedder="wordllama"), collection, documents)


async def compare(index: StoredIndex, collection: Collection, documents: Sequence[Document]) -> None:
    await index.update(documents)
    for mode in get_args(Mode):
        index.mode = mode
        found = {q["id"]: await index.search(Query(q["text"]), 10) for q in collection.queries}
        collection.report(mode, {q: [p.source for p in passages] for q, passages in found.items()})
    await index.aclose()


def bm25s_rankings(collection: Collection) -> dict[str, list[str]]:
    passages = [Passage(text=d["text"], title=d["title"], source=d["id"]) for d in collection.documents]
    return peer_rankings(passages, {q["id"]: q["text"] for q in collection.queries}, 10)


def docstrings() -> list[str]:
    """Return the docstrings of the standard library in passages of 30 words, each once."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [f for f in sorted(root.rglob("*.py")) if "site-packages" not in f.parts]
    found: dict[str, None] = {}
    for file in files:
        for text in re.findall(r'"""(.*?)"""', file.read_bytes().decode("utf-8", "replace"), re.DOTALL):
            words = text.split()
            found |= {" ".join(words[i : i + 30]): None for i in range(0, len(words) - 20, 30)}
    return list(found)


def known_queries(texts: Sequence[str], n: int, words: int, *, common: bool) -> dict[str, tuple[int, str]]:
    """Return queries of some words of a passage, any of them or its commonest, and which passage that is."""
    draw = random.Random(f"{words} {common}")
    each = [list(dict.fromkeys(w.lower() for w in re.findall(r"[A-Za-z]{2,}", text))) for text in texts]
    counts = Counter(word for words_of in each for word in words_of)
    queries: dict[str, tuple[int, str]] = {}
    for item in draw.sample([i for i, words_of in enumerate(each) if len(words_of) >= words], n):
        among = sorted(each[item], key=lambda w: -counts[w])[: 2 * words] if common else each[item]
        queries[str(len(queries))] = item, " ".join(draw.sample(among, min(words, len(among))))
    return queries


async def known(path: Path) -> None:
    """Print how well known items are found, by words of the index and by bm25s."""
    texts = docstrings()
    print(f"{len(texts):,} passages")
    passages = [Passage(text=text, source=str(i)) for i, text in enumerate(texts)]
    documents = [Document(source=p.source, text=p.text) for p in passages]
    with Server() as server:
        indexes = {
            "SQLite": SqliteIndex(path, make=True),
            "PostgreSQL": await PostgresIndex.open(server.url, make=True),
        }
        for index in indexes.values():
            await index.update(documents)
        for words, common in ((3, False), (3, True), (8, False), (8, True)):
            queries = known_queries(texts, 1000, words, common=common)
            asked = {q: text for q, (_, text) in queries.items()}
            found = {
                name: {q: [p.source for p in await index.search(t, 100)] for q, t in asked.items()}
                for name, index in indexes.items()
            }
            found["bm25s"] = peer_rankings(passages, asked, 100)
            found["bm25s, stop words kept"] = peer_rankings(passages, asked, 100, stopwords=[])
            qrels = {q: {str(item): 1.0} for q, (item, _) in queries.items()}
            for name, rankings in found.items():
                ranks = scores(rankings, qrels, reciprocal_rank)
                ours = scores(found["SQLite"], qrels, reciprocal_rank)
                lead = estimate([a - b for a, b in zip(ours, ranks, strict=True)])
                kind = f"{words} words, {'common' if common else 'any':6}"
                print(f"{kind}  {name:24} MRR {estimate(ranks)}, SQLite leads by {lead}", flush=True)
        for index in indexes.values():
            await index.aclose()


async def main(arguments: Sequence[str]) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("apsw", "numpy", "wordllama", "bm25s", "PyStemmer"))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()} {platform.system()}, "
        f"Python {platform.python_version()}, {packages}, load {os.getloadavg()[0]:.1f}"
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.db"
        if arguments == ["known"]:
            await known(path)
            return
        if arguments == ["quality"]:
            await quality(Path(os.environ["AGENTRT_DATA"]) / "cranfield", path)
            return
        n = int(arguments[0]) if arguments else CHUNKS
        writing, embedding = await build(path, n)
        await search(path)
        peers = peer(n)
        whole = (writing + embedding) / (peers + embedding)
        print(f"CPU without embedding {writing / peers:.2f} times bm25s; with it {whole:.2f}")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
