"""The scheduler: slots, workers and cancellation, under random graphs and at the awkward moments."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import (
    END,
    START,
    AgentrtError,
    Budget,
    BudgetExceeded,
    Context,
    Graph,
    Join,
    StepFailed,
    collect,
    first,
    run,
    run_sync,
)
from agentrt import events as ev
from agentrt.runs import Run
from agentrt.testing import run_virtual
from tests.randomgraphs import Builder

pytestmark = pytest.mark.anyio
orders = st.none() | st.integers(0, 2**32)
_TERMINAL = (ev.StepFinished, ev.StepFailed, ev.StepCancelled)


def check_record(record: list[Any]) -> None:
    """Check that every step that started ended exactly once, afterwards, and that the run did."""
    started = Counter(e.path for e in record if isinstance(e, ev.StepStarted))
    ended = Counter(e.path for e in record if isinstance(e, _TERMINAL))
    assert max(started.values(), default=0) <= 1
    assert started == ended
    open_steps: set[str] = set()
    for event in record:
        if isinstance(event, ev.StepStarted):
            open_steps.add(event.path)
        elif isinstance(event, _TERMINAL):
            open_steps.remove(event.path)
    assert sum(isinstance(e, (ev.RunFinished, ev.RunFailed, ev.RunCancelled)) for e in record) == 1
    assert isinstance(record[0], ev.RunStarted)


class Recorded:
    """Run a node and keep its events and its ledger; nothing may be left running or reserved."""

    def __init__(self, node: Any, value: Any = 0, **options: Any) -> None:
        self.events: list[Any] = []
        self.inner = Run(node if isinstance(node, Graph) else _as_node(node), value,
                          {"observers": [self.events.append], **options})  # fmt: skip

    async def execute(self) -> Any:
        tasks = len(asyncio.all_tasks())
        try:
            with anyio.fail_after(20):
                return (await self.inner.execute()).output
        finally:
            check_record(self.events)
            assert self.inner.ledger.root.reserved == [0] * 7
            assert self.inner.ledger.statistics().waiting == 0
            assert len(asyncio.all_tasks()) == tasks


def _as_node(function: Any) -> Any:
    from agentrt.function import as_node

    return as_node(function)


def fan(work: Callable[..., Any], n: int, join: Any = collect) -> Graph[Any, Any]:
    async def split(x: int) -> list[int]:
        return list(range(n))

    graph = Graph("g")
    graph.edge(START, split)
    graph.edge(split, work, each=True)
    graph.edge(work, END, join=join)
    return graph


class Gauge:
    """Count how many work at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def work(self, x: int) -> int:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        self.now -= 1
        return x


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (50, 20)])
async def test_steps_run_at_once_up_to_the_limit(limit: int, most: int) -> None:
    """Twenty branches, and never more than `concurrency` of them at work."""
    gauge = Gauge()

    async def work(x: int) -> int:
        return await gauge.work(x)

    assert await Recorded(fan(work, 20), concurrency=limit).execute() == list(range(20))
    assert gauge.most == most


async def test_map_has_a_limit_of_its_own() -> None:
    """`ctx.map(limit=)` beneath a generous concurrency."""
    gauge = Gauge()

    async def root(x: int, ctx: Context) -> list[int]:
        return await ctx.map(gauge.work, range(10), limit=2)

    assert await Recorded(root).execute() == list(range(10))
    assert gauge.most == 2


