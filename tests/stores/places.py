"""Places for journals, and the time there."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from agentrt.journal import Journal
from agentrt.stores import MemoryJournal, PostgresJournal, SqliteJournal
from tests.stores.postgresql import Server


class Clock:
    """Tell the time that a test says it is."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """Be a place for a journal: whatever is opened there sees the same runs, as other processes would."""

    def __init__(self, kind: str, path: Path, server: Server | None, closing: AsyncExitStack) -> None:
        self.kind = kind
        self.clock = Clock()
        self._path = path
        self._server = server
        self._closing = closing
        self._memory = MemoryJournal(clock=self.clock)

    def open(self) -> Journal:
        journal: Journal = self._memory
        if self.kind == "sqlite":
            journal = SqliteJournal(self._path, clock=self.clock)
        elif self._server is not None:
            journal = PostgresJournal(self._server.url, clock=self.clock)
        self._closing.push_async_callback(journal.aclose)
        return journal
