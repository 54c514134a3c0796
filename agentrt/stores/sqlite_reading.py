"""Reading the file of a journal: runs, their events and questions, guidance and notes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from agentrt.errors import JournalError
from agentrt.events import Event, QuestionAsked
from agentrt.guidance import Guidance
from agentrt.journal import Note, OpenQuestion, RunSummary
from agentrt.stores.content import StoredRow, guidance_of, hashes, to_events
from agentrt.stores.operations import unknown_run
from agentrt.stores.record import COLUMNS, RunRow, writable
from agentrt.stores.sqlite_file import error_of

T = TypeVar("T")

_SELECT_RUN: Final = f"SELECT id, {', '.join(COLUMNS)} FROM runs"
_AT_ONCE: Final = 500
"""How many values one statement looks up."""


class Query(Generic[T]):
    """Be something to read, and then what was read."""

    def __init__(self, read: Callable[[Reader], T]) -> None:
        self._read = read
        self._found: list[T] = []
        self._error: JournalError | None = None

    def put(self, reader: Reader) -> None:
        try:
            self._found = [self._read(reader)]
        except JournalError as error:
            self._error = error
        except sqlite3.Error as error:
            self._error = error_of(reader.path, error)
            self._error.__cause__ = error

    def answer(self) -> T:
        if self._error is not None:
            raise self._error
        return self._found[0]


class Reader:
    """Read an SQLite file, in the reader's thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    def runs(self, limit: int, status: str | None) -> list[RunSummary]:
        where, values = ("", ()) if status is None else (" WHERE status = ?", (status,))
        rows = self._connection.execute(
            f"{_SELECT_RUN}{where} ORDER BY started DESC, id DESC LIMIT ?", (*values, limit)
        )
        return [RunRow(*row).summary() for row in rows]

    def run(self, run_id: str) -> RunRow:
        for run in find(self._connection, [run_id]):
            return run
        raise unknown_run(run_id, self.path)

    def events(self, run_id: str) -> list[Event]:
        rows = self._connection.execute(
            "SELECT seq, data, refs FROM events WHERE run = ? ORDER BY seq", (self.run(run_id).id,)
        )
        return self._events(run_id, [StoredRow(*row) for row in rows])

    def questions(self, run_id: str | None) -> list[OpenQuestion]:
        where, values = ("", ()) if run_id is None else (" AND runs.id = ?", (self.run(run_id).id,))
        rows = self._connection.execute(
            "SELECT run_id, name, events.seq, data, refs FROM questions JOIN runs ON runs.id = questions.run "
            "JOIN events ON events.run = questions.run AND events.seq = questions.seq "
            f"WHERE closed IS NULL AND ended IS NULL{where} ORDER BY questions.asked, questions.run, questions.seq",
            values,
        ).fetchall()
        found = [(run_id, name, self._events(run_id, [StoredRow(*row)])) for run_id, name, *row in rows]
        return [OpenQuestion(run_id, name, e) for run_id, name, [e] in found if isinstance(e, QuestionAsked)]

    def guidance(self, name: str, limit: int) -> list[Guidance]:
        kept = self._connection.execute(
            "SELECT run_id, runs.id, asked, answered FROM guidance JOIN runs ON runs.id = guidance.run WHERE name = ? "
            "ORDER BY at DESC, runs.id DESC, answered DESC LIMIT ?",
            (writable(name), limit),
        ).fetchall()
        return [guidance_of(run_id, self._at(run_id, run, seqs)) for run_id, run, *seqs in reversed(kept)]

    def notes(self, space: str) -> list[Note]:
        query = "SELECT name, text, at FROM notes WHERE space = ? ORDER BY name"
        return [Note(*row) for row in self._connection.execute(query, (writable(space),))]

    def _at(self, run_id: str, run: int, seqs: Sequence[int]) -> list[Event]:
        """Return the events at some places of a run, in their order."""
        found = self._connection.execute(
            f"SELECT seq, data, refs FROM events WHERE run = ? AND seq IN {marks(seqs)} ORDER BY seq", (run, *seqs)
        )
        return self._events(run_id, [StoredRow(*row) for row in found])

    def _events(self, run_id: str, rows: Sequence[StoredRow]) -> list[Event]:
        return to_events(rows, self._contents(sorted(hashes(rows))), run_id, self.path)

    def _contents(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for some in pieces(keys):
            found.update(self._connection.execute(f"SELECT hash, data FROM content WHERE hash IN {marks(some)}", some))
        return found


def find(connection: sqlite3.Connection, run_ids: Iterable[str]) -> list[RunRow]:
    """Return the runs of these ids, as far as there are any."""
    rows: list[tuple[Any, ...]] = []
    for some in pieces([i for i in run_ids if i == writable(i)]):
        rows += connection.execute(f"{_SELECT_RUN} WHERE run_id IN {marks(some)}", some)
    return [RunRow(*row) for row in rows]


def pieces(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values, as many as one statement looks up."""
    return (values[i : i + _AT_ONCE] for i in range(0, len(values), _AT_ONCE))


def marks(values: Collection[object]) -> str:
    """Return a list of as many parameters."""
    return f"({', '.join('?' * len(values))})"
