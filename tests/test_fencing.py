"""One writer a run, and nothing paid that is not on record: what claims and intents are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest

from agentrt import Agent, Budget, Context, JournalError, ModelRequest, RunTaken, UnknownPrice, resume, run, tool
from agentrt import events as ev
from agentrt.function import as_node
from agentrt.journal import CLAIM
from agentrt.messages import ToolMessage
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, call
from tests.journals import FailingJournal, journal_of, kinds
from tests.test_continuation import RUN, check_attempts

pytestmark = pytest.mark.anyio


class Meter:
    """Hold an agent that uses two tools one after the other, and the time each real call began."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.calls: list[tuple[str, str]] = []
        self.seconds = seconds

        @tool(effect="idempotent")
        async def look(word: str) -> str:
            """Look a word up."""
            self.calls.append(("tool", word))
            await anyio.sleep(self.seconds)
            return f"{word}!"

        async def say(request: ModelRequest) -> Any:
            said = [m.text for m in request.messages if isinstance(m, ToolMessage)]
            self.calls.append(("model", said[-1] if said else ""))
            await anyio.sleep(self.seconds)
            return "".join(said) if len(said) == 2 else call("look", word="ab"[len(said)])

        self.agent = Agent("agent", model=FunctionModel(say), tools=[look])


async def undisturbed() -> Sequence[ev.Event]:
    journal = MemoryJournal()
    assert (await run(Meter().agent, "?", journal=journal, run_id=RUN)).output == "a!b!"
    return await journal.events(RUN)


class Elsewhere(MemoryJournal):
    """Be a journal as another process sees it."""

    def __init__(self, other: MemoryJournal) -> None:
        self.__dict__ = other.__dict__

    async def claim(self, run_id: str, owner: str, *, seconds: float, new: bool = False) -> int:
        return await super().claim(run_id, f"elsewhere {owner}", seconds=seconds, new=new)


@pytest.mark.parametrize("seen", [Elsewhere, lambda journal: journal], ids=["elsewhere", "here"])
async def test_of_two_that_go_on_with_a_run_one_is_told(seen: Callable[[MemoryJournal], MemoryJournal]) -> None:
    """At once, before it does anything; the other finishes, and then the run is free."""
    events = await undisturbed()
    journal = await journal_of(RUN, events[:5])
    one, other = Meter(), Meter()
    outputs: list[str] = []

    async def first() -> None:
        outputs.append((await resume(one.agent, RUN, journal=journal)).output)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await anyio.sleep(0.5)
        with pytest.raises(RunTaken, match="driven by"):
            await resume(other.agent, RUN, journal=seen(journal))
        assert outputs == []
    assert (outputs, other.calls) == (["a!b!"], [])
    assert (await resume(other.agent, RUN, journal=seen(journal))).output == "a!b!"


async def test_a_run_is_free_again_when_it_has_ended() -> None:
    """Nobody waits for the end of a claim that is given back."""
    events = await undisturbed()
    journal = await journal_of(RUN, events[:5])
    await resume(Meter().agent, RUN, journal=journal)
    assert (await resume(Meter().agent, RUN, journal=Elsewhere(journal))).output == "a!b!"


async def test_who_was_taken_for_dead_is_stopped() -> None:
    """By `RunTaken` as the one error of its run, before it pays for anything else; the new one finishes."""
    journal = MemoryJournal()
    stale, new = Meter(), Meter()
    paid: list[int] = []

    async def take_over() -> None:
        await anyio.sleep(1.5)  # the model has asked for a tool, which is at work
        journal._runs[RUN].until = 0.0  # as if the claim had run out while that process slept
        paid.append(len(stale.calls))
        assert (await resume(new.agent, RUN, journal=Elsewhere(journal))).output == "a!b!"

    async def begin() -> None:
        with pytest.raises(RunTaken, match="taken over"):
            await run(stale.agent, "?", journal=journal, run_id=RUN)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_over)
        await begin()
    assert paid == [len(stale.calls)] == [2]
    record = await journal.events(RUN)
    assert [type(e) for e in kinds(record, ev.RunFinished, ev.RunFailed, ev.RunCancelled)] == [ev.RunFinished]
    check_attempts(record)


async def test_a_claim_is_renewed_while_a_run_goes_on() -> None:
    """However long a call takes."""
    journal, meter = MemoryJournal(clock=anyio.current_time), Meter(seconds=10 * CLAIM)

    async def begin() -> None:
        await run(meter.agent, "?", journal=journal, run_id=RUN)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin)
        for _ in range(20):
            await anyio.sleep(CLAIM)
            with pytest.raises(RunTaken):
                await resume(Meter().agent, RUN, journal=Elsewhere(journal))
        tasks.cancel_scope.cancel()


async def test_a_run_whose_store_failed_is_free_when_it_has_stopped() -> None:
    """Its writer gave nothing back; while what it had begun goes on, nobody else may begin."""
    journal = FailingJournal(2)

    async def slow(n: int, ctx: Context) -> int:
        await anyio.sleep(1)
        ctx.emit("this fails")
        try:
            await anyio.sleep(1 if journal.appends > 2 else 100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)
        return n

    async def begin() -> None:
        with pytest.raises(JournalError, match="disk full"):
            await run(slow, 1, journal=journal, run_id=RUN)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin)
        await anyio.sleep(5)
        with pytest.raises(RunTaken):
            await resume(as_node(slow), RUN, journal=journal)
    assert (await journal.run(RUN)).owner is not None
    journal.mend()
    assert (await resume(as_node(slow), RUN, journal=journal)).output == 1


@pytest.mark.parametrize("seconds", [0.0, 100.0], ids=["fails", "hangs"])
async def test_nothing_begins_that_is_not_on_record(seconds: float) -> None:
    """Whichever append fails, or hangs, as many models and tools have been called as there are intents on record."""
    whole = FailingJournal()
    await run(Meter().agent, "?", journal=whole, run_id=RUN)
    assert len(whole.kept) > 5
    for fails_at in range(1, len(whole.kept) + 1):
        journal, meter = FailingJournal(fails_at, seconds=seconds), Meter()
        with pytest.raises(JournalError, match="disk full"):
            await run(meter.agent, "?", journal=journal, run_id=RUN)
        kept = kinds(await journal.events(RUN), ev.UsageReserved, ev.EffectBegun)
        assert len(meter.calls) == len(kept), fails_at


async def test_a_run_that_is_refused_gives_its_claim_back() -> None:
    """What cannot go on under these limits may go on at once under others, wherever."""
    events = await undisturbed()
    journal = await journal_of(RUN, events[:6])
    unpriced = Meter().agent
    unpriced.model.price = None  # type: ignore[union-attr]
    with pytest.raises(UnknownPrice):
        await resume(unpriced, RUN, journal=journal, budget=Budget(usd=1))
    assert (await journal.run(RUN)).owner is None
    assert (await resume(Meter().agent, RUN, journal=Elsewhere(journal))).output == "a!b!"
