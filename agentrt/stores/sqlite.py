"""The journal in an SQLite file: nothing to install, safe to read while runs write to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from anyio import to_thread

from agentrt.errors import JournalError
from agentrt.events import Event, QuestionAsked
from agentrt.guidance import Guidance
from agentrt.journal import Note, OpenQuestion, RunSummary
from agentrt.stores.content import StoredRow, guidance_of, hashes, to_events
from agentrt.stores.record import (
    COLUMNS,
    COUNTS,
    OperatedJournal,
    Operation,
    QuestionRow,
    Records,
    RunRow,
    columns,
    unknown_run,
    writable,
)
from agentrt.stores.thread import GroupThread

T = TypeVar("T")

SCHEMA_VERSION: Final = 5
_APPLICATION_ID: Final = int.from_bytes(b"agrt")
_BUSY_SECONDS: Final = 10.0
_BUSY_PAUSE: Final = 0.01
_RUNS_1: Final = """
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
    seq  INTEGER NOT NULL,  -- from 1, without gaps
    data BLOB NOT NULL,  -- agentrt.events.encode
    PRIMARY KEY (run, seq)
);
"""
_VERSION_2: Final = """
ALTER TABLE runs ADD COLUMN target TEXT;
ALTER TABLE runs ADD COLUMN parent TEXT;
ALTER TABLE runs ADD COLUMN owner TEXT;  -- who drives it
ALTER TABLE runs ADD COLUMN until REAL NOT NULL DEFAULT 0;  -- when the owner's claim ends
ALTER TABLE runs ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;  -- how often it was claimed
ALTER TABLE runs ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN questions INTEGER NOT NULL DEFAULT 0;  -- neither answered nor withdrawn
UPDATE runs SET events = (SELECT count(*) FROM events WHERE run = id);
CREATE INDEX runs_by_status ON runs (status, started, id);
ALTER TABLE events ADD COLUMN refs BLOB;  -- JSON object: fields that are not in `data`, and the hashes of their content
CREATE TABLE content (
    hash BLOB NOT NULL PRIMARY KEY,  -- agentrt.stores.content.digest
    data BLOB NOT NULL  -- JSON
);
CREATE TABLE questions (
    run    INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    path   TEXT NOT NULL,
    seq    INTEGER NOT NULL,  -- of the event that asked
    asked  REAL NOT NULL,
    closed TEXT,  -- why nobody can answer it any more
    PRIMARY KEY (run, path)
);
CREATE INDEX open_questions ON questions (asked, run, seq) WHERE closed IS NULL;
"""
_VERSION_3: Final = """
CREATE TABLE guidance (  -- answers that were to be kept for later questions
    run      INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    asked    INTEGER NOT NULL,  -- seq of the question
    answered INTEGER NOT NULL,  -- seq of the answer
    at       REAL NOT NULL,
    PRIMARY KEY (run, answered)
);
"""
_VERSION_4: Final = """
ALTER TABLE runs ADD COLUMN worked REAL NOT NULL DEFAULT 0;  -- seconds, up to the latest event
ALTER TABLE runs ADD COLUMN latest REAL NOT NULL DEFAULT 0;  -- when that was
ALTER TABLE runs ADD COLUMN due REAL;  -- when a waiting run may go on
UPDATE runs SET worked = coalesce(ended - started, 0), latest = coalesce(ended, started);
UPDATE runs SET due = 0 WHERE status = 'waiting';  -- each is tried once: what it waits for is not in its row
"""
_VERSION_5: Final = """
CREATE TABLE notes (
    space TEXT NOT NULL,
    name  TEXT NOT NULL,
    text  TEXT NOT NULL,
    at    REAL NOT NULL,
    PRIMARY KEY (space, name)
);
"""
_SCHEMAS: Final = (_RUNS_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5)
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
_SELECT_RUN: Final = f"SELECT id, {', '.join(COLUMNS)} FROM runs"
_INSERT_RUN: Final = f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_UPDATE_RUN: Final = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in COLUMNS)} WHERE id = ?"
_UPDATE_COUNTS: Final = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in COUNTS)} WHERE id = ?"
_FIRST_COUNT: Final = len(COLUMNS) - len(COUNTS)
_AT_ONCE: Final = 500
"""How many values one statement looks up."""


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
        self._connection = self._open()
        self._reading = self._open()
        self._writer = GroupThread("agentrt journal", self._write)
        self._reader = GroupThread[_Query[Any]]("agentrt journal reader", self._read)

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

    async def _ask(self, read: Callable[[_Reader], T]) -> T:
        query = _Query(read)
        await self._reader.do(query)
        return query.answer()

    def _close(self) -> None:
        self._writer.close()
        self._reader.close()
        self._reading.close()
        self._connection.close()

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
        """Check that the file is ours, make its tables if it is new, and bring an older one up to date."""
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        with _transaction(connection):
            version = _pragma(connection, "user_version")
            if version == 0 and _pragma(connection, "application_id") == 0 and not _has_tables(connection):
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            elif _pragma(connection, "application_id") != _APPLICATION_ID:
                raise JournalError(f"{self.path} is another program's database: choose another file")
            elif version > SCHEMA_VERSION:
                raise JournalError(
                    f"{self.path} was written by a newer agentrt (schema {version}, this one reads {SCHEMA_VERSION}): "
                    "upgrade agentrt, or choose another file"
                )
            if version < SCHEMA_VERSION:
                _upgrade(connection, version)
            self._check_columns(connection)

    def _check_columns(self, connection: sqlite3.Connection) -> None:
        """Refuse a file that has the version and not its columns: its runs would fail, each as it begins."""
        has = {name for _, name, *_ in connection.execute("PRAGMA table_info(runs)")}
        if missing := sorted({"id", *COLUMNS} - has):
            raise JournalError(
                f"{self.path} was written by an agentrt between two versions ({', '.join(missing)} is missing): "
                "move it away (a new one is made), or choose another file"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn SQLite's errors into one line with the path and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise _error(self.path, error) from error

    def _write(self, operations: Sequence[Operation]) -> None:
        """Carry out a group in one transaction, or, where that fails, each in its own, so that each fails alone."""
        try:
            self._commit(operations)
        except sqlite3.Error as error:
            if len(operations) > 1 and not _is_busy(error):
                for operation in operations:
                    self._write([operation])
                return
            for operation in operations:
                operation.error = _error(self.path, error)
                operation.error.__cause__ = error

    def _commit(self, operations: Sequence[Operation]) -> None:
        with _transaction(self._connection):
            runs = {run.run_id: run for run in self._load(operations)}
            before = {name: columns(run) for name, run in runs.items()}
            records = Records(self.path, self._clock(), runs)
            records.carry_out(operations)
            self._save(list(records.runs.values()), before)
            self._save_notes(records.notes)

    def _load(self, operations: Iterable[Operation]) -> list[RunRow]:
        """Return the runs that operations touch, with the questions that may matter."""
        runs = _find(self._connection, {o.run_id for o in operations})
        paths = list({path for o in operations for path in o.paths})
        for run in runs:
            if run.questions:
                self._load_questions(run, "closed IS NULL", ())
            for some in _pieces(paths):
                self._load_questions(run, f"path IN {_marks(some)}", some)
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

    def _read(self, queries: Sequence[_Query[Any]]) -> None:
        reader = _Reader(self.path, self._reading)
        for query in queries:
            query.put(reader)


class _Query(Generic[T]):
    """Be something to read, and then what was read."""

    def __init__(self, read: Callable[[_Reader], T]) -> None:
        self._read = read
        self._found: list[T] = []
        self._error: JournalError | None = None

    def put(self, reader: _Reader) -> None:
        try:
            self._found = [self._read(reader)]
        except JournalError as error:
            self._error = error
        except sqlite3.Error as error:
            self._error = _error(reader.path, error)
            self._error.__cause__ = error

    def answer(self) -> T:
        if self._error is not None:
            raise self._error
        return self._found[0]


class _Reader:
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
        for run in _find(self._connection, [run_id]):
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
            f"SELECT seq, data, refs FROM events WHERE run = ? AND seq IN {_marks(seqs)} ORDER BY seq", (run, *seqs)
        )
        return self._events(run_id, [StoredRow(*row) for row in found])

    def _events(self, run_id: str, rows: Sequence[StoredRow]) -> list[Event]:
        return to_events(rows, self._contents(sorted(hashes(rows))), run_id, self.path)

    def _contents(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for some in _pieces(keys):
            found.update(self._connection.execute(f"SELECT hash, data FROM content WHERE hash IN {_marks(some)}", some))
        return found


def _find(connection: sqlite3.Connection, run_ids: Iterable[str]) -> list[RunRow]:
    """Return the runs of these ids, as far as there are any."""
    rows: list[tuple[Any, ...]] = []
    for some in _pieces([i for i in run_ids if i == writable(i)]):
        rows += connection.execute(f"{_SELECT_RUN} WHERE run_id IN {_marks(some)}", some)
    return [RunRow(*row) for row in rows]


def _pieces(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[i : i + _AT_ONCE] for i in range(0, len(values), _AT_ONCE))


def _marks(values: Collection[object]) -> str:
    return f"({', '.join('?' * len(values))})"


def _error(path: Path, error: sqlite3.Error) -> JournalError:
    remedy = _REMEDIES.get(_code(error), "choose another place")
    return JournalError(f"{path}: {error}; {remedy} with --store or AGENTRT_STORE")


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


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


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side, as the file says from then on."""
    ends = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Of two that switch a new file at once SQLite refuses one without waiting, whatever its time-out.
            if not _is_busy(error) or time.monotonic() > ends:
                raise
            time.sleep(_BUSY_PAUSE)
        else:
            return


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    for schema in _SCHEMAS[version:]:
        for statement in schema.split(";"):  # executescript would commit the transaction around it
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)
