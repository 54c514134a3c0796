"""The file of a journal: its tables, those of older versions brought up to date, and connections to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agentrt.errors import JournalError
from agentrt.stores.record import COLUMNS

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


def opened(path: Path) -> sqlite3.Connection:
    """Open a file, which is made if it does not exist; raises `JournalError` saying what to do."""
    try:
        # Autocommit: transactions are begun and ended here, never by the driver's guesses.
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(path, connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise error_of(path, error) from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
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


def error_of(path: Path, error: sqlite3.Error) -> JournalError:
    """Return one line for an error of SQLite, with the path and what to do."""
    remedy = _REMEDIES.get(_code(error), "choose another place")
    return JournalError(f"{path}: {error}; {remedy} with --store or AGENTRT_STORE")


def is_busy(error: sqlite3.Error) -> bool:
    """Say whether another process keeps the file locked."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Check that the file is ours, make its tables if it is new, and bring an older one up to date."""
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    with transaction(connection):
        version = _pragma(connection, "user_version")
        if version == 0 and _pragma(connection, "application_id") == 0 and not _has_tables(connection):
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        elif _pragma(connection, "application_id") != _APPLICATION_ID:
            raise JournalError(f"{path} is another program's database: choose another file")
        elif version > SCHEMA_VERSION:
            raise JournalError(
                f"{path} was written by a newer agentrt (schema {version}, this one reads {SCHEMA_VERSION}): "
                "upgrade agentrt, or choose another file"
            )
        if version < SCHEMA_VERSION:
            _upgrade(connection, version)
        _check_columns(path, connection)


def _check_columns(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a file that has the version and not its columns: its runs would fail, each as it begins."""
    has = {name for _, name, *_ in connection.execute("PRAGMA table_info(runs)")}
    if missing := sorted({"id", *COLUMNS} - has):
        raise JournalError(
            f"{path} was written by an agentrt between two versions ({', '.join(missing)} is missing): "
            "move it away (a new one is made), or choose another file"
        )


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side, as the file says from then on."""
    ends = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Of two that switch a new file at once SQLite refuses one without waiting, whatever its time-out.
            if not is_busy(error) or time.monotonic() > ends:
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
