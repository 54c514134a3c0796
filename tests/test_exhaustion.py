"""What happens when a budget runs out: policies, partial results, and going on under a higher limit."""

from __future__ import annotations

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
    DefinitionError,
    Graph,
    GraphError,
    ModelSettings,
    Partial,
    StopReason,
    collect,
    first,
    run,
    run_sync,
    tool,
)
from agentrt.budget import Limits
from agentrt.events import BudgetExhausted, Event, StepStarted
from agentrt.testing import FunctionModel, call, run_virtual

pytestmark = pytest.mark.anyio

SMALL = ModelSettings(max_tokens=10)


def echo_model(**options: Any) -> FunctionModel:
    return FunctionModel(lambda request: "one two three", **options)


def asking(model: FunctionModel, **options: Any) -> Agent[object, str]:
    return Agent("worker", model=model, settings=SMALL, **options)


def fan(worker: Any, **options: Any) -> Graph[list[str], list[str]]:
    graph = Graph("swarm", input=list[str], output=list[str], **options)
    graph.edge(START, worker, each=True)
    graph.edge(worker, END, join=collect)
    return graph


async def test_raise_carries_what_had_been_done() -> None:
    """The default: the denial, with the partial result."""
    model = echo_model()
    with pytest.raises(BudgetExceeded) as caught:
        await run(fan(asking(model)), list("abcd"), budget=Budget(model_calls=2))
    partial = caught.value.partial
    assert partial is not None
    assert partial.scope == "swarm"
    assert partial.dimension == "model_calls"
    assert sorted(v for p, v in partial.finished.items() if not p.endswith("chat")) == ["one two three"] * 2
    assert partial.cancelled == ("swarm/worker[2]",)
    assert partial.not_started == ("swarm/worker[3]",)


async def test_partial_is_a_result_without_output() -> None:
    """It names what finished; asking for the output raises the denial."""
    budget = Budget(steps=6, on_exhausted="partial")
    result = await run(fan(asking(echo_model())), list("abcd"), budget=budget, concurrency=1)
    assert result.stop_reason is StopReason.PARTIAL
    assert result.partial is not None
    assert result.partial.finished["swarm/worker[0]"] == "one two three"
    assert result.partial.not_started
    with pytest.raises(BudgetExceeded):
        _ = result.output


async def test_exhaustion_drains_what_runs() -> None:
    """E2: a sibling that is under way ends in peace, though the budget refused another."""
    ended: list[int] = []

    async def work(x: int, ctx: Context) -> int:
        if x == 0:
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            ended.append(x)
        else:
            await ctx.run(step, x)
        return x

    async def step(x: int) -> int:
        return x

    budget = Budget(steps=3, on_exhausted="partial")
    result = await run(fan(work), [0, 1], budget=budget)
    assert result.stop_reason is StopReason.PARTIAL
    assert ended == [0]
    assert result.partial is not None
    assert result.partial.finished == {"swarm/work[0]": 0}
    assert result.partial.cancelled == ("swarm/work[1]",)
    assert result.partial.not_started == ("swarm/work[1]/step",)


async def test_a_graph_wraps_up_with_what_there_is() -> None:
    """E4: Graph(wrap_up=node) takes the Partial; its call is paid from the share held back (B8)."""
    model = echo_model()

    async def summary(partial: Partial, ctx: Context) -> list[str]:
        await ctx.run(asking(model), "sum up")
        return sorted(str(v) for p, v in partial.finished.items() if not p.endswith("chat"))

    graph = fan(asking(model), wrap_up=summary)
    result = await run(graph, list("abcdefgh"), budget=Budget(model_calls=4, on_exhausted="wrap_up"))
    assert result.stop_reason is StopReason.WRAPPED_UP
    assert result.output == ["one two three"] * 3
    assert result.usage.model_calls <= 4


async def test_what_wraps_up_may_have_limits_of_its_own() -> None:
    """B8: a budget inside the wrap-up caps it further, and does not shut it out from what is held back."""
    model = echo_model()
    writer = asking(model, budget=Budget(tokens=100))

    async def summary(partial: Partial, ctx: Context) -> list[str]:
        return [await ctx.run(writer, "sum up")]

    graph = fan(asking(model), wrap_up=summary)
    result = await run(graph, list("abcdefgh"), budget=Budget(model_calls=4, on_exhausted="wrap_up"))
    assert (result.stop_reason, result.usage.model_calls) == (StopReason.WRAPPED_UP, 4)


