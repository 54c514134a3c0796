"""The journal in an SQLite file: nothing to install, safe to read while runs write to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from anyio import to_thread

from agentrt.errors import JournalError
from agentrt.events import Event
from agentrt.guidance import Guidance
from agentrt.journal import Note, OpenQuestion, RunSummary
from agentrt.stores.operations import OperatedJournal, Operation, Records
from agentrt.stores.record import (
    COLUMNS,
    COUNTS,
    QuestionRow,
    RunRow,
    columns,
)
from agentrt.stores.sqlite_file import error_of, is_busy, opened, transaction
from agentrt.stores.sqlite_reading import Query, Reader, find, marks, pieces
from agentrt.stores.thread import GroupThread

T = TypeVar("T")

_INSERT_RUN: Final = f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_UPDATE_RUN: Final = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in COLUMNS)} WHERE id = ?"
_UPDATE_COUNTS: Final = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in COUNTS)} WHERE id = ?"
_FIRST_COUNT: Final = len(COLUMNS) - len(COUNTS)


def from_url(url: str) -> SqliteJournal:
    """Open the journal of `sqlite:///PATH`: `sqlite:///runs.db` is a relative path, `sqlite:////data/runs.db` not."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise JournalError(f"store {url!r} names no file: write sqlite:///runs.db, or sqlite:////data/runs.db")
    return SqliteJournal(path)


class SqliteJournal(OperatedJournal):
    """Keep the events of runs in one SQLite file, which is made if it does not exist.

    One thread writes; all that waits for it goes into one transaction, on disk when the calls return. Another reads.
    Opening blocks. Raises `JournalError`, naming the file and what to do. `clock` tells when claims end.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path).expanduser()
        self._clock = clock
        self._connection = opened(self.path)
        self._reading = opened(self.path)
        self._writer = GroupThread("agentrt journal", self._write)
        self._reader = GroupThread[Query[Any]]("agentrt journal reader", self._read)

    def __repr__(self) -> str:
        return f"<SqliteJournal {str(self.path)!r}>"

    async def runs(self, limit: int = 50, *, status: str | None = None) -> list[RunSummary]:
        return await self._ask(lambda reader: reader.runs(max(limit, 0), status))

    async def run(self, run_id: str) -> RunSummary:
        return await self._ask(lambda reader: reader.run(run_id).summary())

    async def events(self, run_id: str) -> list[Event]:
        return await self._ask(lambda reader: reader.events(run_id))

    async def questions(self, run_id: str | None = None) -> list[OpenQuestion]:
        return await self._ask(lambda reader: reader.questions(run_id))

    async def guidance(self, name: str, limit: int = 100) -> list[Guidance]:
        return await self._ask(lambda reader: reader.guidance(name, max(limit, 0)))

    async def notes(self, space: str) -> list[Note]:
        return await self._ask(lambda reader: reader.notes(space))

    async def aclose(self) -> None:
        """Close the file, once what was asked is written."""
        await to_thread.run_sync(self._close)

    async def _carry_out(self, operation: Operation) -> None:
        await self._writer.do(operation)

    async def _ask(self, read: Callable[[Reader], T]) -> T:
        query = Query(read)
        await self._reader.do(query)
        return query.answer()

    def _close(self) -> None:
        self._writer.close()
        self._reader.close()
        self._reading.close()
        self._connection.close()

    def _write(self, operations: Sequence[Operation]) -> None:
        """Carry out a group in one transaction, or, where that fails, each in its own, so that each fails alone."""
        try:
            self._commit(operations)
        except sqlite3.Error as error:
            if len(operations) > 1 and not is_busy(error):
                for operation in operations:
                    self._write([operation])
                return
            for operation in operations:
                operation.error = error_of(self.path, error)
                operation.error.__cause__ = error

    def _commit(self, operations: Sequence[Operation]) -> None:
        with transaction(self._connection):
            runs = {run.run_id: run for run in self._load(operations)}
            before = {name: columns(run) for name, run in runs.items()}
            records = Records(self.path, self._clock(), runs)
            records.carry_out(operations)
            self._save(list(records.runs.values()), before)
            self._save_notes(records.notes)

    def _load(self, operations: Iterable[Operation]) -> list[RunRow]:
        """Return the runs that operations touch, with the questions that may matter."""
        runs = find(self._connection, {o.run_id for o in operations})
        paths = list({path for o in operations for path in o.paths})
        for run in runs:
            if run.questions:
                self._load_questions(run, "closed IS NULL", ())
            for some in pieces(paths):
                self._load_questions(run, f"path IN {marks(some)}", some)
        return runs

    def _load_questions(self, run: RunRow, which: str, values: Iterable[str]) -> None:
        rows = self._connection.execute(
            f"SELECT path, seq, asked, closed FROM questions WHERE run = ? AND {which}", (run.id, *values)
        )
        run.asked.update((path, QuestionRow(*question)) for path, *question in rows)

    def _save(self, runs: Sequence[RunRow], before: Mapping[str, tuple[Any, ...]]) -> None:
        """Write what has changed of the runs."""
        execute, executemany = self._connection.execute, self._connection.executemany
        for run in runs:
            now, was = columns(run), before.get(run.run_id)
            if was is None:
                run.id = execute(_INSERT_RUN, now).lastrowid
            elif now[:_FIRST_COUNT] != was[:_FIRST_COUNT]:
                execute(_UPDATE_RUN, (*now, run.id))
        executemany(_UPDATE_COUNTS, [(*columns(run)[_FIRST_COUNT:], run.id) for run in runs])
        rows = [(run.id, seq, row) for run in runs for seq, row in run.added]
        executemany(
            "INSERT OR IGNORE INTO content (hash, data) VALUES (?, ?)", [c for *_, row in rows for c in row.contents]
        )
        executemany(
            "INSERT INTO events (run, seq, data, refs) VALUES (?, ?, ?, ?)",
            [(run, seq, row.data, row.refs) for run, seq, row in rows],
        )
        executemany(
            "INSERT OR REPLACE INTO questions (run, path, seq, asked, closed) VALUES (?, ?, ?, ?, ?)",
            [(run.id, path, q.seq, q.asked, q.closed) for run in runs for path, q in run.changed.items()],
        )
        executemany(
            "INSERT INTO guidance (run, asked, answered, at) VALUES (?, ?, ?, ?)",
            [(run.id, *kept) for run in runs for kept in run.kept],
        )

    def _save_notes(self, notes: Mapping[tuple[str, str], Note | None]) -> None:
        for key, note in notes.items():
            if note is None:
                self._connection.execute("DELETE FROM notes WHERE space = ? AND name = ?", key)
            else:
                self._connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", (*key, note.text, note.at))

    def _read(self, queries: Sequence[Query[Any]]) -> None:
        reader = Reader(self.path, self._reading)
        for query in queries:
            query.put(reader)