async def leaf(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return x + 1


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_slots_are_lent_so_that_nesting_never_deadlocks(limit: int) -> None:
    """B12: graphs in maps in task groups, with a single slot."""

    async def middle(x: int, ctx: Context) -> int:
        return (await ctx.map(fan(leaf, 3), [x, x]))[0][0]

    async def root(x: int, ctx: Context) -> int:
        results: list[int] = []

        async def one(key: int) -> None:
            results.append(await ctx.run(middle, key, key=key))

        async with anyio.create_task_group() as tasks:
            for key in range(3):
                tasks.start_soon(one, key)
        return sum(results) + await ctx.run(leaf, 0)

    assert await Recorded(root, concurrency=limit).execute() == 4


async def test_who_has_waited_for_others_waits_for_a_slot() -> None:
    """B12: a slot is lent, and taken again only when one is free."""
    gauge = Gauge()

    async def work(x: int, ctx: Context) -> int:
        await ctx.map(gauge.work, [x, x])
        return await gauge.work(x)

    assert await Recorded(fan(work, 6), concurrency=2).execute() == list(range(6))
    assert gauge.most == 2


@given(seed=st.integers(0, 2**32), limit=st.integers(1, 4), failing=st.sampled_from([0, 5, 30]), order=orders)
def test_every_step_that_starts_ends_once(seed: int, limit: int, failing: int, order: int | None) -> None:
    """Random graphs with failures, deaths and `first`: one terminal event a step, nothing reserved, no task left."""
    graph = Builder(seed, failing).build()

    async def main() -> None:
        try:
            await Recorded(graph, 7, concurrency=limit, budget=Budget(steps=200)).execute()
        except (StepFailed, BudgetExceeded):
            return

    run_virtual(main, seed=order)


@given(
    seed=st.integers(0, 2**32), limit=st.integers(1, 4), after=st.integers(0, 30), native=st.booleans(), order=orders
)
def test_cancelling_at_any_moment_leaves_nothing(
    seed: int, limit: int, after: int, native: bool, order: int | None
) -> None:
    """From outside, after any number of turns of the loop, by anyio's scopes or by asyncio."""
    graph = Builder(seed, 5).build()

    async def main() -> None:
        recorded = Recorded(graph, 7, concurrency=limit)

        async def execute() -> None:
            try:
                await recorded.execute()
            except StepFailed:
                return

        if native:
            task = asyncio.create_task(execute())
            for _ in range(after + 1):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=20)
            assert task.done()
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            for _ in range(after + 1):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    run_virtual(main, seed=order)


async def test_a_failed_sibling_cancels_the_rest_at_once() -> None:
    """G9: steps that wait are cancelled through their worker's scope, and those queued never start."""

    async def work(x: int) -> int:
        if x == 1:
            raise ValueError("broken")
        await anyio.sleep_forever()
        return x

    recorded = Recorded(fan(work, 5), concurrency=3)
    with pytest.raises(StepFailed, match=r"g/work\[1\]: ValueError: broken"):
        await recorded.execute()
    assert sum(isinstance(e, ev.StepCancelled) for e in recorded.events) < 4


async def test_what_is_given_up_in_the_queue_never_starts() -> None:
    """G8: though the graph goes on, and what it goes on with was ready later."""
    begun: list[int] = []

    async def split(x: int) -> list[int]:
        return [1, 2, 3]

    async def work(x: int) -> int:
        begun.append(x)
        return x

    graph = Graph("g")
    graph.edge(START, split)
    graph.edge(split, work, each=True)
    graph.edge(work, leaf, join=first())
    graph.edge(leaf, END)
    assert await Recorded(graph, concurrency=1).execute() == 2
    assert begun == [1]


async def test_first_cancels_what_is_slower() -> None:
    """G8: also what those steps themselves wait for."""

    async def slow(x: int) -> int:
        await anyio.sleep_forever()
        return x

    async def work(x: int, ctx: Context) -> int:
        return x if x == 2 else (await ctx.map(slow, [1, 2]))[0]

    recorded = Recorded(fan(work, 4, first()))
    assert await recorded.execute() == 2
    assert sum(isinstance(e, ev.StepCancelled) for e in recorded.events) >= 3


async def test_a_native_cancel_with_a_single_slot_does_not_wait_for_a_slot() -> None:
    """The root waits for a child that never ends, has lent its slot, and must not wait to get it back."""

    async def never(x: int) -> int:
        await anyio.sleep_forever()
        return x

    task = asyncio.create_task(Recorded(fan(never, 2), concurrency=1).execute())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


async def test_a_step_that_swallows_its_cancellation_changes_nothing() -> None:
    """Its late result is ignored, its step ends, the run goes on."""

    async def work(x: int) -> int:
        if x == 0:
            await anyio.wait_all_tasks_blocked()
            return x
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return 99
        return x

    recorded = Recorded(fan(work, 3, first()))
    assert await recorded.execute() == 0


@pytest.mark.parametrize("n", [1, 3])
async def test_a_stray_cancellation_is_an_error_of_its_step(n: int) -> None:
    """A node lets out the cancellation of a future that it awaited: nobody cancelled the run."""

    async def work(x: int) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future

    with pytest.raises(StepFailed, match=r"g/work\[0\]: something that g/work\[0\] awaited was cancelled"):
        await Recorded(fan(work, n), concurrency=1).execute()


