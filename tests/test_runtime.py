"""Running: results, errors, streams, observers, journals, and the budget that holds."""

from __future__ import annotations

import itertools
import logging
import threading
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    BudgetTooSmall,
    Cached,
    Context,
    DefinitionError,
    Graph,
    GraphError,
    Join,
    JournalError,
    ModelRequest,
    ModelSettings,
    ModelUnavailable,
    Price,
    StepFailed,
    StopReason,
    UnknownPrice,
    collect,
    first,
    run,
    run_sync,
    stream,
)
from agentrt import events as ev
from agentrt.budget import STEPS
from agentrt.function import as_node
from agentrt.runs import Run, new_run_id
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, ScriptedModel, text
from agentrt.usage import PICO
from tests.journals import FailingJournal

pytestmark = pytest.mark.anyio


async def double(x: int) -> int:
    return x * 2


async def broken(x: int) -> int:
    raise ValueError("broken")


async def greedy(x: int, ctx: Context) -> int:
    while True:
        ctx.spend(STEPS)


async def forever(x: int) -> int:
    await anyio.sleep_forever()
    return x


async def test_a_result_says_what_there_is() -> None:
    """Output, usage, stop reason, id."""
    result = await run(double, 4, run_id="mine")
    assert (result.output, result.usage.steps, result.stop_reason, result.run_id) == (8, 1, "done", "mine")
    assert result.dropped == ()


def test_run_sync_blocks() -> None:
    """For scripts; functions and graphs alike."""
    graph = Graph("g")
    graph.chain(START, double, END)
    assert run_sync(double, 4).output == run_sync(graph, 4).output == 8


async def test_run_sync_inside_a_loop_says_so() -> None:
    """It cannot block a running loop."""
    with pytest.raises(RuntimeError, match=r"[Aa]lready running"):
        run_sync(double, 4)


async def test_bad_definitions_are_told_before_anything_runs() -> None:
    """A graph that does not validate, a concurrency of none, what is no node."""
    events: list[Any] = []
    with pytest.raises(GraphError):
        await run(Graph("g"), 1, observers=[events.append])
    with pytest.raises(DefinitionError, match="concurrency=0"):
        await run(double, 1, concurrency=0)
    with pytest.raises(DefinitionError, match="is not a node"):
        await run(7, 1)  # type: ignore[call-overload]
    assert events == []


async def test_what_joins_dropped_is_listed() -> None:
    """G9: with the path, input and error of each."""
    graph = Graph("g")
    graph.edge(START, [double, broken])
    graph.edge([double, broken], END, join=Join(collect, errors="drop"))
    result = await run(graph, 1)
    assert result.output == [2]
    assert [(f.path, f.input, str(f.error)) for f in result.dropped] == [("g/broken[1]", 1, "broken")]


async def test_the_record_of_a_run() -> None:
    """Started, steps, ended: in order, with limits and usage."""
    events: list[Any] = []
    await run(double, 4, observers=[events.append], budget=Budget(steps=3), run_id="r")
    assert [type(e).__name__ for e in events] == ["RunStarted", "StepStarted", "StepFinished", "RunFinished"]
    assert (events[0].run_id, events[0].input, events[0].limits) == ("r", 4, {"steps": 3})
    assert (events[-1].output, events[-1].stop_reason, events[-1].usage.steps) == (8, "done", 1)


@pytest.mark.parametrize(
    ("node", "budget", "reason"), [(broken, None, StopReason.FAILED), (greedy, Budget(steps=9), "budget_exceeded")]
)
async def test_a_failed_run_is_recorded(node: Any, budget: Budget | None, reason: str) -> None:
    """With the step's path, the error and the stop reason."""
    events: list[Any] = []
    with pytest.raises((StepFailed, BudgetExceeded)):
        await run(node, 4, observers=[events.append], budget=budget)
    assert isinstance(events[-1], ev.RunFailed)
    assert (events[-1].path, events[-1].stop_reason) == (node.__name__, reason)


async def test_a_time_out_around_a_run_cancels_it() -> None:
    """External cancel stays native (E8), and is recorded."""
    events: list[Any] = []
    with anyio.move_on_after(0.01) as scope:
        await run(forever, 1, observers=[events.append])
    assert scope.cancelled_caught
    assert [type(e).__name__ for e in events[-2:]] == ["StepCancelled", "RunCancelled"]


