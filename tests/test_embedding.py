"""Embedding as a step: what it reserves, costs, remembers and tells."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from agentrt import (
    Budget,
    BudgetExceeded,
    Context,
    Passage,
    Price,
    Query,
    Retriever,
    StepFailed,
    UnknownModel,
    embedder,
    replay,
    resume,
    run,
)
from agentrt.embedding import Embedded, Embeddings, Vectors, embed_all
from agentrt.errors import ModelUnavailable
from agentrt.events import CacheHit, Event, StepStarted, UsageRecorded
from agentrt.forecast import foresee
from agentrt.function import FunctionNode
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionEmbedder
from agentrt.usage import PICO

pytestmark = pytest.mark.anyio

PRICE = Price.per_million(input=2, output=0)


def lengths(**options: object) -> FunctionEmbedder:
    return FunctionEmbedder(lambda text: [len(text), 1.0], 2, **options)  # type: ignore[arg-type]


class Shelf:
    """Return the vector it was asked with."""

    def __init__(self, embedder: FunctionEmbedder) -> None:
        self.embedder = embedder
        self.queries: list[Query] = []

    async def search(self, query: str | Query, k: int) -> list[Passage]:
        self.queries.append(Query.of(query))
        return [Passage(text="found", source="s")]


class Broken(FunctionEmbedder):
    """Fail after the call was sent."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        raise ModelUnavailable("gone", model=self.name)


async def test_a_billed_call_is_reserved_and_settled() -> None:
    """It counts as a model call and costs its tokens; the query comes with its vector."""
    shelf = Shelf(lengths(price=PRICE))
    result = await run(Retriever("shelf", shelf), "three short words", budget=Budget(tokens=3, usd=1, model_calls=1))
    assert (result.usage.input_tokens, result.usage.model_calls, result.usage.steps) == (3, 1, 2)
    assert result.usage.cost == 3 * 2 * PICO // 1_000_000
    (query,) = shelf.queries
    assert query.vector is not None
    assert list(query.vector) == pytest.approx([17 / (290**0.5), 1 / (290**0.5)])


@pytest.mark.parametrize("budget", [Budget(tokens=2), Budget(usd=0.000005), Budget(model_calls=0)])
async def test_a_call_that_does_not_fit_is_denied(budget: Budget) -> None:
    """Nothing is asked for that the budget cannot pay."""
    shelf = Shelf(lengths(price=PRICE))
    with pytest.raises(BudgetExceeded):
        await run(Retriever("shelf", shelf), "three short words", budget=budget)
    assert shelf.embedder.asked == []


async def test_a_free_one_reserves_nothing() -> None:
    """An embedder that bills nothing is a step and no model call."""
    events: list[Event] = []
    budget = Budget(tokens=0, model_calls=0, usd=0)
    result = await run(Retriever("shelf", Shelf(lengths())), "words", budget=budget, observers=[events.append])
    assert (result.usage.model_calls, result.usage.tokens) == (0, 0)
    (step,) = [e for e in events if isinstance(e, StepStarted) and e.kind == "embeddings"]
    assert step.path == "shelf/embeddings"
    assert step.attributes == {"model": "test/embedder", "dimensions": 2}
    assert not [e for e in events if isinstance(e, UsageRecorded)]


async def test_what_nobody_bills_for_sure_is_charged() -> None:
    """A call that broke off costs what was reserved, marked uncertain (rule B9)."""
    shelf = Shelf(Broken(lambda _: [1.0], 1, price=PRICE))
    events: list[Event] = []
    with pytest.raises(StepFailed) as failed:
        await run(Retriever("shelf", shelf), "two words", observers=[events.append])
    assert failed.value.path == "shelf/embeddings"
    (charged,) = [e.usage for e in events if isinstance(e, UsageRecorded)]
    assert (charged.input_tokens, charged.uncertain) == (2, 2)


async def test_an_unknown_price_under_a_usd_limit() -> None:
    """A limit on money is not kept by hoping."""
    with pytest.raises(StepFailed, match="no known price"):
        await run(Retriever("shelf", Shelf(lengths(price=None))), "word", budget=Budget(usd=1))
    assert (await run(Retriever("shelf", Shelf(lengths(price=None))), "word")).usage.tokens == 1


async def test_a_retriever_remembers_its_queries() -> None:
    """An equal query is embedded once, and a hit is told and costs nothing."""
    shelf, events = Shelf(lengths(price=PRICE)), list[Event]()
    retriever = Retriever("shelf", shelf)
    for query in ("same words", "other", "same words"):
        result = await run(retriever, query, observers=[events.append])
    assert shelf.embedder.asked == [("same words",), ("other",)]
    assert result.usage.tokens == 0
    assert [e.model for e in events if isinstance(e, CacheHit)] == ["test/embedder"]
    assert shelf.queries[0].vector == shelf.queries[2].vector