async def test_a_stray_cancellation_can_be_dropped() -> None:
    """As any error; here in a worker."""

    async def work(x: int) -> int:
        if x:
            raise asyncio.CancelledError
        return x

    assert await Recorded(fan(work, 3, Join(collect, errors="drop"))).execute() == [0]


async def test_cleaning_up_gets_a_slot() -> None:
    """A cancelled step may still run steps, shielded, while the steps around it wait for its end."""
    cleaned = []

    async def tidy(x: int) -> int:
        return x + 1

    async def wait(x: int) -> int:
        await anyio.sleep_forever()
        return x

    async def careful(x: int, ctx: Context) -> int:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                cleaned.extend(await ctx.map(tidy, [1, 2]))
                with pytest.raises(AgentrtError, match="cancelled with the run"):
                    await ctx.map(wait, [1, 2])  # in workers, which nobody shields
                cleaned.append(await ctx.run(leaf, 3))
        return x

    with anyio.move_on_after(0.05):
        await Recorded(fan(careful, 3), concurrency=1).execute()
    assert cleaned == [2, 3, 4]


async def test_deadlines_cancel_steps_below() -> None:
    """B12: `seconds` reaches the leaves, and is the scope's own denial."""

    async def slow(x: int) -> int:
        await anyio.sleep_forever()
        return x

    recorded = Recorded(fan(slow, 3), budget=Budget(seconds=0.01))
    with pytest.raises(BudgetExceeded, match=r"its time of 0\.01 s is over") as error:
        await recorded.execute()
    assert (error.value.scope, error.value.dimension) == ("g", "seconds")
    assert sum(isinstance(e, ev.StepCancelled) for e in recorded.events) == 3


async def test_an_outer_deadline_speaks_in_its_own_name() -> None:
    """The inner scope had more time."""

    async def slow(x: int) -> int:
        await anyio.sleep_forever()
        return x

    async def root(x: int, ctx: Context) -> int:
        return await ctx.run(slow, x, budget=Budget(seconds=100))

    with pytest.raises(BudgetExceeded) as error:
        await Recorded(root, budget=Budget(seconds=0.01)).execute()
    assert error.value.scope == "root"


async def test_an_inner_deadline_can_be_caught() -> None:
    """E1: code may catch a denial and go on."""

    async def slow(x: int) -> int:
        await anyio.sleep_forever()
        return x

    async def root(x: int, ctx: Context) -> str:
        try:
            await ctx.run(slow, x, budget=Budget(seconds=0.01))
        except BudgetExceeded as error:
            return error.scope
        return "in time"

    assert await Recorded(root).execute() == "root/slow"


async def test_exhaustion_drains() -> None:
    """E2: what runs may end; nothing more starts; the run raises the denial."""
    ended = []

    async def work(x: int) -> int:
        await anyio.lowlevel.checkpoint()
        ended.append(x)
        return x

    recorded = Recorded(fan(work, 10), budget=Budget(steps=5), concurrency=100)
    with pytest.raises(BudgetExceeded) as error:
        await recorded.execute()
    assert ended == [0, 1, 2]
    assert (error.value.scope, error.value.dimension) == ("g", "steps")
    assert not any(isinstance(e, ev.StepCancelled) for e in recorded.events)


async def test_nesting_needs_no_deep_stack() -> None:
    """Two hundred graphs inside each other, run in the task of the first as far as a stack allows."""

    async def inmost(x: int) -> int:
        return x

    node: Any = inmost
    for i in range(200):
        graph = Graph(f"g{i}")
        graph.chain(START, node, END)
        node = graph
    for limit in (1, 1000):
        assert await Recorded(node, 5, concurrency=limit).execute() == 5


async def test_recursion_in_code_needs_no_deep_stack() -> None:
    """A node that runs itself, five hundred deep."""

    async def down(x: int, ctx: Context) -> int:
        return 0 if x == 0 else 1 + await ctx.run(down, x - 1)

    assert await Recorded(down, 500, concurrency=1).execute() == 500