async def test_an_observer_that_fails_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once and never hurts the run, nor other observers."""
    events: list[Any] = []

    def fails(event: Any) -> None:
        raise RuntimeError("observer")

    with caplog.at_level(logging.ERROR, "agentrt"):
        assert (await run(double, 1, observers=[fails, events.append])).output == 2
    assert len(caplog.records) == 1
    assert len(events) == 4


async def test_a_stream_yields_events_and_then_the_result() -> None:
    """The result is not there before the end."""
    async with stream(double, 4) as events:
        with pytest.raises(RuntimeError, match="the run goes on"):
            _ = events.result
        names = [type(e).__name__ async for e in events]
        assert names[-1] == "RunFinished"
        assert events.result.output == 8


async def test_a_stream_raises_where_its_result_is_asked_for() -> None:
    """The events of a failed run are read to their end first."""
    async with stream(broken, 4) as events:
        assert [type(e).__name__ async for e in events][-1] == "RunFailed"
        with pytest.raises(StepFailed):
            _ = events.result


async def test_leaving_a_stream_early_cancels_the_run() -> None:
    """And waits until it has ended."""
    seen: list[Any] = []
    async with stream(forever, 4, observers=[seen.append]) as events:
        async for event in events:
            if isinstance(event, ev.StepStarted):
                break
    assert isinstance(seen[-1], ev.RunCancelled)


async def test_an_error_inside_a_stream_comes_out_as_it_is() -> None:
    """Not as a group of one."""
    with pytest.raises(KeyError, match="mine"):
        async with stream(forever, 4):
            raise KeyError("mine")


async def test_text_streams_through_nested_agents() -> None:
    """Deltas carry the path of the model call that wrote them."""
    graph = Graph("g")
    graph.chain(START, Agent("a", model=ScriptedModel(["one two three"])), END)
    async with stream(graph, "go") as events:
        deltas = [e async for e in events if isinstance(e, ev.TextDelta)]
    assert "".join(d.text for d in deltas) == "one two three"
    assert {d.path for d in deltas} == {"g/a/chat"}


async def test_a_journal_keeps_what_observers_see_but_deltas() -> None:
    """In the same order, all of it, before `run` returns."""
    events: list[Any] = []
    journal = MemoryJournal()
    agent = Agent("a", model=ScriptedModel(["x y"]))
    result = await run(agent, "go", journal=journal, observers=[events.append])
    kept = await journal.events(result.run_id)
    assert [ev.encode(e) for e in kept] == [ev.encode(e) for e in events if not isinstance(e, ev.TextDelta)]
    assert isinstance(kept[-1], ev.RunFinished)


@pytest.mark.parametrize("error", [JournalError("disk full"), OSError("disk full")])
@pytest.mark.parametrize("node", [double, forever])
async def test_a_run_that_cannot_be_recorded_does_not_go_on(node: Any, error: Exception) -> None:
    """Whatever the journal raises, the run raises a `JournalError` and nothing else."""
    with anyio.fail_after(10), pytest.raises(JournalError, match="disk full"):
        await run(node, 1, journal=FailingJournal(1, error))


async def test_a_journal_is_complete_when_a_run_is_cancelled() -> None:
    """The record ends with the cancellation, and the call ends."""
    journal = MemoryJournal()
    with anyio.fail_after(10):
        with anyio.move_on_after(0.01):
            await run(forever, 1, journal=journal, run_id="r")
    assert isinstance((await journal.events("r"))[-1], ev.RunCancelled)


async def test_a_sync_node_runs_in_a_thread_and_may_emit() -> None:
    """Its events come in the loop's thread."""
    threads: list[int] = []

    def node(x: int, ctx: Context) -> int:
        ctx.emit({"at": x})
        return threading.get_ident()

    def observe(event: Any) -> None:
        if isinstance(event, ev.Emitted):
            assert event.value == {"at": 1}
            threads.append(threading.get_ident())

    result = await run(node, 1, observers=[observe])
    assert threads == [threading.get_ident()]
    assert result.output != threading.get_ident()


async def test_emit_from_the_loop_is_an_event_of_the_step() -> None:
    """In its place among the others."""

    async def node(x: int, ctx: Context) -> int:
        ctx.emit("half")
        return x

    events: list[Any] = []
    await run(node, 1, observers=[events.append])
    assert events[2] == ev.Emitted(path="node", at=events[2].at, value="half")


async def test_latest_reads_an_enclosing_branch() -> None:
    """G11: from inside a fork."""

    async def split(x: int) -> list[int]:
        return [x, x + 1]

    async def work(x: int, ctx: Context) -> tuple[int, list[int]]:
        return x, ctx.latest(split)

    graph = Graph("g")
    graph.edge(START, split)
    graph.edge(split, work, each=True)
    graph.edge(work, END, join=collect)
    assert (await run(graph, 1)).output == [(1, [1, 2]), (2, [1, 2])]


