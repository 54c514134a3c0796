"""The journal's writer: in order, in groups, to the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from agentrt import JournalError
from agentrt import events as ev
from agentrt.journal import JournalWriter
from tests.journals import FailingJournal, kinds

pytestmark = pytest.mark.anyio


class Gated(FailingJournal):
    """Keep each group that is appended, when allowed to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = anyio.Event()

    async def append(self, run_id: str, epoch: int, events: Sequence[ev.Event]) -> None:
        await self.gate.wait()
        await super().append(run_id, epoch, events)


def emitted(value: int) -> ev.Emitted:
    return ev.Emitted(path="p", at=0.0, value=value)


async def test_events_that_come_while_it_writes_form_the_next_group() -> None:
    """In their order; deltas are left out."""
    journal = Gated()
    writer = await JournalWriter.claim(journal, "r", new=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        writer(emitted(1))
        await anyio.wait_all_tasks_blocked()
        writer(emitted(2))
        writer(ev.TextDelta(path="p", at=0.0, text="x"))
        writer(emitted(3))
        journal.gate.set()
        await anyio.wait_all_tasks_blocked()
        writer.close()
    assert [[e.value for e in kinds(group, ev.Emitted)] for group in journal.kept] == [[1], [2, 3]]


async def test_cancelling_does_not_cut_off_what_was_recorded() -> None:
    """It writes until it is closed."""
    journal = Gated()
    writer = await JournalWriter.claim(journal, "r", new=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        writer(emitted(1))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        writer(emitted(2))
        journal.gate.set()
        writer.close()
    assert [e.value for group in journal.kept for e in kinds(group, ev.Emitted)] == [1, 2]


async def test_closing_without_news_ends_it() -> None:
    """Nothing is appended."""
    journal = Gated()
    writer = await JournalWriter.claim(journal, "r", new=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        await anyio.wait_all_tasks_blocked()
        writer.close()
    assert journal.kept == []


@pytest.mark.parametrize("error", [JournalError("full"), OSError("full")])
async def test_a_failure_is_told_once(error: Exception) -> None:
    """As a `JournalError`, whatever the store raised; the writer keeps nothing more."""
    told: list[int] = []
    writer = await JournalWriter.claim(FailingJournal(1, error), "r", new=True)
    writer.on_failure = lambda: told.append(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        writer(emitted(1))
        await anyio.wait_all_tasks_blocked()
        writer(emitted(2))
        writer.close()
    assert told == [1]
    assert isinstance(writer.error, JournalError)
    assert "full" in str(writer.error)