async def test_a_long_cycle_is_no_recursion() -> None:
    """Ten thousand visits."""

    async def increment(x: int) -> int:
        return x + 1

    graph = Graph("g")
    graph.edge(START, increment)
    graph.edge(increment, END, when=lambda x: x >= 10_000)
    graph.edge(increment, increment)
    assert (await run(graph, 0)).output == 10_000


async def test_a_wide_fork() -> None:
    """Ten thousand branches, a few workers."""

    async def work(x: int) -> int:
        return 1

    assert (await run(fan(work, 10_000, sum), 0)).output == 10_000


async def test_one_node_may_stand_in_two_graphs() -> None:
    """Nodes keep no state of a run."""
    inner = fan(leaf, 2, sum)
    outer = Graph("outer")
    outer.chain(START, leaf, inner, END)
    assert await Recorded(outer).execute() == 3


async def test_a_run_inside_a_run() -> None:
    """The inner one has a ledger and a record of its own."""

    async def root(x: int) -> int:
        return (await run(leaf, x)).output

    assert await Recorded(root, 1).execute() == 2


async def test_concurrent_calls_of_one_name_need_keys() -> None:
    """G12: else their paths would depend on timing."""

    async def root(x: int, ctx: Context) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ctx.run, leaf, 1)
            tasks.start_soon(ctx.run, leaf, 2)

    with pytest.raises(StepFailed) as error:
        await Recorded(root).execute()
    assert isinstance(error.value.cause, ExceptionGroup)
    assert "already runs 'leaf'" in str(error.value.cause.exceptions[0])


@pytest.mark.parametrize("key", ["", "a/b", "a#b", "[", "]"])
async def test_a_key_must_fit_a_path(key: str) -> None:
    """Paths: index-or-key holds none of / # [ ]."""

    async def root(x: int, ctx: Context) -> int:
        return await ctx.run(leaf, x, key=key)

    with pytest.raises(StepFailed, match="a key stands in paths"):
        await Recorded(root).execute()


async def test_dynamic_calls_are_numbered_in_order() -> None:
    """Paths: the n-th call of a name by the caller; keys and maps in brackets."""

    async def root(x: int, ctx: Context) -> None:
        await ctx.run(leaf, 1)
        await ctx.run(leaf, 2)
        await ctx.run(leaf, 3, key="k")
        await ctx.map(leaf, [4, 5])
        await ctx.map(leaf, [6])

    recorded = Recorded(root)
    await recorded.execute()
    paths = [e.path for e in recorded.events if isinstance(e, ev.StepStarted)]
    expected = ["leaf", "leaf#2", "leaf[k]", "leaf[0]", "leaf[1]", "leaf#2[0]"]
    assert paths == ["root", *(f"root/{p}" for p in expected)]


async def test_a_denial_in_a_users_own_task_group_wins() -> None:
    """E7: a contained `BudgetExceeded` is the run's, not the group."""

    async def root(x: int, ctx: Context) -> None:
        async with anyio.create_task_group() as tasks:
            for key in range(5):
                tasks.start_soon(lambda key=key: ctx.run(leaf, key, key=key))  # type: ignore[misc]

    with pytest.raises(BudgetExceeded, match="root") as error:
        await Recorded(root, budget=Budget(steps=3)).execute()
    assert error.value.dimension == "steps"


async def test_other_errors_of_a_users_task_group_stay_a_group() -> None:
    """E7: the cause is the group, the step is the one that opened it."""

    async def broken(x: int) -> None:
        raise ValueError(x)

    async def root(x: int, ctx: Context) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ctx.run, broken, 1)

    with pytest.raises(StepFailed) as error:
        await Recorded(root).execute()
    assert error.value.path == "root"
    assert isinstance(error.value.cause, ExceptionGroup)


def test_system_exit_leaves_as_it_is() -> None:
    """Not as a group; the step is recorded as cancelled."""

    async def leave(x: int) -> None:
        raise SystemExit(3)

    for node in (leave, fan(leave, 1)):
        with pytest.raises(SystemExit):
            run_sync(node, 0)


async def test_what_died_is_told_before_what_follows() -> None:
    """The record is in the order of the decisions, also where one task does it all."""

    async def work(x: int) -> int:
        return x

    async def after(values: list[int]) -> int:
        return len(values)

    graph = Graph("g")
    graph.edge(START, _lists)
    graph.edge(_lists, work, each=True)
    graph.edge(work, after, join=collect, when=lambda x: False)
    graph.edge(after, END)
    recorded = Recorded(graph, 1)
    assert await recorded.execute() == 0
    kinds = [(type(e).__name__, getattr(e, "path", "")) for e in recorded.events]
    assert kinds.index(("BranchDied", "g/work[0]")) < kinds.index(("StepStarted", "g/after"))