async def test_an_agent_goes_on_with_its_branch_s_conversation() -> None:
    """history="branch": the second visit sees the first; without it the agent starts afresh."""
    for history, lengths in (("branch", [2, 4]), ("fresh", [2, 2])):
        model = ScriptedModel(["one", "two"])
        writer = Agent("writer", model=model, instructions="write", history=history)  # type: ignore[call-overload]
        graph = Graph("g")
        graph.edge(START, writer)
        graph.edge(writer, writer, times=1)
        graph.edge(writer, END)
        assert (await run(graph, "go")).output == "two"
        assert [len(r.messages) for r in model.requests] == lengths


async def test_remaining_tells_the_tightest_limit() -> None:
    """Over all accounts around the step; uncapped dimensions are absent."""

    async def inner(x: int, ctx: Context) -> dict[str, float]:
        return ctx.budget.remaining

    async def outer(x: int, ctx: Context) -> dict[str, float]:
        return await ctx.run(inner, x, budget=Budget(tokens=500, usd=0.5))

    left = (await run(outer, 1, budget=Budget(tokens=100, steps=5, seconds=60))).output
    assert left["tokens"] == 100
    assert (left["usd"], left["steps"]) == (0.5, 3)
    assert 59 < left["seconds"] <= 60


async def test_an_unpriced_model_is_refused_under_a_usd_limit() -> None:
    """Not counted as free, and before anything runs."""
    agent = Agent("a", model=ScriptedModel(["x"], price=None))
    with pytest.raises(UnknownPrice, match="a: test/scripted"):
        await run(agent, "go", budget=Budget(usd=1))
    assert (await run(agent, "go", budget=Budget(tokens=10_000))).output == "x"


async def test_money_is_held_and_settled() -> None:
    """The result's cost is the provider's bill."""
    model = ScriptedModel(["one two three"], price=Price.per_million(input=1, output=10))
    result = await run(Agent("a", model=model), "go", budget=Budget(usd=1))
    assert result.usage.cost == model.bill.cost > 0
    assert result.usage.usd == pytest.approx(32e-6)


def test_run_ids_sort_by_time() -> None:
    """And differ."""
    ids = [new_run_id() for _ in range(10)]
    assert len(set(ids)) == 10
    assert [i[:15] for i in ids] == sorted(i[:15] for i in ids)


LONG = " ".join(["word"] * 300)


def swarm(model: FunctionModel, n: int = 32, join: Any = collect, **options: Any) -> Graph[Any, Any]:
    """Let n agents work on one question side by side."""
    agents = Agent("agent", model=model, **options)
    graph = Graph("swarm")
    graph.edge(START, [agents] * n)
    graph.edge(agents, END, join=join)
    return graph


async def answer_slowly(request: ModelRequest) -> str:
    await anyio.lowlevel.checkpoint()
    return LONG


async def answer_shortly(request: ModelRequest) -> str:
    await anyio.wait_all_tasks_blocked()
    return "short answer"


_turns = itertools.count()


async def fail_often(request: ModelRequest) -> Any:
    await anyio.lowlevel.checkpoint()
    turn = next(_turns)
    if turn % 3 == 1:
        return ModelUnavailable("lost", billed=None)
    return ValueError("no model error") if turn % 5 == 2 else LONG


async def hang(request: ModelRequest) -> str:
    await anyio.sleep_forever()
    return LONG


@pytest.mark.parametrize(
    "settings", [ModelSettings(), ModelSettings(max_tokens=100), ModelSettings(max_tokens=90, min_tokens=90)]
)
@pytest.mark.parametrize("join", [collect, first(), first(5), Join(collect, errors="drop")])
@pytest.mark.parametrize("function", [answer_slowly, fail_often])
@pytest.mark.parametrize("concurrency", [2, 1000])
async def test_32_agents_under_3000_tokens_are_billed_at_most_3000(
    settings: ModelSettings, join: Any, function: Any, concurrency: int
) -> None:
    """The issue's promise: whatever fails, is cut, cancelled or denied, the provider's own bill stays under it."""
    model = FunctionModel(function)
    recorded = Run(swarm(model, join=join, settings=settings), "What now?",
                    {"budget": Budget(tokens=3000), "concurrency": concurrency})  # fmt: skip
    try:
        with anyio.fail_after(20):
            await recorded.execute()
    except (BudgetExceeded, StepFailed):
        pass
    assert 0 < model.bill.tokens <= 3000
    assert model.bill.tokens <= recorded.ledger.usage().tokens <= 3000
    assert recorded.ledger.root.reserved == [0] * 7