async def test_ordinary_calls_never_use_what_is_held_back() -> None:
    """B8: with a tenth of 100 tokens held back they end at 90."""
    model = echo_model()

    async def last(partial: Partial) -> list[str]:
        return []

    result = await run(fan(asking(model), wrap_up=last), ["a"] * 50, budget=Budget(tokens=100, on_exhausted="wrap_up"))
    assert result.stop_reason is StopReason.WRAPPED_UP
    assert result.usage.tokens <= 90


@pytest.mark.parametrize("limits", [Limits(model_calls=100), Limits(seconds=100)])
async def test_a_refused_wrap_up_leaves_it_to_the_next_scope_out(limits: Limits) -> None:
    """E3: the inner scope's share is too small, so the run's own policy applies, whatever it limits."""

    async def last(partial: Partial, ctx: Context) -> list[str]:
        for i in range(9):
            await ctx.run(asking(echo_model()), str(i), key=f"k{i}")
        return []

    inner = fan(asking(echo_model()), wrap_up=last, budget=Budget(model_calls=2, on_exhausted="wrap_up"))
    outer = Graph("outer")
    outer.chain(START, inner, END)
    result = await run(outer, list("abcd"), budget=Budget(on_exhausted="partial", **limits))
    assert result.stop_reason is StopReason.PARTIAL
    assert result.partial is not None
    assert result.partial.scope == "outer"


async def test_an_inner_partial_goes_to_the_next_node() -> None:
    """E4: where that one takes a Partial."""

    async def rescue(partial: Partial) -> int:
        return len(partial.finished)

    inner = fan(asking(echo_model()), budget=Budget(steps=4, on_exhausted="partial"))
    outer = Graph("outer")
    outer.chain(START, inner, rescue, END)
    result = await run(outer, list("abcd"))
    assert result.stop_reason is StopReason.DONE
    assert result.output >= 1


def test_a_partial_that_nobody_takes_is_a_problem_of_the_graph() -> None:
    """Told when the graph is validated."""

    async def upper(text: str) -> str:
        return text.upper()

    graph = Graph("g")
    graph.chain(START, asking(echo_model()).limit(steps=1, on_exhausted="partial"), upper, END)
    with pytest.raises(GraphError, match="Partial"):
        graph.validate()


def test_only_what_can_wrap_up_is_told_to() -> None:
    """Before anything runs."""
    with pytest.raises(DefinitionError, match="cannot wrap up"):
        run_sync(fan(asking(echo_model())), ["a"], budget=Budget(steps=1, on_exhausted="wrap_up"))


async def test_a_deadline_leaves_time_to_wrap_up() -> None:
    """`hold_back` is a share of the seconds, too."""

    async def slow(x: str) -> str:
        await anyio.sleep(30)
        return x

    async def last(partial: Partial) -> list[str]:
        return list(partial.cancelled)

    budget = Budget(seconds=0.1, on_exhausted="wrap_up", hold_back=0.5)
    result = await run(fan(slow, wrap_up=last), ["a"], budget=budget)
    assert result.stop_reason is StopReason.WRAPPED_UP
    assert result.output == ["swarm/slow[0]"]


async def test_a_stopped_run_goes_on_where_it_was() -> None:
    """E5: what had finished is not asked, nor paid, again."""
    model = echo_model()
    events: list[Event] = []
    budget = Budget(model_calls=3, on_exhausted="partial")
    result = await run(fan(asking(model)), list("abcde"), budget=budget, observers=[events.append])
    assert len(model.requests) == 3
    result = await result.resume(budget=Budget(model_calls=4))
    assert result.stop_reason is StopReason.PARTIAL
    result = await result.resume(budget=Budget(model_calls=10))
    assert result.output == ["one two three"] * 5
    assert len(model.requests) == 5
    assert result.usage.model_calls == 5
    assert result.usage.tokens == model.bill.tokens
    assert sum(isinstance(e, BudgetExhausted) for e in events) == 2


async def test_a_raised_denial_can_be_resumed_too() -> None:
    """And an agent goes on in the middle of its conversation."""

    @tool
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    model = FunctionModel(lambda r: call("double", x=len(r.messages)) if len(r.messages) < 6 else "done")
    agent = Agent("worker", model=model, settings=SMALL, tools=[double])
    with pytest.raises(BudgetExceeded) as caught:
        await run(agent, "x", budget=Budget(model_calls=2))
    assert caught.value.result is not None
    result = await caught.value.result.resume(budget=Budget(model_calls=20))
    assert result.output == "done"
    assert len(model.requests) == result.usage.model_calls == 4
    assert result.usage.tool_calls == 3


