"""Journals for tests: in memory, whole or cut off, and ones that fail or hang."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from agentrt import JournalError
from agentrt import events as ev
from agentrt.stores.memory import MemoryJournal


class FailingJournal(MemoryJournal):
    """Fail from the n-th append on, from 1, each time after so long; `kept` holds the groups that were appended."""

    def __init__(self, fails_at: int | None = None, error: Exception | None = None, *, seconds: float = 0.0) -> None:
        super().__init__()
        self.kept: list[list[ev.Event]] = []
        self.appends = 0
        self._fails_at = fails_at
        self._error = error or JournalError("disk full")
        self._seconds = seconds

    def mend(self) -> None:
        """Fail no more."""
        self._fails_at = None

    async def append(self, run_id: str, epoch: int, events: Sequence[ev.Event]) -> None:
        self.appends += 1
        if self._fails_at is not None and self.appends >= self._fails_at:
            await anyio.sleep(self._seconds)
            raise self._error
        await super().append(run_id, epoch, events)
        self.kept.append(list(events))


async def journal_of(run_id: str, events: Sequence[ev.Event]) -> MemoryJournal:
    """Return a journal that holds one run's events, as if its process had been killed after the last of them."""
    journal = MemoryJournal()
    epoch = await journal.claim(run_id, "killed", seconds=1, new=True)
    await journal.append(run_id, epoch, events)
    await journal.release(run_id, epoch)
    return journal


def kinds(events: Sequence[ev.Event], *types: type[Any]) -> list[Any]:
    """Return the events of some types."""
    return [e for e in events if isinstance(e, types)]