async def test_only_the_last_are_remembered() -> None:
    """The text that was not used for longest is forgotten first."""
    given = lengths()
    embeddings = Embeddings(given, remember=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await run(embeddings, [text])
    assert given.asked == [("a",), ("b",), ("c",), ("b",)]


async def test_what_is_forgotten_meanwhile_is_no_loss() -> None:
    """A vector that was known when a call began is there when it ends, whoever has taken its place."""
    begun, may_end = anyio.Event(), anyio.Event()

    class Slow(FunctionEmbedder):
        async def embed(self, texts: Sequence[str]) -> Embedded:
            if "slow" in texts:
                begun.set()
                await may_end.wait()
            return await super().embed(texts)

    embeddings = Embeddings(Slow(lambda text: [len(text), 1.0], 2), remember=1)
    await run(embeddings, ["known"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, embeddings, ["known", "slow"])
        await begun.wait()
        await run(embeddings, ["other"])
        may_end.set()


async def test_many_texts_are_few_calls() -> None:
    """Texts go in batches as large as the embedder takes, so many at once, and come back in order."""
    given = lengths(batch_size=3)
    embeddings, at_once = Embeddings(given), list[int]()
    running = 0

    class Slow(FunctionEmbedder):
        async def embed(self, texts: Sequence[str]) -> Embedded:
            nonlocal running
            running += 1
            at_once.append(running)
            await anyio.sleep(10 / len(texts[0]))
            running -= 1
            return await given.embed(texts)

    embeddings = Embeddings(Slow(lambda _: [], 2, batch_size=3))

    async def code(n: int, ctx: Context) -> list[float]:
        vectors = await embed_all(ctx, embeddings, ["x" * (i + 1) for i in range(n)], limit=2)
        return [vector[0] / vector[1] for vector in vectors]

    result = await run(FunctionNode(code), 8)
    assert result.output == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8])
    assert (sorted(map(len, given.asked)), max(at_once)) == ([2, 3, 3], 2)


async def test_equal_texts_are_asked_for_once() -> None:
    """A batch names each text once, and gives each its vector."""
    given = lengths()
    result = await run(Embeddings(given), ["aa", "b", "aa"])
    assert given.asked == [("aa", "b")]
    first, _, last = result.output
    assert list(first) == list(last)


def test_vectors_are_text_for_the_record() -> None:
    """They come back as float32, by length, whatever they were given as."""
    vectors = Vectors.of([[1, 2.5], [-0.1, 0]], 2)
    assert isinstance(vectors.data, str)
    assert [list(v) for v in vectors] == [[1, 2.5], [pytest.approx(-0.1), 0]]
    assert list(Vectors.of([], 2)) == []


async def test_bounds_know_what_a_query_takes() -> None:
    """At most one call with a full window a search, at least none: it may be remembered."""
    retriever = Retriever("shelf", Shelf(lengths(price=PRICE, window=100)))
    bounds = foresee(retriever, "why?")
    assert (bounds.steps.least, bounds.steps.greatest) == (2, 2)
    assert (bounds.model_calls.least, bounds.model_calls.greatest) == (0, 1)
    assert (bounds.tokens.least, bounds.tokens.greatest) == (0, 100)
    assert bounds.usd.greatest == pytest.approx(100 * 2 / 1e6)
    free = foresee(Retriever("shelf", Shelf(lengths())), "why?")
    assert (free.model_calls.greatest, free.tokens.greatest, free.steps.greatest) == (0, 0, 2)


@pytest.mark.parametrize("name", ["", "nonsense", "openai/", "/x"])
def test_an_unknown_embedder_says_what_to_write(name: str) -> None:
    """Names are provider/model, or wordllama."""
    with pytest.raises(UnknownModel, match="write wordllama"):
        embedder(name)


async def test_what_was_embedded_is_not_paid_again() -> None:
    """A run that goes on takes the vectors from its record; so does a replay."""
    given, journal, failing = lengths(price=PRICE), MemoryJournal(), [True]
    embeddings = Embeddings(given)

    async def code(text: str, ctx: Context) -> list[float]:
        (vector,) = await ctx.run(embeddings, [text])
        if failing:
            raise OSError("no more")
        return list(vector)

    node = FunctionNode(code)
    with pytest.raises(StepFailed):
        await run(node, "abc", journal=journal, run_id="r")
    failing.clear()
    result = await resume(node, "r", journal=journal)
    assert result.output == pytest.approx([3 / 10**0.5, 1 / 10**0.5])
    assert (result.usage.tokens, given.asked) == (1, [("abc",)])
    assert (await replay(node, "r", journal=journal)).output == result.output
    assert given.asked == [("abc",)]
