"""What is special about an index in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import log

import pytest

from agentrt.errors import DefinitionError, IndexUnavailable
from agentrt.index import Document, PostgresIndex
from agentrt.index import postgres_search as module
from tests.index.embedders import topical
from tests.stores.postgresql import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def index(server: Server) -> AsyncIterator[PostgresIndex]:
    server.sql("DROP SCHEMA IF EXISTS agentrt_index CASCADE")
    opened = await PostgresIndex.open(server.url, make=True, embedder=topical())
    yield opened
    await opened.aclose()


async def test_words_are_ranked_by_bm25(server: Server, index: PostgresIndex) -> None:
    """The score is that of the formula: the times a word is there are told right, those in the title four times."""
    texts = ["zebra", "zebra zebra zebra pony", "pony", "cat cat", "zebra " * 12]
    documents = [Document(source=str(i), text=text, title="Zebra" if i == 2 else "") for i, text in enumerate(texts)]
    await index.update(documents)
    words = await PostgresIndex.open(server.url, make=True, embedder=topical(), mode="text")
    found = {p.source: p.score for p in await words.search("zebras", 9)}
    await words.aclose()
    lengths, times = [1, 4, 2, 2, 12], {"0": 1, "1": 3, "2": 4, "4": 12}
    idf, mean = log(1 + (5 - 4 + 0.5) / (4 + 0.5)), sum(lengths) / 5
    expected = {s: idf * n * 2.7 / (n + 1.7 * (0.25 + 0.75 * lengths[int(s)] / mean)) for s, n in times.items()}
    assert found == {s: pytest.approx(score, rel=0.03) for s, score in expected.items()}


async def test_vectors_are_found_by_their_index(index: PostgresIndex) -> None:
    """The query can use HNSW, with conditions too; nobody would notice otherwise until there are many passages."""
    await index.update(Document(source=str(i), text=f"inn {i}", metadata={"n": i}) for i in range(50))
    async with index._pool.acquire() as connection:
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
        where, values = module._where({"n": 3}, 3)
        asked = "[1,0,0,0,0,0,0,0]"
        rows = await connection.fetch("EXPLAIN " + module._NEAREST.format(where=where), asked, 5, *values)
    assert any("passages_by_vector" in row[0] for row in rows)


async def test_indexes_side_by_side(server: Server, index: PostgresIndex) -> None:
    """Each schema is an index of its own."""
    await index.update([Document(source="a", text="inn")])
    server.sql("DROP SCHEMA IF EXISTS other CASCADE")
    other = await PostgresIndex.open(server.url, make=True, schema="other")
    assert await other.sources() == []
    await other.aclose()
    with pytest.raises(DefinitionError, match="lower-case letters"):
        await PostgresIndex.open(server.url, make=True, schema='x"; DROP')


async def test_an_index_is_made_only_where_that_is_asked_for(server: Server) -> None:
    """A mistyped schema is told, not made."""
    for _ in range(2):
        with pytest.raises(DefinitionError, match=r"mistyped>: make it with PostgresIndex\.open\(…, make=True\)"):
            await PostgresIndex.open(server.url, schema="mistyped")


async def test_a_server_that_is_not_there(server: Server) -> None:
    """It is told with its address, and without a password."""
    with pytest.raises(IndexUnavailable, match="postgresql://me@/nowhere"):
        await PostgresIndex.open(f"postgresql://me:secret@/nowhere?host={server.folder}/missing")
    with pytest.raises(IndexUnavailable, match='database "nowhere" does not exist'):
        await PostgresIndex.open(server.database("nowhere"))
