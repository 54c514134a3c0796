"""Looking into a run while it goes on."""

from __future__ import annotations

import anyio
import pytest

from agentrt import END, START, Agent, Budget, Context, FunctionNode, Graph, Price, Retry, collect, stream
from agentrt.model import ModelRequest
from agentrt.testing import FunctionModel

pytestmark = pytest.mark.anyio


async def count_up(n: int) -> list[int]:
    return list(range(n))


def fan(work: object) -> Graph[int, list[int]]:
    graph: Graph[int, list[int]] = Graph("fan")
    graph.edge(START, count_up)
    graph.edge(count_up, work, each=True)
    graph.edge(work, END, join=collect)
    return graph


async def test_a_stream_tells_what_runs_and_what_waits() -> None:
    """As many steps work as may, the others wait in the queue; at the end none does."""
    go, waiting = anyio.Event(), anyio.Event()
    begun = []

    async def work(n: int) -> int:
        begun.append(n)
        if len(begun) == 3:
            waiting.set()
        await go.wait()
        return n

    async with stream(fan(work), 10, concurrency=3) as events:
        await waiting.wait()
        now = events.statistics()
        assert (now.running, now.queued, now.resuming) == (3, 7, 0)
        go.set()
        recorded = [event async for event in events]
        after = events.statistics()
    assert (after.running, after.queued, after.events) == (0, 0, len(recorded))
    assert after.ledger.spent == events.result.usage
    assert after.run_id == events.result.run_id


async def test_what_is_reserved_is_told_while_a_call_is_in_flight() -> None:
    """A call holds its worst case until it is settled; a second one waits for it."""
    go, asked = anyio.Event(), anyio.Event()

    async def answer(request: ModelRequest) -> str:
        asked.set()
        await go.wait()
        return "yes"

    model = FunctionModel(answer, price=Price.per_million(input=1, output=2))
    graph = fan(Agent("a", model=model))
    async with stream(graph, 2, budget=Budget(tokens=1000)) as events:
        await asked.wait()
        await anyio.lowlevel.checkpoint()
        ledger = events.statistics().ledger
        assert 0 < ledger.reserved_tokens <= 1000
        assert ledger.reserved_usd > 0
        assert (ledger.waiting, ledger.spent.tokens) == (1, 0)
        go.set()
        _ = [event async for event in events]
    assert events.statistics().ledger.reserved_tokens == 0


async def test_retries_are_counted() -> None:
    """Attempts that failed are told apart from steps."""
    tries = []

    async def work(n: int) -> int:
        tries.append(n)
        if len(tries) < 3:
            raise ValueError("no luck")
        return n

    async with stream(FunctionNode(work, retry=Retry(backoff=0.0, on=ValueError)), 1) as events:
        _ = [event async for event in events]
    assert events.statistics().retries == 2


async def test_what_runs_describes_itself() -> None:
    """A stream, a scheduler and a ledger can be printed in the middle of a run."""
    seen = []

    async def work(n: int, ctx: Context) -> int:
        seen.append((repr(ctx.scheduler), repr(ctx.scheduler.ledger)))  # type: ignore[attr-defined]
        return n

    async with stream(work, 1, run_id="r", budget=Budget(steps=5)) as events:
        _ = [event async for event in events]
    assert seen[0][0] == "<Scheduler r: 1 running, 0 queued, 0 resuming>"
    assert seen[0][1].endswith("0 waiting>")
    assert repr(events) == "<Stream r has ended: 0 running, 0 queued, 4 events>"
