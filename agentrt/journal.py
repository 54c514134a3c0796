"""The journal's protocol: where a run's events are kept, in the order they were recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import anyio

from agentrt.errors import JournalError
from agentrt.events import Event, TextDelta
from agentrt.value import Value


class RunSummary(Value):
    """Describe one recorded run; `status` is `running`, or its stop reason."""

    run_id: str
    name: str
    status: str
    started: float
    ended: float | None
    tokens: int
    cost: int


class Journal(Protocol):
    """Keep the events of runs. Every method raises `JournalError` where the store cannot be read or written."""

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        """Keep the events durably, all or none, after those appended before."""
        ...

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """Return the newest runs, newest first."""
        ...

    async def events(self, run_id: str) -> list[Event]:
        """Return a run's events in the order they were appended; raises `JournalError` for an unknown run."""
        ...

    async def aclose(self) -> None:
        """Release the store."""
        ...


class JournalWriter:
    """Observe a run and append its events, in their order and in groups, while the run goes on.

    `run` is the one task that appends; events that come while it writes form the next group. Where the journal
    fails, `on_failure` is called once: a run that cannot be recorded must not go on.
    """

    def __init__(self, journal: Journal, run_id: str, on_failure: Callable[[], object]) -> None:
        self.error: JournalError | None = None
        self._journal = journal
        self._run_id = run_id
        self._on_failure = on_failure
        self._pending: list[Event] = []
        self._news = anyio.Event()
        self._closing = False

    def __call__(self, event: Event) -> None:
        if not isinstance(event, TextDelta):
            self._pending.append(event)
            self._news.set()

    def close(self) -> None:
        """Let `run` end once everything is written."""
        self._closing = True
        self._news.set()

    async def run(self) -> None:
        """Append until closed. Cancelling the run around does not cut off what it has recorded."""
        with anyio.CancelScope(shield=True):
            while self._pending or not self._closing:
                await self._news.wait()
                self._news = anyio.Event()
                if not await self._append():
                    return

    async def _append(self) -> bool:
        events, self._pending = self._pending, []
        try:
            if events:
                await self._journal.append(self._run_id, events)
        except Exception as error:  # noqa: BLE001 - whatever stops the journal stops the run, as the one error it raises
            self.error = error if isinstance(error, JournalError) else _broken(error)
            self._on_failure()
        return self.error is None


def _broken(cause: Exception) -> JournalError:
    error = JournalError(f"the journal failed: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