async def test_32_hanging_agents_cancelled_are_billed_at_most_3000() -> None:
    """Calls cut without usage are charged at their reservation, and no more than that is billed."""
    model = FunctionModel(hang)
    recorded = Run(swarm(model, settings=ModelSettings(max_tokens=100)), "What?", {"budget": Budget(tokens=3000)})
    with anyio.move_on_after(0.05):
        await recorded.execute()
    usage = recorded.ledger.usage()
    assert 0 < model.bill.tokens == usage.tokens == usage.uncertain <= 3000


async def test_sub_agents_as_tools_share_the_budget() -> None:
    """32 sub-agents, called as tools in parallel by one agent, each under its own cap too."""
    from agentrt.testing import call

    sub_model = FunctionModel(answer_slowly)
    subs = [
        Agent(f"sub{i}", model=sub_model, description="helps", budget=Budget(tokens=200)) for i in range(32)
    ]  # fmt: skip
    lead_model = ScriptedModel([[call(f"sub{i}", input="go") for i in range(32)], text("done")])
    lead = Agent("lead", model=lead_model, tools=subs, settings=ModelSettings(max_tokens=200))
    result = Run(lead, "go", {"budget": Budget(tokens=4000)})
    with suppress(BudgetExceeded):
        await result.execute()
    assert 0 < sub_model.bill.tokens + lead_model.bill.tokens <= 4000
    assert result.ledger.usage().tokens <= 4000


async def test_with_enough_budget_nobody_is_denied() -> None:
    """Waiting in turn is not a denial: 32 agents of at most 93 tokens each fit in 3,000."""
    model = FunctionModel(answer_shortly)
    events: list[Any] = []
    result = await run(
        swarm(model, settings=ModelSettings(max_tokens=300, min_tokens=80)), "go", budget=Budget(tokens=3000),
        observers=[events.append],
    )  # fmt: skip
    assert result.output == ["short answer"] * 32
    assert model.bill.tokens == result.usage.tokens
    assert any(isinstance(e, ev.BudgetWaited) for e in events)
    assert not any(isinstance(e, ev.BudgetDenied) for e in events)


async def test_a_failure_is_no_output() -> None:
    """One that a join dropped, and that a node or a graph returns again, is told from a step that failed."""

    async def fork(x: int) -> list[int]:
        return [x]

    graph = Graph("graph", input=int)
    graph.chain(START, fork)
    graph.edge(fork, broken, each=True)
    graph.edge(broken, END, join=Join(collect, errors="drop"))
    (failure,) = (await run(graph, 1)).dropped

    async def confused(x: object) -> object:
        return failure

    through = Graph("through")
    through.edge(START, END)
    for node in (as_node(confused), through):
        with pytest.raises(StepFailed, match=f"{node.name} returned a Failure") as caught:
            await run(node, failure)
        assert caught.value.path == node.name


async def test_a_run_that_cannot_fit_its_budget_is_refused() -> None:
    """Before anything runs, and again in a second run; one that stops with what it has is not."""
    events: list[Any] = []
    agents = [Agent(f"a{i}", model=FunctionModel(lambda request: "x", price=Price(1, 1))) for i in range(3)]
    graph = Graph("graph")
    graph.chain(START, double, *agents, END)
    for budget, needed in ((Budget(model_calls=2), 3), (Budget(steps=7), 8), (Budget(tokens=2), 3), (Budget(usd=0), 3)):
        for _ in range(2):
            with pytest.raises(BudgetTooSmall) as error:
                await run(graph, 1, budget=budget, observers=[events.append])
            assert error.value.needed == (needed if budget.usd is None else needed / PICO)
    assert events == []
    assert (await run(graph, 1, budget=Budget(steps=7, on_exhausted="partial"))).stop_reason is StopReason.PARTIAL
    assert (await run(graph, 1, budget=Budget(steps=8))).usage.steps == 8


async def test_the_models_of_the_run_say_what_it_takes() -> None:
    """A cache may know every answer, and so may the edges added since then lead around an agent."""
    agent = Agent("agent", model=FunctionModel(lambda request: "x"))
    graph = Graph("graph")
    graph.edge(START, agent, when=bool)
    graph.edge(agent, END)
    none = Budget(model_calls=0)
    with pytest.raises(BudgetTooSmall, match="needs at least 1 model_calls, most of it for graph/agent"):
        await run(graph, "x", budget=none)
    with pytest.raises(BudgetExceeded) as error:
        await run(graph, "x", budget=none, model=Cached(FunctionModel(lambda request: "x")))
    assert not isinstance(error.value, BudgetTooSmall)
    graph.edge(START, END)
    with pytest.raises(BudgetExceeded) as error:
        await run(graph, "x", budget=none)
    assert not isinstance(error.value, BudgetTooSmall)