async def test_a_first_join_stays_decided_when_the_run_goes_on() -> None:
    """The plan takes the old outcomes before anything starts, so the losers are not started again."""
    started: list[str] = []

    async def racer(x: int) -> int:
        if x == 2:
            return x
        await anyio.sleep(60)
        return x

    async def more(x: int, ctx: Context) -> int:
        return await ctx.run(extra, x)

    async def extra(x: int) -> int:
        return x * 10

    graph = Graph("race", input=list[int], output=int)
    graph.edge(START, racer, each=True)
    graph.edge(racer, more, join=first())
    graph.edge(more, END)
    budget = Budget(steps=5, on_exhausted="partial")
    observer = lambda e: started.append(e.path) if isinstance(e, StepStarted) else None  # noqa: E731
    result = await run(graph, [0, 1, 2], budget=budget, observers=[observer])
    assert result.stop_reason is StopReason.PARTIAL
    del started[:]
    result = await result.resume(budget=Budget(steps=50))
    assert result.output == 20
    assert started == ["race", "race/more", "race/more/extra"]


async def test_only_a_run_that_its_budget_stopped_can_go_on() -> None:
    """And only once from each stop."""
    result = await run(fan(asking(echo_model())), ["a"], budget=Budget(steps=100))
    with pytest.raises(RuntimeError, match="not stopped by its budget"):
        await result.resume(budget=Budget(steps=200))
    stopped = await run(fan(asking(echo_model())), ["a"], budget=Budget(steps=2, on_exhausted="partial"))
    await stopped.resume(budget=Budget(steps=100))
    with pytest.raises(RuntimeError, match="went on already"):
        await stopped.resume(budget=Budget(steps=200))


def test_a_wrap_up_that_takes_too_long_is_too_late() -> None:
    """The time held back is all it has; without a scope around, the run is over its budget."""

    async def slow(x: object) -> list[str]:
        await anyio.sleep(1000)
        return []

    async def last(partial: Partial) -> list[str]:
        return await slow(partial)

    graph = fan(slow, wrap_up=last)

    async def main() -> float:
        with pytest.raises(BudgetExceeded) as caught:
            await run(graph, ["a"], budget=Budget(seconds=100, on_exhausted="wrap_up", hold_back=0.2))
        assert (caught.value.dimension, caught.value.scope) == ("seconds", "swarm")
        assert caught.value.partial is not None
        assert caught.value.partial.cancelled == ("swarm/slow[0]",)
        return anyio.current_time()

    assert run_virtual(main) == 100


async def test_a_limit_within_the_wrap_up_is_its_own() -> None:
    """What is refused there is an error of the wrap-up, not one of the budget that it answers for."""

    async def last(partial: Partial, ctx: Context) -> list[str]:
        return [await ctx.run(asking(echo_model(), budget=Budget(tokens=1)), "sum up")]

    with pytest.raises(BudgetExceeded) as caught:
        await run(
            fan(asking(echo_model()), wrap_up=last), list("abc"), budget=Budget(model_calls=2, on_exhausted="wrap_up")
        )
    assert (caught.value.dimension, caught.value.scope) == ("tokens", "swarm/last/worker")


async def test_a_map_drains_too() -> None:
    """E2: an error meanwhile changes nothing, and what had ended is not lost."""

    async def step(x: int) -> int:
        return x

    async def work(x: int, ctx: Context) -> int:
        await anyio.sleep(1 + x)
        if x == 0:
            return await ctx.run(step, x)
        if x == 1:
            raise ValueError("meanwhile")
        return x

    async def all_of_them(xs: list[int], ctx: Context) -> list[int]:
        return await ctx.map(work, xs)

    budget = Budget(steps=4, on_exhausted="partial")
    result = await run(all_of_them, [0, 1, 2], budget=budget)
    assert result.stop_reason is StopReason.PARTIAL
    assert result.partial is not None
    assert result.partial.finished == {"all_of_them/work[2]": 2}


async def test_an_agent_as_a_tool_wraps_up_for_its_caller() -> None:
    """What it says last is the tool's answer, and the caller goes on."""
    worker = asking(
        echo_model(), tools=[], description="Work.", budget=Budget(steps=1, on_exhausted="wrap_up"), input=str
    )
    boss = FunctionModel(lambda r: call("worker", input="go") if len(r.messages) < 2 else "done")
    result = await run(Agent("boss", model=boss, tools=[worker]), "x")
    assert (result.output, result.stop_reason) == ("done", StopReason.DONE)
    assert boss.requests[1].messages[-1].text == "one two three"
