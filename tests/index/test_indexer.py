"""Indexes made by runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agentrt import Budget, BudgetExceeded, Price, StepFailed, replay, resume, run
from agentrt.embedding import Embedded, Vector
from agentrt.errors import DefinitionError, ModelUnavailable
from agentrt.forecast import foresee
from agentrt.index import Changes, Document, Indexer, SqliteIndex
from agentrt.retry import Retry
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionEmbedder
from agentrt.usage import Usage
from tests.index.embedders import meaning

pytestmark = pytest.mark.anyio

DOCUMENTS = [Document(source=str(i), text=f"inn {i}") for i in range(10)]


def billed(batch_size: int = 4) -> FunctionEmbedder:
    return FunctionEmbedder(meaning, 8, price=Price.per_million(input=1, output=0), batch_size=batch_size)


async def test_a_run_pays_for_its_index(tmp_path: Path) -> None:
    """Each call of the embedder is a step within the budget; what is known costs nothing again."""
    index = SqliteIndex(tmp_path / "index.db", make=True, embedder=billed())
    made = await run(Indexer("build", index), DOCUMENTS, budget=Budget(tokens=20))
    assert made.output == Changes(added=10, embedded=10)
    assert (made.usage.tokens, made.usage.model_calls) == (20, 3)
    again = await run(Indexer("build", index, documents=[*DOCUMENTS, Document(source="x", text="ferry")]), [])
    assert again.output == Changes(added=1, unchanged=10, embedded=1)
    assert again.usage.tokens == 1
    await index.aclose()


async def test_what_cannot_be_paid_is_not_written(tmp_path: Path) -> None:
    """A denial ends the update, and leaves the index as it was."""
    index = SqliteIndex(tmp_path / "index.db", make=True, embedder=billed())
    with pytest.raises(BudgetExceeded):
        await run(Indexer("build", index), DOCUMENTS, budget=Budget(tokens=19))
    assert await index.sources() == []
    assert (await index.update(DOCUMENTS[:1])).added == 1  # and lets the next one write
    await index.aclose()


async def test_a_call_that_fails_is_made_again(tmp_path: Path) -> None:
    """With `retry` a provider's hiccup costs one call, not the update."""
    failures = [ModelUnavailable("hiccup", model="m")]

    def once(text: str) -> list[float]:
        if failures:
            raise failures.pop()
        return meaning(text)

    index = SqliteIndex(tmp_path / "index.db", make=True, embedder=FunctionEmbedder(once, 8))
    made = await run(Indexer("build", index, retry=Retry(attempts=2)), DOCUMENTS)
    assert made.output.embedded == 10
    await index.aclose()


async def test_bounds_of_building(tmp_path: Path) -> None:
    """An index without vectors takes a step; with them, nobody knows how many texts come."""
    plain = SqliteIndex(tmp_path / "plain.db", make=True)
    assert foresee(Indexer("build", plain), []).steps.greatest == 1
    index = SqliteIndex(tmp_path / "index.db", make=True, embedder=billed())
    assert "embeds any number of texts" in str(foresee(Indexer("build", index), []))
    with pytest.raises(DefinitionError, match="limit=0"):
        Indexer("build", index, limit=0)
    for opened in (plain, index):
        await opened.aclose()


async def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """What it has written and embedded is not paid again, though the index holds it by now."""
    documents = [Document(source=str(i), text=f"inn {i}") for i in range(2500)]
    embedder = billed(100)
    index = SqliteIndex(tmp_path / "index.db", make=True, embedder=embedder)
    node, journal = Indexer("build", index, documents=documents, prune=True), MemoryJournal()
    with pytest.raises(BudgetExceeded):
        await run(node, [], journal=journal, run_id="a", budget=Budget(tokens=3000))
    assert len(await index.sources()) == 1000
    result = await resume(node, "a", journal=journal, budget=Budget(tokens=5000))
    assert result.output == Changes(added=2500, embedded=2500)
    assert (result.usage.tokens, sum(map(len, embedder.asked))) == (5000, 2500)
    assert len(await index.sources()) == 2500
    assert (await replay(node, "a", journal=journal)).output == result.output
    assert (await run(node, [])).output == Changes(unchanged=2500)
    await index.aclose()


class Broken(FunctionEmbedder):
    """Make one vector for all texts, or vectors of another length than it says."""

    def __init__(self, vectors: Sequence[Vector]) -> None:
        super().__init__(meaning, 2)
        self.vectors = vectors

    async def embed(self, texts: Sequence[str]) -> Embedded:
        return Embedded(self.vectors, Usage())


@pytest.mark.parametrize("vectors", [[[1.0, 2.0]], [[1.0], [1.0, 2.0]]])
async def test_an_embedder_that_makes_something_else(tmp_path: Path, vectors: Sequence[Vector]) -> None:
    """Is told before anything is written, by runs and without them."""
    async with SqliteIndex(tmp_path / "index.db", make=True, embedder=Broken(vectors)) as index:
        with pytest.raises(ModelUnavailable, match="vectors came for 2 texts, of"):
            await index.update(DOCUMENTS[:2])
        with pytest.raises(StepFailed, match="vectors came for 2 texts, of"):
            await run(Indexer("build", index), DOCUMENTS[:2])
        assert await index.sources() == []


def test_documents_that_can_be_gone_through_only_once_are_refused(tmp_path: Path) -> None:
    """The second run would prune them all."""
    index = SqliteIndex(tmp_path / "index.db", make=True)
    with pytest.raises(DefinitionError, match="only once"):
        Indexer("build", index, documents=(Document(source=s, text=s) for s in "ab"), prune=True)
