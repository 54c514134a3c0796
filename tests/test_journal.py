"""The journal's writer: in order, in groups, to the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from agentrt import JournalError
from agentrt import events as ev
from agentrt.journal import JournalWriter

pytestmark = pytest.mark.anyio


class Groups:
    """Keep each group that is appended, when allowed to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.groups: list[list[Any]] = []
        self.error = error
        self.gate = anyio.Event()

    async def append(self, run_id: str, events: Sequence[Any]) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.groups.append(list(events))

    async def runs(self, limit: int = 50) -> list[Any]:
        return []

    async def events(self, run_id: str) -> list[Any]:
        return []

    async def aclose(self) -> None:
        return


def emitted(value: int) -> ev.Emitted:
    return ev.Emitted(path="p", at=0.0, value=value)


async def test_events_that_come_while_it_writes_form_the_next_group() -> None:
    """In their order; deltas are left out."""
    journal = Groups()
    writer = JournalWriter(journal, "r", lambda: None)
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
    assert [[e.value for e in group] for group in journal.groups] == [[1], [2, 3]]


async def test_cancelling_does_not_cut_off_what_was_recorded() -> None:
    """It writes until it is closed."""
    journal = Groups()
    writer = JournalWriter(journal, "r", lambda: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        writer(emitted(1))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        writer(emitted(2))
        journal.gate.set()
        writer.close()
    assert [e.value for group in journal.groups for e in group] == [1, 2]


async def test_closing_without_news_ends_it() -> None:
    """Nothing is appended."""
    journal = Groups()
    writer = JournalWriter(journal, "r", lambda: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        await anyio.wait_all_tasks_blocked()
        writer.close()
    assert journal.groups == []


@pytest.mark.parametrize("error", [JournalError("full"), OSError("full")])
async def test_a_failure_is_told_once(error: Exception) -> None:
    """As a `JournalError`, whatever the store raised, and the writer ends."""
    told: list[int] = []
    journal = Groups(error)
    journal.gate.set()
    writer = JournalWriter(journal, "r", lambda: told.append(1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        writer(emitted(1))
        await anyio.wait_all_tasks_blocked()
        writer(emitted(2))
    assert told == [1]
    assert isinstance(writer.error, JournalError)
    assert "full" in str(writer.error)
