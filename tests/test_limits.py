"""Limits on a node, a tool, a branch, a call: caps inside what is around them."""

from __future__ import annotations

import anyio
import pytest

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Context,
    DefinitionError,
    Graph,
    GraphError,
    Join,
    ModelSettings,
    Retry,
    StepFailed,
    StepTimeout,
    collect,
    run,
    tool,
)
from agentrt.events import BudgetDenied, Event, StepFinished, StepRetried, StepStarted
from agentrt.function import FunctionNode
from agentrt.testing import FunctionModel, call

pytestmark = pytest.mark.anyio


@tool
async def search(query: str) -> str:
    """Search."""
    return query


def test_a_limited_node_is_a_copy() -> None:
    """The node itself stays as it was; limits add up."""
    limited = search.limit(calls=3).limit(tokens=5)
    assert limited.budget == Budget(calls=3, tokens=5)
    assert search.budget is None
    assert limited.name == "search"
    assert limited.arguments.schema == search.arguments.schema


async def test_calls_are_counted_for_each_caller() -> None:
    """B1: two callers may each make two."""
    limited = FunctionNode(lambda x: x, name="leaf").limit(calls=2)

    async def caller(n: int, ctx: Context) -> int:
        for i in range(n):
            await ctx.run(limited, i)
        return n

    assert (await run(FunctionNode(caller), 2)).output == 2

    async def both(n: int, ctx: Context) -> list[int]:
        return await ctx.map(caller, [n, n])

    assert (await run(both, 2)).output == [2, 2]
    with pytest.raises(BudgetExceeded, match="calls"):
        await run(caller, 3)


async def test_the_calls_of_a_batch_are_counted() -> None:
    """A graph's own calls, too: each activation by an edge is one."""
    limited = FunctionNode(lambda x: x, name="leaf").limit(calls=2)
    graph = Graph("g", input=list[int], output=list[int])
    graph.edge(START, limited, each=True)
    graph.edge(limited, END, join=Join(collect, errors="drop"))
    assert (await run(graph, [1, 2, 3, 4])).output == [1, 2]


async def test_an_agents_budget_holds_inside_the_runs() -> None:
    """The innermost account that refuses is named."""
    model = FunctionModel(lambda r: call("search", query="x"))
    agent = Agent("a", model=model, tools=[search], settings=ModelSettings(max_tokens=5)).limit(model_calls=3)
    graph = Graph("g")
    graph.chain(START, agent, END)
    with pytest.raises(BudgetExceeded) as caught:
        await run(graph, "x", budget=Budget(model_calls=100))
    assert caught.value.scope == "g/a"
    assert len(model.requests) == 3


async def test_branches_share_equally() -> None:
    """B11: what is left is split, whatever a branch does not need."""
    spent: list[int] = []

    async def worker(x: int, ctx: Context) -> float:
        left = ctx.budget.remaining["steps"]
        for _ in range(x):
            await ctx.run(step, 0)
        spent.append(x)
        return left

    async def step(x: int) -> int:
        return x

    graph = Graph("g", input=list[int], output=list[float])
    graph.edge(START, worker, each=True, budget=Budget(share="equal"))
    graph.edge(worker, END, join=Join(collect, errors="drop"))
    result = await run(graph, [1, 100, 2, 3], budget=Budget(steps=41))
    assert result.output == [9, 9, 9]
    assert sorted(spent) == [1, 2, 3]


async def test_a_branch_keeps_its_account_from_node_to_node() -> None:
    """The cap holds up to the join, for forks inside the branch as well."""

    async def one(x: int) -> list[int]:
        return [x] * 3

    async def two(x: int, ctx: Context) -> float:
        return ctx.budget.remaining["steps"]

    graph = Graph("g", input=list[int], output=list[list[float]])
    graph.edge(START, one, each=True, budget=Budget(steps=10))
    graph.edge(one, two, each=True)
    graph.edge(two, keep, join=collect)
    graph.edge(keep, END, join=collect)
    (only,) = (await run(graph, [1])).output
    assert len(only) == 3
    assert max(only) <= 8