async def _lists(x: int) -> list[int]:
    return [x]


async def test_a_step_called_by_code_has_no_branch() -> None:
    """G12: its `latest` raises, its memory is empty."""

    async def inner(x: int, ctx: Context) -> int:
        assert ctx.memory == {}
        with pytest.raises(LookupError, match="was called by code"):
            ctx.latest(leaf)
        return x

    async def root(x: int, ctx: Context) -> int:
        return await ctx.run(inner, x)

    assert await Recorded(root, 1).execute() == 1


async def test_an_error_names_the_step_that_failed_first() -> None:
    """Through graphs and calls by code: its path, its input, its cause."""
    cause = AgentrtError("deep")

    async def deep(x: int) -> int:
        raise cause

    async def caller(x: int, ctx: Context) -> int:
        return await ctx.run(deep, x + 1)

    graph = Graph("g")
    graph.chain(START, caller, END)
    with pytest.raises(StepFailed) as error:
        await Recorded(graph, 1).execute()
    assert (error.value.path, error.value.input, error.value.cause) == ("g/caller/deep", 2, cause)
    assert error.value.__cause__ is cause


@pytest.mark.parametrize("keyed_first", [True, False])
async def test_keys_and_maps_of_one_name_do_not_mix(keyed_first: bool) -> None:
    """Their paths would be the same, so the second is refused."""

    async def leaf(x: int) -> int:
        return x

    async def caller(x: int, ctx: Context) -> None:
        if keyed_first:
            await ctx.run(leaf, x, key=0)
            await ctx.map(leaf, [x])
        else:
            await ctx.map(leaf, [x])
            await ctx.run(leaf, x, key=0)

    with pytest.raises(StepFailed, match="paths would clash"):
        await run(caller, 1)


async def test_each_plan_has_its_turn() -> None:
    """A fork of many does not starve a fork of few that became ready after it."""
    ended: list[str] = []

    async def leaf(x: int, ctx: Context) -> int:
        ended.append(ctx.path)
        await anyio.lowlevel.checkpoint()
        return x

    async def many(x: int, ctx: Context) -> int:
        return len(await ctx.map(leaf, range(200)))

    async def few(x: int, ctx: Context) -> int:
        return len(await ctx.map(leaf, range(3)))

    graph = Graph("g", input=int)
    graph.edge(START, [many, few])
    graph.edge([many, few], END, join=collect)
    assert (await run(graph, 0, concurrency=2)).output == [200, 3]
    last_of_few = max(i for i, path in enumerate(ended) if path.startswith("g/few"))
    assert last_of_few < 20


async def test_ready_steps_are_not_open_steps() -> None:
    """However many are ready, only `concurrency` of them are under way."""
    now, most = 0, 0

    async def busy(x: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.lowlevel.checkpoint()
        now -= 1
        return x

    graph = Graph("g", input=list[int])
    graph.edge(START, busy, each=True)
    graph.edge(busy, END, join=collect)
    await run(graph, list(range(2_000)), concurrency=7)
    assert most == 7


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_map_runs_at_least_one_at_a_time(limit: int) -> None:
    """It would wait for ever else."""

    async def root(x: int, ctx: Context) -> list[int]:
        return await ctx.map(leaf, [x], limit=limit)

    with pytest.raises(StepFailed, match=rf"ctx.map\(limit={limit}\): run at least one at a time"):
        await run(root, 1)


async def test_the_first_error_of_a_map_is_its_error() -> None:
    """What the others raise while they are cancelled for it, or answer all the same, changes nothing."""

    async def work(x: int) -> int:
        if x == 0:
            await anyio.sleep(1)
            raise ValueError("the first")
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            if x == 1:
                raise KeyError("while cleaning up") from None
        return x

    async def root(x: int, ctx: Context) -> list[int]:
        return await ctx.map(work, range(3))

    with pytest.raises(StepFailed, match="the first") as failure:
        await run(root, 1)
    assert failure.value.path == "root/work[0]"
