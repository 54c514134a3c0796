"""The journal in an SQLite file: nothing to install, safe to read while runs write to it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from anyio import to_thread

from agentrt.errors import JournalError
from agentrt.events import (
    Event,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    UsageRecorded,
    decode,
    encode,
)
from agentrt.journal import RunSummary
from agentrt.runtime import StopReason

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = int.from_bytes(b"agrt")
_BUSY_SECONDS: Final = 10.0
_SCHEMA: Final = """
CREATE TABLE runs (
    id      INTEGER PRIMARY KEY,
    run_id  TEXT NOT NULL UNIQUE,
    name    TEXT NOT NULL,
    status  TEXT NOT NULL,
    started REAL NOT NULL,  -- seconds since the epoch
    ended   REAL,
    tokens  INTEGER NOT NULL DEFAULT 0,
    cost    INTEGER NOT NULL DEFAULT 0  -- pico-dollars
);
CREATE INDEX runs_by_time ON runs (started, id);
CREATE TABLE events (
    run  INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq  INTEGER NOT NULL,
    data BLOB NOT NULL,  -- agentrt.events.encode
    PRIMARY KEY (run, seq)
);
"""
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: make room, or choose another place",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written: check it, or choose another place",
    sqlite3.SQLITE_BUSY: "another process keeps it locked: let that end, or choose another place",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked: let that end, or choose another place",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: move it away (a new one is made), or choose another",
    sqlite3.SQLITE_NOTADB: "it is no SQLite file: choose another",
    sqlite3.SQLITE_READONLY: "it may not be written: change its permissions, or choose another",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that its folder exists and may be written, or choose another",
}


def from_url(url: str) -> SqliteJournal:
    """Open the journal of `sqlite:///PATH`: `sqlite:///runs.db` is a relative path, `sqlite:////data/runs.db` not."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise JournalError(f"store {url!r} names no file: write sqlite:///runs.db, or sqlite:////data/runs.db")
    return SqliteJournal(path)


class SqliteJournal:
    """Keep the events of runs in one SQLite file, which is made if it does not exist.

    Each appended group is one transaction, on disk when `append` returns. Opening blocks; the rest works in threads,
    one at a time. Raises `JournalError`, naming the file and what to do.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._connection = self._open()

    def __repr__(self) -> str:
        return f"<SqliteJournal {str(self.path)!r}>"

    async def append(self, run_id: str, events: Sequence[Event]) -> None:
        """Keep the events durably, all or none, after those appended before."""
        await to_thread.run_sync(self._locked, lambda: self._append(run_id, events))

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """Return the newest runs, newest first."""
        return await to_thread.run_sync(self._locked, lambda: self._runs(limit))

    async def events(self, run_id: str) -> list[Event]:
        """Return a run's events in the order they were appended; raises `JournalError` for an unknown run."""
        return await to_thread.run_sync(self._locked, lambda: self._events(run_id))

    async def aclose(self) -> None:
        """Close the file."""
        await to_thread.run_sync(self._locked, self._connection.close)

    def _locked(self, work: Callable[[], T]) -> T:
        with self._lock, self._told():
            return work()

    def _open(self) -> sqlite3.Connection:
        with self._told():
            # Autocommit: transactions are begun and ended here, never by the driver's guesses.
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check that the file is ours, and make its tables if it is new."""
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        with _transaction(connection):
            version = _pragma(connection, "user_version")
            if version == 0 and _pragma(connection, "application_id") == 0 and not _has_tables(connection):
                _create(connection)
            elif _pragma(connection, "application_id") != _APPLICATION_ID:
                raise JournalError(f"{self.path} is another program's database: choose another file")
            elif version > SCHEMA_VERSION:
                raise JournalError(
                    f"{self.path} was written by a newer agentrt (schema {version}, this one reads {SCHEMA_VERSION}): "
                    "upgrade agentrt, or choose another file"
                )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn SQLite's errors into one line with the path and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            remedy = _REMEDIES.get(code, "choose another place")
            raise JournalError(f"{self.path}: {error}; {remedy} with --store or AGENTRT_STORE") from error

    def _append(self, run_id: str, events: Sequence[Event]) -> None:
        # Encoded before the transaction begins, so that the file is locked for the writing alone.
        rows = [encode(e) for e in events]
        connection = self._connection
        with _transaction(connection):
            for event in events:
                if isinstance(event, RunStarted):
                    self._insert_run(event)
            run = self._key(run_id)
            (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM events WHERE run = ?", (run,)).fetchone()
            connection.executemany(
                "INSERT INTO events (run, seq, data) VALUES (?, ?, ?)",
                ((run, seq, data) for seq, data in enumerate(rows, last + 1)),
            )
            self._summarise(run, events)

    def _insert_run(self, event: RunStarted) -> None:
        try:
            self._connection.execute(
                "INSERT INTO runs (run_id, name, status, started) VALUES (?, ?, 'running', ?)",
                (event.run_id, event.name, event.at),
            )
        except sqlite3.IntegrityError as error:
            raise JournalError(
                f"{self.path} already holds a run {event.run_id!r}: give the new one another id"
            ) from error

    def _key(self, run_id: str) -> int:
        row: tuple[int] | None = self._connection.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            raise JournalError(f"no run {run_id!r} in {self.path}: `agentrt runs` lists them")
        return row[0]

    def _summarise(self, run: int, events: Sequence[Event]) -> None:
        """Keep the run's summary up to date, so that listing runs reads no events."""
        used = [e.usage for e in events if isinstance(e, UsageRecorded)]
        if used:
            self._connection.execute(
                "UPDATE runs SET tokens = tokens + ?, cost = cost + ? WHERE id = ?",
                (sum(u.tokens for u in used), sum(u.cost for u in used), run),
            )
        for event in events:
            if isinstance(event, RunResumed):
                self._connection.execute("UPDATE runs SET status = 'running', ended = NULL WHERE id = ?", (run,))
            if isinstance(event, RunFinished | RunFailed | RunCancelled):
                status = StopReason.CANCELLED if isinstance(event, RunCancelled) else event.stop_reason
                self._connection.execute(
                    "UPDATE runs SET status = ?, ended = ?, tokens = ?, cost = ? WHERE id = ?",
                    (str(status), event.at, event.usage.tokens, event.usage.cost, run),
                )

    def _runs(self, limit: int) -> list[RunSummary]:
        names = ("run_id", "name", "status", "started", "ended", "tokens", "cost")
        rows = self._connection.execute(
            f"SELECT {', '.join(names)} FROM runs ORDER BY started DESC, id DESC LIMIT ?", (limit,)
        )
        return [RunSummary(**dict(zip(names, row, strict=True))) for row in rows]

    def _events(self, run_id: str) -> list[Event]:
        rows = self._connection.execute("SELECT data FROM events WHERE run = ? ORDER BY seq", (self._key(run_id),))
        try:
            return [decode(data) for (data,) in rows]
        except ValueError as error:
            raise JournalError(f"run {run_id} in {self.path} holds an event that cannot be read: {error}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the body does, or nothing of it."""
    # IMMEDIATE: a writer waits its turn here; upgrading a read transaction would fail at once where another wrote.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _create(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";"):  # executescript would commit the transaction around it
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)
