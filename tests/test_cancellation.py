"""Cancellation: from everywhere, at every moment, and of very many at once; afterwards nothing is left.

`Everything` is a run that has all a run can have: forks, a cycle, agents whose tools run side by side, an agent as a
tool, a sub-graph, a `first(2)`, a `ctx.map`, and a budget so small that reservations wait for each other.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from agentrt import (
    END,
    START,
    Agent,
    AgentrtError,
    Budget,
    BudgetExceeded,
    Context,
    Graph,
    ModelRequest,
    ModelSettings,
    Node,
    StepFailed,
    collect,
    first,
    stream,
    tool,
)
from agentrt import events as ev
from agentrt.function import as_node
from agentrt.ledger import Request
from agentrt.runs import Run
from agentrt.testing import FunctionModel, call
from agentrt.testing.loop import VirtualLoop
from tests.steploop import StepLoop, run_stepwise
from tests.test_scheduler import check_record, fan

pytestmark = pytest.mark.anyio
CAP = 5000
ALARM = 1000.0  # seconds; the run's deadline, which only an interference brings about


class Model(FunctionModel):
    """Call two tools at first, answer then; take some turns of the loop; know whether it was closed."""

    def __init__(self) -> None:
        super().__init__(self._reply, name="test/everything")
        self.closed = 0
        self.open_calls = 0

    async def _reply(self, request: ModelRequest) -> Any:
        self.open_calls += 1
        try:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
        finally:
            self.open_calls -= 1
        if request.tools and len(request.messages) == 1:
            return [call("search", query="x"), call("helper", input="y"), call("helper", input="z")]
        return "an answer of five words"

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed += 1


@tool
async def search(query: str) -> str:
    """Search."""
    await anyio.lowlevel.checkpoint()
    return "found"


class Everything:
    """Run the whole of it, beside a saboteur that waits to be let loose."""

    loop: StepLoop
    run: Run
    task: asyncio.Task[None]
    scope: anyio.CancelScope
    raised: BaseException | None

    def __init__(self, join: Any = collect) -> None:
        self.events: list[Any] = []
        self.model = Model()
        self.schedulers: set[Any] = set()
        self.loose: anyio.Event | None = None
        self.sabotaging = self.begun = False
        self.resolved = 0
        self.breaks = join is collect
        self.graph = self._graph(join)
        self.options: dict[str, Any] = {
            "observers": [self.events.append],
            "budget": Budget(tokens=CAP, seconds=ALARM),
            "concurrency": 3,
            "model": "test/everything",
        }

    def _graph(self, join: Any) -> Graph[Any, Any]:
        async def saboteur(x: int) -> int:
            self.loose = anyio.Event()
            while not self.sabotaging:
                await self.loose.wait()
            if self.breaks:
                raise ValueError("sabotage")
            return x

        work = self._work()
        graph = Graph("g", input=int)
        graph.edge(START, [saboteur, work])
        graph.edge([saboteur, work], END, join=join)
        return graph

    def _work(self) -> Graph[Any, Any]:
        settings = ModelSettings(max_tokens=100, min_tokens=90)
        helper = Agent("helper", description="helps", settings=settings)
        agent = Agent("agent", tools=[search, helper], settings=settings, budget=Budget(tokens=230))

        async def split(x: Any) -> list[int]:
            return [1, 2, 3]

        async def merge(x: Any) -> Any:
            return x

        async def leaf(x: int) -> int:
            await anyio.sleep(0.1)
            return x

        async def mapped(x: Any, ctx: Context) -> list[int]:
            self.schedulers.add(ctx.scheduler)  # type: ignore[attr-defined]
            return await ctx.map(leaf, [1, 2, 3], limit=2)

        inner = Graph("inner")
        inner.edge(START, [mapped, mapped])
        inner.edge(mapped, END, join=collect)
        work = Graph("work")
        work.edge(START, split)
        work.edge(split, agent, each=True)
        work.edge(agent, merge, join=first(2))
        work.edge(merge, split, times=1)
        work.edge(merge, inner)
        work.edge(inner, END)
        return work

    def resolve(self, name: str) -> Model:
        self.resolved += 1
        return self.model

    def let_loose(self) -> None:
        self.sabotaging = True
        if self.loose is not None:
            self.loose.set()

    async def execute(self) -> None:
        """Run in a task of its own, in a scope of its own, and see to it that no task is left."""
        self.run = Run(self.graph, 1, self.options)  # type: ignore[arg-type]
        before = asyncio.all_tasks()
        self.task = asyncio.create_task(self._execute())
        await asyncio.wait([self.task])
        self.raised = asyncio.CancelledError() if self.task.cancelled() else self.task.exception()
        assert asyncio.all_tasks() == before

    async def _execute(self) -> None:
        with anyio.CancelScope() as self.scope:
            self.begun = True
            await self.run.execute()

    def check(self) -> None:
        """Check that nothing is left, whatever happened."""
        check_record(self.events)
        check_ledger(self.run)
        assert self.model.open_calls == 0
        assert self.model.closed == self.resolved
        assert self.model.bill.tokens <= self.run.ledger.usage().tokens <= CAP
        assert all(s.statistics().running == 1 for s in self.schedulers)  # the root's own slot is never returned
        assert not isinstance(self.raised, BaseExceptionGroup)


def check_ledger(run: Run) -> None:
    assert run.ledger.root.reserved == [0] * 7
    assert run.ledger.root.claims == 0
    assert run.ledger.statistics().waiting == 0


HOW: dict[str, Callable[[Everything], object]] = {
    "scope": lambda e: e.scope.cancel(),
    "native": lambda e: e.task.cancel(),
    "deadline": lambda e: e.loop.pass_time(2 * ALARM),
    "sibling": lambda e: e.let_loose(),
    "first": lambda e: e.let_loose(),
}


def interfered(how: str, at: int) -> Everything:
    """Run everything, interfering before the `at`-th callback of the loop, and check what is left."""
    everything = Everything(first() if how == "first" else collect)
    everything.loop = StepLoop(at, lambda: everything.begun and HOW[how](everything))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentrt.model.resolve_model", everything.resolve)
        patch.setattr(trace, "_TRACER_PROVIDER", PROVIDER)
        run_stepwise(everything.execute, everything.loop)
    everything.check()
    return everything


ENDINGS = {
    "scope": (type(None), BudgetExceeded),  # too late for the last moments: then the deadline ends it
    "native": (asyncio.CancelledError, BudgetExceeded),
    "deadline": (BudgetExceeded,),
    "sibling": (StepFailed, BudgetExceeded),
    "first": (type(None), BudgetExceeded),
}
STRIDE = 29
PROVIDER = TracerProvider()  # so that steps make their spans current, in whatever task they run


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("at", [pytest.param(range(1, STRIDE), marks=pytest.mark.slow), range(STRIDE, STRIDE + 1)])
def test_at_every_moment(how: str, at: range, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever cancels, and whenever: one error, one end a step, nothing reserved, open, running or complained of."""
    moments = interfered(how, 0).loop.steps
    for start in at:
        for moment in range(start, moments + STRIDE, STRIDE):
            everything = interfered(how, moment)
            assert isinstance(everything.raised, ENDINGS[how]), (moment, everything.raised)
    assert caplog.records == []


