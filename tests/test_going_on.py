"""Runs of code that does as it likes around its calls, cut off at every place of their record."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Context,
    FunctionNode,
    Graph,
    JournalError,
    ModelRequest,
    ReplayMismatch,
    Retry,
    StepFailed,
    UnknownPrice,
    collect,
    fork,
    replay,
    resume,
    run,
    tool,
)
from agentrt import events as ev
from agentrt.budget import TOOL_CALLS
from agentrt.people import answer, inbox
from agentrt.recorded import Recorded
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, call
from tests.journals import journal_of, kinds
from tests.test_continuation import RUN, check_attempts

pytestmark = pytest.mark.anyio


async def end(x: Any) -> Any:
    return x


async def sleeper(seconds: float) -> float:
    await anyio.sleep(seconds)
    return seconds


async def record_of(node: Any, value: Any, **options: Any) -> Sequence[ev.Event]:
    journal = MemoryJournal()
    await run(node, value, journal=journal, run_id=RUN, **options)
    return await journal.events(RUN)


async def check_everywhere(node: Any, events: Sequence[ev.Event], wanted: Any) -> None:
    """Check that a run goes on to the same output from each place of its record, in good time."""
    for at in range(1, len(events) + 1):
        journal = await journal_of(RUN, events[:at])
        with anyio.fail_after(1000):
            result = await resume(node, RUN, journal=journal)
        assert result.output == wanted, at
        check_attempts(await journal.events(RUN))


@pytest.mark.parametrize("cleans_up", ["shielded", "timed", "spends"])
async def test_a_run_that_was_cancelled_and_killed_as_it_cleaned_up(cleans_up: str) -> None:
    """What was cancelled with the run is not given up, whatever its code did then."""
    slow = True

    async def work(x: int) -> int:
        await anyio.sleep(9 if slow else 0)
        return x

    async def careful(x: int, ctx: Context) -> int:
        try:
            return await ctx.run(work, x)
        finally:
            if cleans_up == "spends":
                ctx.spend(TOOL_CALLS)
            elif cleans_up == "timed":
                with anyio.move_on_after(1, shield=True):
                    await ctx.run(sleeper, 3)
            else:
                with anyio.CancelScope(shield=True):
                    await ctx.run(end, x)

    journal = MemoryJournal()
    with anyio.move_on_after(2):
        await run(careful, 3, journal=journal, run_id=RUN)
    slow = False
    await check_everywhere(careful, await journal.events(RUN), 3)


async def test_a_poller_need_not_come_as_far_as_before() -> None:
    """How far code comes with calls side by side depends on the time."""

    async def race(x: int, ctx: Context) -> int:
        async def poll() -> None:
            for i in itertools.count():
                await anyio.sleep(10)
                await ctx.run(end, i)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll)
            won: int = await ctx.run(sleeper, 25)
            tasks.cancel_scope.cancel()
        return won

    events = await record_of(race, 1)
    await check_everywhere(race, events, 25)
    assert (await replay(race, RUN, journal=await journal_of(RUN, events))).output == 25


async def test_what_nobody_gives_up_any_more_is_told() -> None:
    """Sooner or later: a run never hangs on what it had given up."""

    def program(patience: float) -> Any:
        async def code(x: int, ctx: Context) -> int:
            with anyio.move_on_after(patience):
                await ctx.run(sleeper, 5)
            return await ctx.ask("How many?", int)

        return code

    journal = MemoryJournal()
    await run(program(2), 1, journal=journal, run_id=RUN)
    with anyio.fail_after(1000), pytest.raises(ReplayMismatch, match="it was given up after seconds"):
        await resume(program(10_000), RUN, journal=journal)
    await answer(journal, RUN, 4)
    assert (await resume(program(2), RUN, journal=journal)).output == 4


async def test_a_question_that_code_gave_up_is_given_up_again() -> None:
    """And is asked no more."""

    async def impatient(x: int, ctx: Context) -> list[Any]:
        said: list[Any] = []

        async def ask() -> None:
            with anyio.move_on_after(5):
                said.append(await ctx.ask("How many?", int))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            said.append(await ctx.run(sleeper, 10))
        return [*said, await ctx.ask("And now?", int, key="later")]

    journal = MemoryJournal()
    assert (await run(impatient, 1, journal=journal, run_id=RUN)).stop_reason == "waiting"
    assert [q.asked.path for q in await inbox(journal)] == ["impatient/ask[later]"]
    await answer(journal, RUN, 3)
    assert (await resume(impatient, RUN, journal=journal)).output == [10, 3]


async def test_code_that_catches_a_mismatch_comes_no_further() -> None:
    """The run has failed, nothing more has run, and it goes on with the program that began."""
    ran: list[int] = []

    async def fallback(x: int) -> int:
        ran.append(x)
        return -1

    def program(n: int) -> Any:
        async def main(x: int, ctx: Context) -> int:
            try:
                first = await ctx.run(end, n)
            except Exception:  # noqa: BLE001 - as careless code does
                return await ctx.run(fallback, n)
            return first + await ctx.ask("How many?", int)

        return main

    journal = MemoryJournal()
    await run(program(1), 1, journal=journal, run_id=RUN)
    journal = await journal_of(RUN, (await journal.events(RUN))[:4])  # killed before it asked
    with pytest.raises(ReplayMismatch, match=r"end\(1\)"):
        await resume(program(2), RUN, journal=journal)
    assert ((await journal.run(RUN)).status, ran) == ("failed", [])
    await resume(program(1), RUN, journal=journal)
    await answer(journal, RUN, 4)
    assert (await resume(program(1), RUN, journal=journal)).output == 5


async def test_steps_of_a_program_that_did_otherwise_are_not_missed() -> None:
    """Nor taken for those of the program that began."""

    def program(extra: bool) -> Any:
        async def main(x: int, ctx: Context) -> int:
            if extra:
                await ctx.run(sleeper, 7)
            first: int = await ctx.run(end, 2 if extra else 1)
            await ctx.run(sleeper, 3)
            return first

        return main

    events = await record_of(program(False), 1)
    journal = await journal_of(RUN, events[:4])
    with pytest.raises(ReplayMismatch):
        await resume(program(True), RUN, journal=journal)
    assert (await resume(program(False), RUN, journal=journal)).output == 1


@pytest.mark.parametrize("history", ["fresh", "branch"])
async def test_a_handoff_answers_from_the_record(history: Any) -> None:
    """With the conversation that goes on."""
    first = Agent("first", model=FunctionModel(lambda r: call(r.tools[0].name)), handoffs=["second"], history=history)
    heard: list[int] = []
    second = Agent(
        "second",
        model=FunctionModel(lambda r: (heard.append(len(r.messages)), "done")[1]),
        description="Does it.",
        history=history,
    )
    graph = Graph("g", input=str, output=str)
    graph.edge(START, first)
    graph.edge(first, END)
    graph.edge(second, END)
    events = await record_of(graph, "go")
    await check_everywhere(graph, events, "done")
    assert len(set(heard)) == 1
    assert (await replay(graph, RUN, journal=await journal_of(RUN, events))).output == "done"


async def test_a_run_in_its_process_knows_what_its_journal_knows() -> None:
    """What was drawn, what may have had its effect, and what code gave up."""
    effects: list[int] = []
    draws = itertools.count()

    @tool(effect="unsafe")
    async def pay(amount: int) -> str:
        """Pay."""
        effects.append(amount)
        await anyio.sleep(60)
        return "paid"

    async def main(x: int, ctx: Context) -> Any:
        drawn = ctx.draw("n", lambda: next(draws))
        first = await ctx.run(end, drawn)
        return [drawn, first, await ctx.run(pay, 5)]

    journal = MemoryJournal()
    with pytest.raises(BudgetExceeded) as stopped:
        await run(main, 1, journal=journal, run_id=RUN, budget=Budget(seconds=5))
    assert stopped.value.result is not None
    result = await stopped.value.result.resume(budget=Budget(seconds=100))
    assert (result.stop_reason, effects, next(draws)) == ("waiting", [5], 1)


async def test_raised_limits_stay_raised() -> None:
    """For whoever goes on later, and for whoever goes through the run again."""
    model = FunctionModel(lambda _: "said")
    agent = Agent("agent", model=model)

    async def main(x: int, ctx: Context) -> int:
        for n in range(5):
            await ctx.run(agent, f"{n}")
        return x

    journal = MemoryJournal()
    with pytest.raises(BudgetExceeded) as stopped:
        await run(main, 1, journal=journal, run_id=RUN, budget=Budget(model_calls=2))
    assert stopped.value.result is not None
    await stopped.value.result.resume(budget=Budget(model_calls=9))
    events = await journal.events(RUN)
    cut = next(i for i, e in enumerate(events) if isinstance(e, ev.RunResumed)) + 6
    assert (await resume(main, RUN, journal=await journal_of(RUN, events[:cut]))).output == 1
    assert (await replay(main, RUN, journal=journal)).output == 1


async def test_what_a_deadline_cut_off_runs_again_after_a_kill() -> None:
    """As its code cleaned up."""
    slow = True

    async def work(x: int) -> int:
        await anyio.sleep(9 if slow else 0)
        return x

    async def main(x: int, ctx: Context) -> int:
        try:
            return await ctx.run(work, x)
        finally:
            ctx.spend(TOOL_CALLS)

    journal = MemoryJournal()
    with pytest.raises(BudgetExceeded):
        await run(main, 3, journal=journal, run_id=RUN, budget=Budget(seconds=5))
    events = await journal.events(RUN)
    slow = False
    cut = next(i for i, e in enumerate(events) if isinstance(e, ev.Counted)) + 1
    journal = await journal_of(RUN, events[:cut])
    assert (await resume(main, RUN, journal=journal, budget=Budget(seconds=1000))).output == 3


@pytest.mark.parametrize("policy", ["partial", "wrap_up"])
async def test_what_a_deadline_cut_off_runs_again(policy: Any) -> None:
    """A limit on the time gives nothing up for good."""
    slow = True

    async def say(request: ModelRequest) -> str:
        await anyio.sleep(60 if slow and "budget" not in request.messages[-1].text else 0)
        return "said"

    agent, journal = Agent("agent", model=FunctionModel(say)), MemoryJournal()
    await run(agent, "hi", journal=journal, run_id=RUN, budget=Budget(seconds=10, on_exhausted=policy))
    slow = False
    result = await resume(agent, RUN, journal=journal, budget=Budget(seconds=100))
    assert (result.output, result.stop_reason) == ("said", "done")


async def test_a_failed_run_goes_on_from_wherever_it_was_killed_then() -> None:
    """What had failed runs again, if it has not; and what that had cancelled."""
    fails = True

    async def breaks(x: int) -> int:
        await anyio.sleep(1)
        if fails:
            raise ConnectionError
        return x

    async def both(x: int, ctx: Context) -> list[float]:
        found: list[float] = []

        async def one(node: Any, value: float) -> None:
            found.append(await ctx.run(node, value))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, breaks, x)
            tasks.start_soon(one, sleeper, 2)
        return found

    journal = MemoryJournal()
    with pytest.raises(StepFailed):
        await run(both, 3, journal=journal, run_id=RUN)
    fails = False
    failed = len(await journal.events(RUN))
    await resume(both, RUN, journal=journal)
    events = await journal.events(RUN)
    for at in range(failed, len(events) + 1):
        with anyio.fail_after(1000):
            assert (await resume(both, RUN, journal=await journal_of(RUN, events[:at]))).output == [3, 2], at


@pytest.mark.parametrize("turns", range(8))
async def test_an_error_beside_a_question_fails_its_step(turns: int) -> None:
    """In the same turn of the loop, or one around it; the question is not waited for."""

    async def both(x: int, ctx: Context) -> int:
        async def breaks() -> None:
            for _ in range(turns):
                await checkpoint()
            raise ValueError(x)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ctx.ask, "How many?")
            tasks.start_soon(breaks)
        return x

    journal = MemoryJournal()
    with suppress(StepFailed):
        await run(both, 3, journal=journal, run_id=RUN)
    status = (await journal.run(RUN)).status  # it waits where it asked before anything went wrong
    assert (status, len(await inbox(journal))) in {("failed", 0), ("waiting", 1)}


async def test_an_agent_goes_on_from_a_denial_by_its_tool_s_own_limit() -> None:
    """Gone through once more, for its memory, or again from the start."""

    @tool(budget=Budget(steps=0), effect="idempotent")
    async def look(word: str) -> str:
        """Look."""
        return word

    model = FunctionModel(lambda r: "done" if len(r.messages) > 2 else call("look", word="a"))
    agent = Agent("agent", model=model, tools=[look], history="branch")
    graph = Graph("g", input=str, output=str)
    graph.edge(START, agent)
    graph.edge(agent, END)
    events = await record_of(graph, "go")
    await check_everywhere(graph, events, "done")
    assert (await replay(graph, RUN, journal=await journal_of(RUN, events))).output == "done"


async def test_an_output_of_another_class_is_refused() -> None:
    """Where its declared type would make something else of it."""

    async def when(x: int) -> date | str:
        return date(2020, 1, 1)

    async def main(x: int, ctx: Context) -> str:
        return f"{await ctx.run(when, x)!r} {await ctx.ask('So?')}"

    journal = MemoryJournal()
    await run(main, 1, journal=journal, run_id=RUN)
    with pytest.raises(ReplayMismatch, match=r"it was a datetime.date, and would be read as str"):
        await resume(main, RUN, journal=journal)


# Forks


async def test_a_fork_shares_what_its_parent_had_done_after_it_was_out_of_budget() -> None:
    """And goes on from a kill without paying for it."""
    model = FunctionModel(lambda _: "said")
    agent = Agent("agent", model=model)

    async def main(x: int, ctx: Context) -> int:
        for n in range(4):
            await ctx.run(agent, f"{n}")
        return int(await ctx.run(end, x))

    journal = MemoryJournal()
    budget = Budget(model_calls=2, on_exhausted="partial")
    assert (await run(main, 1, journal=journal, run_id=RUN, budget=budget)).stop_reason == "partial"
    await resume(main, RUN, journal=journal, budget=Budget(model_calls=50))
    model.requests.clear()
    await fork(main, RUN, journal=journal, at="main/end", new_id="f")
    events = await journal.events("f")
    first = next(i for i, e in enumerate(events) if isinstance(e, ev.RunForked))
    for at in range(first + 1, len(events)):
        result = await resume(main, "f", journal=await journal_of("f", events[:at]))
        assert (result.output, result.usage.model_calls) == (1, 0)
    assert model.requests == []


async def test_a_fork_of_a_fork_keeps_the_input_that_was_replaced() -> None:
    """In every attempt of what is around that step."""
    fails = [True]

    async def main(x: int, ctx: Context) -> list[int]:
        first: int = await ctx.run(end, 1)
        second: int = await ctx.run(end, first + 1)
        if fails:
            fails.pop()
            raise ConnectionError
        return [first, second]

    node = FunctionNode(main, retry=Retry(attempts=2, backoff=1, on=ConnectionError))
    journal = MemoryJournal()
    fails.clear()
    await run(node, 1, journal=journal, run_id=RUN)
    fails.append(True)
    assert (await fork(node, RUN, journal=journal, at="main/end", input=5, new_id="f")).output == [5, 6]
    assert (await fork(node, "f", journal=journal, at="main/end#2", input=9, new_id="g")).output == [5, 9]
    assert Recorded(await journal.events("g")).total.steps == 1


async def test_a_fork_that_cannot_begin_leaves_no_run() -> None:
    """Whatever is wrong."""
    journal = MemoryJournal()
    await run(end, 1, journal=journal, run_id=RUN)
    with pytest.raises(Exception, match="concurrency"):
        await fork(end, RUN, journal=journal, at="end", new_id="f", concurrency=0)
    unpriced = FunctionModel(lambda _: "said")
    unpriced.price = None
    agent = Agent("agent", model=unpriced)
    await run(agent, "hi", journal=journal, run_id="a")
    with pytest.raises(UnknownPrice):
        await fork(agent, "a", journal=journal, at="agent/chat", new_id="f", budget=Budget(usd=1))
    assert {r.run_id for r in await journal.runs()} == {RUN, "a"}
    assert kinds(await journal.events(RUN), ev.RunForked) == []


async def test_an_error_that_code_caught_is_what_it_was() -> None:
    """Its class, its message, and what is plain of its attributes."""

    async def breaks(x: int) -> int:
        error = CodeError("no")
        error.code = x
        raise error

    async def main(x: int, ctx: Context) -> str:
        try:
            await ctx.run(breaks, x)
        except CodeError as error:
            said = f"{error} {error.code}"
        return f"{said} {await ctx.ask('So?')}"

    journal = MemoryJournal()
    await run(main, 7, journal=journal, run_id=RUN)
    await answer(journal, RUN, "yes")
    assert (await resume(main, RUN, journal=journal)).output == "no 7 yes"


class CodeError(Exception):
    code = 0


async def test_a_fork_shares_nothing_that_came_after_its_step() -> None:
    """Such as the next round of the same fork."""

    async def items(x: int) -> list[int]:
        return [x, x + 1]

    async def double(x: int) -> int:
        return 2 * x

    async def add(xs: list[int]) -> int:
        return sum(xs)

    graph = Graph("g", input=int, output=int)
    graph.edge(START, items)
    graph.edge(items, double, each=True)
    graph.edge(double, add, join=collect)
    graph.edge(add, items, times=2)
    graph.edge(add, END)
    journal = MemoryJournal()
    await run(graph, 1, journal=journal, run_id=RUN)
    wanted = await run(graph, 1)
    assert (await fork(graph, RUN, journal=journal, at="g/double[0]", input=1, new_id="f")).output == wanted.output
    changed = await fork(graph, RUN, journal=journal, at="g/double[1]", input=10, new_id="h")
    assert changed.output != wanted.output
    assert changed.usage.steps > 6


async def test_a_fork_shares_what_ran_beside_its_step() -> None:
    """Also what ended after that had begun: nothing of it is done or paid again."""
    paid: list[int] = []

    @tool(effect="unsafe")
    async def pay(amount: int) -> str:
        """Pay."""
        await anyio.sleep(amount)
        paid.append(amount)
        return f"paid {amount}"

    model = FunctionModel(
        lambda r: r.messages[-1].text if len(r.messages) > 1 else call("pay", amount=int(r.messages[0].text))
    )

    async def items(x: int) -> list[str]:
        return ["3", "1", "2"]

    graph = Graph("g", input=int, output=list[str])
    clerk = Agent("clerk", model=model, tools=[pay])
    graph.edge(START, items)
    graph.edge(items, clerk, each=True)
    graph.edge(clerk, END, join=collect)
    journal = MemoryJournal()
    await run(graph, 1, journal=journal, run_id=RUN)
    asked = len(model.requests)
    result = await fork(graph, RUN, journal=journal, at="g/clerk[1]", input="5", new_id="f")
    assert (result.output, paid) == (["paid 3", "paid 5", "paid 2"], [1, 2, 3, 5])
    assert len(model.requests) - asked == result.usage.model_calls == 2


async def test_what_is_cancelled_as_its_code_parks_is_not_given_up() -> None:
    """Code began it in the very turn in which it left to wait."""

    async def late(x: int, ctx: Context) -> float:
        found: list[float] = []

        async def begin() -> None:
            for _ in range(n):
                await checkpoint()
            found.append(await ctx.run(sleeper, 2))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ctx.ask, "So?")
            tasks.start_soon(begin)
        return sum(found)

    for n in range(8):
        journal = MemoryJournal()
        await run(late, 3, journal=journal, run_id=RUN)
        assert not any(e.given_up for e in kinds(await journal.events(RUN), ev.StepCancelled)), n


async def test_a_run_goes_on_once_in_its_process_whatever_its_journal_does() -> None:
    """Of two that ask at once the second is told; one whose journal failed may ask again."""

    class Shaky(MemoryJournal):
        fails = False

        async def events(self, run_id: str) -> list[ev.Event]:
            if self.fails:
                raise JournalError("away")
            return await super().events(run_id)

    async def main(x: int, ctx: Context) -> int:
        return int(await ctx.run(end, await ctx.run(end, x)))

    journal = Shaky()
    with pytest.raises(BudgetExceeded) as stopped:
        await run(main, 1, journal=journal, run_id=RUN, budget=Budget(steps=2))
    result = stopped.value.result
    assert result is not None
    journal.fails = True
    with pytest.raises(JournalError):
        await result.resume(budget=Budget(steps=9))
    journal.fails = False
    outputs: list[Any] = []

    async def go_on() -> None:
        try:
            outputs.append((await result.resume(budget=Budget(steps=9))).output)
        except RuntimeError as error:
            outputs.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go_on)
        tasks.start_soon(go_on)
    assert sorted(outputs, key=str) == [1, f"run {RUN} went on already from here"]
