"""What somebody who tried to break `resume` found: a run that goes on is the run it was, and is paid as one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Context,
    Graph,
    ModelSettings,
    Result,
    Retry,
    StopReason,
    collect,
    run,
    tool,
)
from agentrt.events import Event, RunResumed, StepStarted
from agentrt.node import FunctionNode, as_node
from agentrt.testing import FunctionModel, call

pytestmark = pytest.mark.anyio

SMALL = ModelSettings(max_tokens=10)
PATIENT = Retry(attempts=9, backoff=0.01)


async def leaf(x: int) -> int:
    return x


async def stopped(node: Any, value: Any, **options: Any) -> Result[Any]:
    """Run until the budget stops it, and return what can go on."""
    with pytest.raises(BudgetExceeded) as caught:
        await run(node, value, **options)
    assert caught.value.result is not None
    return caught.value.result


async def test_the_last_words_are_no_turn() -> None:
    """E5: a run that had wrapped up goes on where it was refused, not with its wrap-up as the next answer."""

    @tool
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    def reply(request: Any) -> Any:
        if not request.tools:
            return "in a hurry"
        return call("double", x=len(request.messages)) if len(request.messages) < 12 else "done"

    model = FunctionModel(reply)
    agent = Agent("agent", model=model, settings=SMALL, tools=[double])
    result = await run(agent, "x", budget=Budget(model_calls=3, on_exhausted="wrap_up"))
    assert (result.stop_reason, result.output) == (StopReason.WRAPPED_UP, "in a hurry")
    result = await result.resume(budget=Budget(model_calls=30))
    assert (result.stop_reason, result.output) == (StopReason.DONE, "done")
    assert result.usage.model_calls == len(model.requests)
    assert result.usage.tokens == model.bill.tokens


async def test_calls_of_a_limited_node_stay_counted() -> None:
    """B1: `calls=2` is two calls, whether a resumed run makes them or knows their outcome."""
    limited, ran = as_node(leaf).limit(calls=2), []

    async def root(x: int, ctx: Context) -> None:
        for i in range(3):
            ran.append(await ctx.run(limited, i))
            await ctx.run(leaf, i, key="other")

    result = await stopped(root, 1, budget=Budget(steps=4))
    del ran[:]
    with pytest.raises(BudgetExceeded) as caught:
        await result.resume(budget=Budget(steps=40))
    assert (caught.value.dimension, ran) == ("calls", [0, 1])


async def test_branches_keep_their_accounts() -> None:
    """B11: the cap of a branch holds up to the join, for both parts of a run together."""
    events: list[Event] = []

    async def many(x: int, ctx: Context) -> None:
        for i in range(20):
            await ctx.run(leaf, i)

    graph = Graph("graph", input=list[int])
    graph.edge(START, many, each=True, budget=Budget(steps=8))
    graph.edge(many, END, join=collect)
    result = await stopped(graph, [1], budget=Budget(steps=6), observers=[events.append])
    with pytest.raises(BudgetExceeded) as caught:
        await result.resume(budget=Budget(steps=100))
    assert (caught.value.scope, caught.value.spent) == ("graph/many[0]", 8)
    assert len({e.path for e in events if isinstance(e, StepStarted)}) == 1 + 8


async def test_branches_share_what_was_raised() -> None:
    """B11: equal parts are those of what is left when the run goes on, besides what each branch has spent."""
    left: list[float] = []

    async def work(x: int, ctx: Context) -> None:
        await ctx.run(leaf, x)
        left.append(ctx.budget.remaining["steps"])
        await anyio.sleep(2)
        await ctx.run(leaf, x)

    async def eater(x: int, ctx: Context) -> None:
        await anyio.sleep(1)
        await ctx.map(leaf, [1, 2, 3, 4, 5])

    graph = Graph("graph", input=list[int])
    graph.edge(START, work, each=True, budget=Budget(share="equal"))
    graph.edge(work, END, join=collect)

    async def root(x: int, ctx: Context) -> None:
        await ctx.gather([(graph, [0, 1]), (as_node(eater), x)])

    result = await stopped(root, 1, budget=Budget(steps=12))
    assert left == [3, 3]  # of 10, less the two steps each has taken
    await result.resume(budget=Budget(steps=20))
    assert left[2:] == [4, 4]  # of the 8 that are left


async def test_a_retry_after_going_on_is_paid() -> None:
    """B2: only the attempt that was under way is known and paid; what a later one starts counts again."""
    attempts = 0

    async def flaky(x: int) -> int:
        if attempts <= 4:
            raise ConnectionError
        return x

    async def middle(x: int, ctx: Context) -> int:
        nonlocal attempts
        attempts += 1
        return await ctx.run(flaky, x)

    async def root(x: int, ctx: Context) -> int:
        return await ctx.run(middle, x)

    node = FunctionNode(root, retry=PATIENT)
    result = await stopped(node, 1, budget=Budget(steps=2))
    result = await result.resume(budget=Budget(steps=100))
    assert attempts == 5
    assert result.usage.steps == 3 * 4  # the first attempt is one, before and after


async def test_a_retry_after_going_on_begins_anew() -> None:
    """E5: another attempt calls what failed again, and does not meet the outcome an earlier one knew."""
    ran: Counter[str] = Counter()

    async def flaky(x: int) -> int:
        ran["flaky"] += 1
        if ran["flaky"] == 1:
            raise ConnectionError
        return x

    async def root(x: int, ctx: Context) -> int:
        try:
            value = await ctx.run(flaky, x)
        except ConnectionError:
            value = -1
        await ctx.run(leaf, x)
        if value < 0:
            raise ConnectionError
        return value

    result = await stopped(FunctionNode(root, retry=PATIENT), 1, budget=Budget(steps=2))
    assert (await result.resume(budget=Budget(steps=100))).output == 1
    assert ran["flaky"] == 2


async def test_an_agent_keeps_its_branch_s_conversation() -> None:
    """E5: what a branch keeps for its nodes is known as their outcomes are."""
    writer = Agent("writer", model=FunctionModel(lambda r: f"seen {len(r.messages)}"), history="branch", settings=SMALL)

    async def critic(text: str) -> str:
        return text

    graph = Graph("graph", input=str, output=str)
    graph.edge(START, writer)
    graph.edge(writer, critic, times=1)
    graph.edge(writer, END)
    graph.edge(critic, writer)
    assert (await run(graph, "x")).output == "seen 3"
    result = await stopped(graph, "x", budget=Budget(steps=3))
    assert (await result.resume(budget=Budget(steps=30))).output == "seen 3"


async def test_the_record_tells_the_raised_limits() -> None:
    """`RunResumed.limits` are those the run goes on under."""
    events: list[Event] = []

    async def root(x: int, ctx: Context) -> list[int]:
        return await ctx.map(leaf, [1, 2, 3])

    result = await stopped(root, 1, budget=Budget(steps=2, tokens=9), observers=[events.append])
    await result.resume(budget=Budget(steps=20))
    assert [e.limits for e in events if isinstance(e, RunResumed)] == [{"steps": 20, "tokens": 9}]