async def keep(values: list[float]) -> list[float]:
    return values


async def test_a_map_shares_equally() -> None:
    """ctx.map(budget=Budget(share="equal"))."""

    async def left(x: int, ctx: Context) -> float:
        return ctx.budget.remaining["tokens"]

    async def outer(x: int, ctx: Context) -> list[float]:
        return await ctx.map(left, [1, 2, 3, 4], budget=Budget(share="equal"))

    assert (await run(outer, 0, budget=Budget(tokens=1000))).output == [250] * 4


def test_a_budget_on_an_edge_that_does_not_fork_is_a_problem() -> None:
    """Nothing would be capped by it."""

    async def a(x: int) -> int:
        return x

    graph = Graph("g")
    graph.edge(START, a, budget=Budget(steps=1))
    graph.edge(a, END)
    with pytest.raises(GraphError, match="caps the branches of a fork"):
        graph.validate()


def test_a_branch_has_no_deadline() -> None:
    """Nothing would end it; `seconds` on its nodes does."""

    async def a(x: int) -> int:
        return x

    graph = Graph("g")
    graph.edge(START, a, each=True, budget=Budget(seconds=1))
    graph.edge(a, END, join=collect)
    with pytest.raises(GraphError, match="leave seconds= to its nodes"):
        graph.validate()


async def test_a_share_needs_branches() -> None:
    """On a single step it says nothing."""
    with pytest.raises(StepFailed) as caught:
        await run(FunctionNode(lambda x: x, name="f").limit(share="equal"), 1)
    assert isinstance(caught.value.cause, DefinitionError)


async def test_a_node_is_tried_again() -> None:
    """Every attempt is charged and ends in one event; its calls get the same paths again."""
    events: list[Event] = []

    async def flaky(x: int, ctx: Context) -> int:
        await ctx.run(leaf, x)
        if sum(isinstance(e, StepRetried) for e in events) < 2:
            raise ConnectionError("gone")
        return x

    async def leaf(x: int) -> int:
        return x

    node = FunctionNode(flaky, retry=Retry(attempts=3, backoff=0))
    result = await run(node, 7, observers=[events.append])
    assert result.output == 7
    assert result.usage.steps == 6
    retries = [e for e in events if isinstance(e, StepRetried)]
    assert [(e.path, e.attempt, e.error.type) for e in retries] == [
        ("flaky", 1, "ConnectionError"),
        ("flaky", 2, "ConnectionError"),
    ]
    assert [e.path for e in events if isinstance(e, StepStarted)] == ["flaky", *["flaky/leaf"] * 3]
    assert [e.path for e in events if isinstance(e, StepFinished)] == [*["flaky/leaf"] * 3, "flaky"]


async def test_the_last_attempts_error_is_the_steps() -> None:
    """After so many attempts nothing is left to try."""

    def broken(x: int) -> int:
        raise ConnectionError(str(x))

    with pytest.raises(StepFailed, match="ConnectionError: 3"):
        await run(FunctionNode(broken, retry=Retry(attempts=2, backoff=0)), 3)


async def test_attempts_end_with_the_budget() -> None:
    """A denied attempt is the end of it."""

    events: list[Event] = []

    def broken(x: int) -> int:
        raise ConnectionError

    node = FunctionNode(broken, retry=Retry(attempts=50, backoff=0))
    with pytest.raises(BudgetExceeded):
        await run(node, 3, budget=Budget(steps=4), observers=[events.append])
    assert [e.dimension for e in events if isinstance(e, BudgetDenied)] == ["steps"]


async def test_any_node_may_have_a_time_out() -> None:
    """Each attempt has its own."""
    slept: list[int] = []

    async def slow(x: int) -> int:
        slept.append(x)
        await anyio.sleep(60)
        return x

    node = FunctionNode(slow, timeout=0.01, retry=Retry(attempts=2, backoff=0))
    with pytest.raises(StepFailed) as caught:
        await run(node, 1)
    assert isinstance(caught.value.cause, StepTimeout)
    assert len(slept) == 2
