"""The journal in this process's memory, gone with it: for tests, and for runs that need only be resumed here."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyio.lowlevel import checkpoint

from agentrt.events import Event, QuestionAsked
from agentrt.guidance import Guidance
from agentrt.journal import Note, OpenQuestion, RunSummary
from agentrt.stores.content import StoredRow, guidance_of, to_events
from agentrt.stores.operations import OperatedJournal, Operation, Records, unknown_run
from agentrt.stores.record import Kept, RunRow, writable


class MemoryJournal(OperatedJournal):
    """Keep the events of runs, encoded as any store keeps them; `clock` tells when claims end."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._runs: dict[str, RunRow] = {}
        self._events: dict[str, list[StoredRow]] = {}
        self._contents: dict[bytes, bytes] = {}
        self._kept: list[tuple[str, Kept]] = []
        self._notes: dict[tuple[str, str], Note | None] = {}

    def __repr__(self) -> str:
        return f"<MemoryJournal of {len(self._runs)} runs>"

    async def runs(self, limit: int = 50, *, status: str | None = None) -> list[RunSummary]:
        await checkpoint()
        newest = [run for run in reversed(self._runs.values()) if status in {None, run.status}]
        newest.sort(key=lambda run: run.started, reverse=True)
        return [run.summary() for run in newest[: max(limit, 0)]]

    async def run(self, run_id: str) -> RunSummary:
        await checkpoint()
        return self._run(run_id).summary()

    async def events(self, run_id: str) -> list[Event]:
        await checkpoint()
        self._run(run_id)
        return to_events(self._events[run_id], self._contents, run_id, "memory")

    async def questions(self, run_id: str | None = None) -> list[OpenQuestion]:
        await checkpoint()
        runs = self._runs.values() if run_id is None else [self._run(run_id)]
        found: list[OpenQuestion] = []
        for run in runs:
            if run.ended is None:
                rows = sorted(self._events[run.run_id][q.seq - 1] for q in run.asked.values() if q.closed is None)
                events = to_events(rows, self._contents, run.run_id, "memory")
                found += (OpenQuestion(run.run_id, run.name, e) for e in events if isinstance(e, QuestionAsked))
        return sorted(found, key=lambda question: question.asked.at)

    async def guidance(self, name: str, limit: int = 100) -> list[Guidance]:
        await checkpoint()
        found: list[Guidance] = []
        for run_id, kept in self._kept:
            if self._runs[run_id].name == name:
                rows = [self._events[run_id][seq - 1] for seq in (kept.asked, kept.answered)]
                found.append(guidance_of(run_id, to_events(rows, self._contents, run_id, "memory")))
        return found[max(len(found) - limit, 0) :]

    async def notes(self, space: str) -> list[Note]:
        await checkpoint()
        found = [note for (where, _), note in self._notes.items() if note is not None and where == writable(space)]
        return sorted(found, key=lambda note: note.name)

    async def aclose(self) -> None:
        """Do nothing: the memory goes with the object."""

    def _run(self, run_id: str) -> RunRow:
        if (run := self._runs.get(run_id)) is None:
            raise unknown_run(run_id, "memory")
        return run

    async def _carry_out(self, operation: Operation) -> None:
        await checkpoint()
        records = Records("memory", self._clock(), self._runs)
        records.carry_out([operation])
        self._notes.update(records.notes)
        if (run := self._runs.get(operation.run_id)) is not None:
            self._keep(run)

    def _keep(self, run: RunRow) -> None:
        kept = self._events.setdefault(run.run_id, [])
        for seq, row in run.added:
            kept.append(StoredRow(seq, row.data, row.refs))
            self._contents.update(row.contents)
        self._kept += [(run.run_id, one) for one in run.kept]
        run.added.clear()
        run.changed.clear()
        run.kept.clear()