def test_the_run_that_is_interfered_with_has_it_all() -> None:
    """Else the test above would show little: reservations wait, steps are cancelled, a cycle turns."""
    everything = interfered("scope", 0)
    kinds = {type(e) for e in everything.events}
    assert {ev.BudgetWaited, ev.StepCancelled, ev.UsageRecorded} <= kinds
    assert any("split#2" in e.path for e in everything.events if isinstance(e, ev.StepStarted))


@pytest.mark.parametrize("after", range(0, 140, 23))
async def test_leaving_a_stream_after_any_event(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever event it was."""
    everything = Everything()
    monkeypatch.setattr("agentrt.model.resolve_model", everything.resolve)
    before = asyncio.all_tasks()
    with anyio.fail_after(20):
        async with stream(everything.graph, 1, **everything.options) as events:
            for _ in range(after + 1):
                await anext(events)
    check_record(everything.events)
    assert isinstance(everything.events[-1], ev.RunCancelled)
    assert (everything.model.open_calls, everything.model.closed) == (0, everything.resolved)
    assert asyncio.all_tasks() == before


async def forever(x: int) -> int:
    await anyio.sleep_forever()
    return x


async def cpu_of_cancelling(n: int) -> float:
    """Return the CPU seconds it takes to cancel so many waiting steps, to the end of the run."""
    counts: Counter[str] = Counter()
    run = Run(fan(forever, n), 1, {"concurrency": n + 1, "observers": [lambda e: counts.update([type(e).__name__])]})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.execute)
        while counts["StepStarted"] < n + 2:
            await anyio.lowlevel.checkpoint()
        began = time.process_time()
        tasks.cancel_scope.cancel()
    assert (counts["StepCancelled"], counts["RunCancelled"]) == (n + 1, 1)
    check_ledger(run)
    return time.process_time() - began


async def cpu_of_cancelling_bare(n: int) -> float:
    async with anyio.create_task_group() as tasks:
        for _ in range(n):
            tasks.start_soon(anyio.sleep_forever)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        began = time.process_time()
        tasks.cancel_scope.cancel()
    return time.process_time() - began


@pytest.mark.parametrize("n", [1, 100, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_very_many_waiting_steps(n: int) -> None:
    """All of them end, at a cost near that of as many bare tasks (measured: 1.3 to 2.1 times; collection aside)."""
    gc.collect()
    bare = await cpu_of_cancelling_bare(n)
    ours = await cpu_of_cancelling(n)
    print(f"cancelling {n:,}: bare anyio {bare:.3f} s, a run {ours:.3f} s, ratio {ours / bare:.2f}")
    assert n < 100_000 or ours < 6 * bare


@pytest.mark.parametrize("how", ["scope", "first", "sibling", "deadline"])
async def test_a_thread_is_left_behind_and_not_waited_for(how: str) -> None:
    """A plain function cannot be interrupted; its step ends all the same, and its context refuses it."""
    may_end, told = threading.Event(), threading.Event()
    started = anyio.Event()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    refused: list[str] = []

    def blocks(x: int, ctx: Context) -> int:
        loop.call_soon_threadsafe(started.set)
        may_end.wait(20)
        try:
            ctx.emit("late")
        except AgentrtError as error:
            refused.append(str(error))
        told.set()
        return x

    async def other(x: int) -> int:
        await started.wait()
        if how == "sibling":
            raise ValueError("sibling")
        if how == "deadline":
            loop._now += 60
        if how != "first":
            await anyio.sleep_forever()
        return 7

    graph = Graph("g")
    graph.edge(START, [blocks, other])
    graph.edge([blocks, other], END, join=first() if how == "first" else collect)
    events: list[Any] = []
    run = Run(graph, 1, {"budget": Budget(seconds=60), "observers": [events.append]})
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            if how == "scope":
                tasks.start_soon(_cancel_after, scope, started)
            with suppress(StepFailed, BudgetExceeded):
                await run.execute()
    check_record(events)
    may_end.set()
    assert await anyio.to_thread.run_sync(told.wait, 20)
    assert "g/blocks[0] has ended" in refused[0]
    assert not any(isinstance(e, ev.Emitted) for e in events)


async def _cancel_after(scope: anyio.CancelScope, started: anyio.Event) -> None:
    await started.wait()
    scope.cancel()


async def test_a_waiting_reservation_is_withdrawn_with_its_step() -> None:
    """It no longer keeps those behind it from what they ask for."""
    holder = Reserve("holder", 60)
    greedy = Reserve("greedy", 80)  # waits for the holder; behind it, by rule B6, the modest one waits too
    modest = Reserve("modest", 30)

    async def root(x: int, ctx: Context) -> int:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ctx.run, holder, x)
            await anyio.wait_all_tasks_blocked()
            scope = anyio.CancelScope()
            tasks.start_soon(_in_scope, scope, ctx, greedy)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(ctx.run, modest, x)
            await anyio.wait_all_tasks_blocked()
            assert not modest.granted
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert modest.granted
            holder.may_end.set()
            modest.may_end.set()
        return x

    run = Run(as_node(root), 1, {"budget": Budget(tokens=100)})
    with anyio.fail_after(20):
        assert (await run.execute()).usage.tokens == 90
    check_ledger(run)


class Reserve(Node[int, int]):
    """Reserve tokens, wait, and end without a word about them."""

    def __init__(self, name: str, tokens: int) -> None:
        super().__init__(name)
        self.tokens = tokens
        self.granted = False
        self.may_end = anyio.Event()

    async def invoke(self, ctx: Context, value: int, /) -> int:
        await ctx.reserve(Request([0, self.tokens, self.tokens, 0, 0, 0, 0]))
        self.granted = True
        await self.may_end.wait()
        return value


async def _in_scope(scope: anyio.CancelScope, ctx: Context, node: Node[int, int]) -> None:
    with scope:
        await ctx.run(node, 1)


@pytest.mark.parametrize("how", ["deadline", "scope"])
def test_steps_that_never_await_are_cancelled_too(how: str) -> None:
    """A graph may turn for ever without awaiting anything; its deadline, and a cancel from outside, are heard."""
    scopes: list[anyio.CancelScope] = []
    loop = StepLoop(20, lambda: scopes[0].cancel() if how == "scope" else loop.pass_time(2 * ALARM))

    async def spin(x: int) -> int:
        assert x < 100_000, "nothing was heard"
        return x + 1

    graph = Graph("g")
    graph.edge(START, spin)
    graph.edge(spin, END, when=lambda x: x < 0)
    graph.edge(spin, spin)

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await Run(graph, 1, {"budget": Budget(seconds=ALARM)}).execute()
        assert scope.cancelled_caught

    with nullcontext() if how == "scope" else pytest.raises(BudgetExceeded, match="its time of"):
        run_stepwise(main, loop)


@pytest.mark.parametrize("way", ["run", "map", "gather", "emit", "reserve", "drive", "spend", "record"])
async def test_a_context_ends_with_its_step(way: str) -> None:
    """A task that a step leaves behind cannot go on in its name, outside the record and the budget."""
    kept: list[Any] = []

    async def keeps(x: int, ctx: Context) -> int:
        kept.append(ctx)
        return x

    async def root(x: int, ctx: Context) -> None:
        await ctx.run(keeps, x)
        arguments = {"run": (keeps, 1), "map": (keeps, [1]), "gather": ([(as_node(keeps), 1)],), "drive": (None,)}
        used = getattr(kept[0], way)(*arguments.get(way, (None,)))
        if way not in ("emit", "spend", "record"):
            await used

    with pytest.raises(StepFailed, match=r"root/keeps has ended, and something it left behind"):
        await Run(as_node(root), 1, {}).execute()


async def test_what_is_left_waiting_gets_no_reservation() -> None:
    """Its turn may come when its step has ended: nobody would ever give that reservation back."""
    left: list[asyncio.Task[Any]] = []

    async def holds(x: int, ctx: Context) -> None:
        reservation = await ctx.reserve(Request([0, 90, 0, 0, 0, 0, 0]))
        await anyio.sleep(5)
        reservation.release()

    async def leaves(x: int, ctx: Context) -> None:
        await anyio.sleep(1)
        left.append(asyncio.ensure_future(ctx.reserve(Request([0, 50, 0, 0, 0, 0, 0]))))
        await anyio.lowlevel.checkpoint()

    async def root(x: int, ctx: Context) -> None:
        await ctx.gather([(as_node(holds), 1), (as_node(leaves), 1)])

    run = Run(as_node(root), 1, {"budget": Budget(tokens=100)})
    await run.execute()
    with pytest.raises(AgentrtError, match="leaves has ended"):
        await left[0]
    assert run.ledger.root.reserved == [0] * 7


async def test_a_forfeited_reservation_is_charged_whole() -> None:
    """B9: in tokens, too, that are not said to be read or written."""

    async def forgets(x: int, ctx: Context) -> None:
        await ctx.reserve(Request([0, 90, 0, 0, 0, 0, 0]))

    run = Run(as_node(forgets), 1, {"budget": Budget(tokens=100)})
    await run.execute()
    assert run.ledger.root.spent[:4] == [0, 90, 0, 0]


class Stubborn(Model):
    """Fail, or hang, when it is closed."""

    async def aclose(self) -> None:
        await super().aclose()
        if self.closed == 1:
            raise OSError("cannot close")
        await anyio.sleep_forever()


async def test_models_that_cannot_be_closed_end_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the others are closed; the outcome stands."""
    model = Stubborn()
    monkeypatch.setattr("agentrt.model.resolve_model", lambda name: model)
    monkeypatch.setattr("agentrt.model._CLOSING_SECONDS", 0.01)
    graph = Graph("g")
    graph.chain(START, Agent("a", model="test/one"), Agent("b", model="test/two"), END)
    assert (await Run(graph, "go", {}).execute()).output == "an answer of five words"
    assert model.closed == 2
    assert [r.message.partition(";")[0] for r in caplog.records] == [
        "model test/one could not be closed",
        "model test/two did not close within 0.01 s",
    ]


async def test_concurrent_maps_of_one_name_need_keys() -> None:
    """Paths: else they would be numbered by timing; one after the other they are numbered in order."""

    async def leaf(x: int) -> int:
        await anyio.lowlevel.checkpoint()
        return x

    async def root(keys: tuple[str | None, str | None], ctx: Context) -> None:
        async with anyio.create_task_group() as tasks:
            for key in keys:
                tasks.start_soon(lambda key=key: ctx.map(leaf, [1, 2], key=key))  # type: ignore[misc]
        await ctx.map(leaf, [3], key=keys[0])

    events: list[Any] = []
    await Run(as_node(root), ("a", "b"), {"observers": [events.append]}).execute()
    paths = {e.path for e in events if isinstance(e, ev.StepStarted)}
    assert paths == {"root", *(f"root/leaf[{k}][{i}]" for k in "ab" for i in (0, 1)), "root/leaf[a]#2[0]"}
    with pytest.raises(StepFailed) as error:
        await Run(as_node(root), (None, None), {}).execute()
    assert "already runs 'leaf'" in str(error.value.cause.exceptions[0])  # type: ignore[attr-defined]
