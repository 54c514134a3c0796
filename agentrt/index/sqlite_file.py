"""The file of an index: its tables, and connections to it, by apsw, whose SQLite is new enough on every machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentrt.errors import AgentrtError, DefinitionError, IndexUnavailable

if TYPE_CHECKING:
    from apsw import Connection

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
TOKENIZER: Final = ("porter", "unicode61", "remove_diacritics", "2")
_APPLICATION_ID: Final = int.from_bytes(b"agix")
_BUSY_MILLISECONDS: Final = 10_000
_MOST_READERS: Final = 4
_SCHEMA: Final = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE settings (name TEXT NOT NULL PRIMARY KEY, value NOT NULL);
INSERT INTO settings VALUES ('version', 0);  -- how often the index was written to
CREATE TABLE documents (
    id     INTEGER PRIMARY KEY,
    source TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL  -- of all its pieces
);
CREATE TABLE passages (
    id       INTEGER PRIMARY KEY,
    document INTEGER NOT NULL REFERENCES documents (id),
    position INTEGER NOT NULL,  -- from 0
    title    TEXT NOT NULL,
    text     TEXT NOT NULL,
    start    INTEGER,
    metadata TEXT NOT NULL,  -- JSON object
    content  BLOB NOT NULL,  -- hash of title and text
    place    BLOB NOT NULL  -- hash of position, start and metadata
);
CREATE INDEX passages_by_document ON passages (document, position);
CREATE INDEX passages_by_content ON passages (content);
CREATE VIRTUAL TABLE words USING fts5 (
    title, text, content = '', contentless_delete = 1, tokenize = '{" ".join(TOKENIZER)}'
);
CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);  -- of passages; a byte a number
CREATE TABLE facts (  -- the metadata of passages, to look them up by
    name    TEXT NOT NULL,
    value   NOT NULL,
    passage INTEGER NOT NULL,
    PRIMARY KEY (name, value, passage)
) WITHOUT ROWID;
CREATE INDEX facts_by_passage ON facts (passage);
"""
_SETTINGS: Final = """
PRAGMA synchronous = NORMAL;
PRAGMA cache_size = -32768;
PRAGMA temp.journal_mode = MEMORY;
CREATE VIRTUAL TABLE temp.counts USING fts5vocab (main, words, row);
"""


class IndexFile:
    """Lend connections to the file of an index, each to one thread at a time.

    make: makes the file where there is none.

    Raises `DefinitionError` for a file that is not there, is no index, or is damaged, and `IndexUnavailable` for what
    may go better later.
    """

    def __init__(self, path: Path, *, make: bool) -> None:
        if not make and not path.exists():
            raise DefinitionError(f"there is no index {path}: make it with SqliteIndex(…, make=True)")
        self.path = path
        self._may_make = make
        self._apsw = _library()
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._is_closed = False
        with self.connected():  # makes or refuses the file
            self._may_make = False

    def close(self) -> None:
        """Close what is open, and what is lent as soon as it comes back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def transact(self, work: Callable[[Connection], T], *, writes: bool = False) -> T:
        """Do work in a transaction of its own."""
        with self.connected() as connection, transaction(connection, writes=writes):
            return work(connection)

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Lend a connection that nobody else uses meanwhile; tells errors of SQLite as this package's."""
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            connection = connection or self._connect()
            try:
                yield connection
            finally:
                with self._lock:
                    kept = len(self._idle) < _MOST_READERS and not self._is_closed
                    if kept:
                        self._idle.append(connection)
                if not kept:
                    connection.close()
        except self._apsw.Error as error:
            raise _told(self._apsw, error, self.path) from error

    def _connect(self) -> Connection:
        is_sealed = self._is_sealed()
        connection = self._sealed() if is_sealed else self._unsealed()
        try:
            connection.set_busy_timeout(_BUSY_MILLISECONDS)
            self._check(connection)
            if not is_sealed:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute(_SETTINGS).fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _unsealed(self) -> Connection:
        apsw = self._apsw
        opened: Connection = apsw.Connection(
            str(self.path), flags=apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if self._may_make else 0)
        )
        return opened

    def _sealed(self) -> Connection:
        apsw = self._apsw
        uri = f"{self.path.absolute().as_uri()}?immutable=1"
        opened: Connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        return opened

    def _is_sealed(self) -> bool:
        """Say whether nobody can write where the file is: its log, which readers need, could not be made there."""
        is_whole = self.path.is_file() and not self.path.with_name(f"{self.path.name}-wal").exists()
        return is_whole and not os.access(self.path.parent, os.W_OK)

    def _check(self, connection: Connection) -> None:
        """Make the tables of a new file; refuse one that is no index, or one of a newer agentrt."""
        if self._may_make and _is_empty(connection):
            with transaction(connection, writes=True):
                if _is_empty(connection):
                    connection.execute(_SCHEMA).fetchall()
        if value_of(connection, "PRAGMA application_id") != _APPLICATION_ID:
            raise DefinitionError(f"{self.path} is no index of agentrt: choose another file")
        if value_of(connection, "PRAGMA user_version") > SCHEMA_VERSION:
            raise DefinitionError(f"{self.path} was made by a newer agentrt: upgrade agentrt, or make it anew")


def rows_of(connection: Connection, query: str, *values: Any) -> list[Any]:
    """Return all rows."""
    return connection.execute(query, values).fetchall()


def value_of(connection: Connection, query: str, default: Any = None, values: Sequence[Any] = ()) -> Any:
    """Return the first value of the first row."""
    for row in connection.execute(query, tuple(values)):
        return row[0]
    return default


@contextmanager
def transaction(connection: Connection, *, writes: bool) -> Iterator[None]:
    """Keep all that is written meanwhile, or nothing."""
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite itself has rolled back where the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is_empty(connection: Connection) -> bool:
    return not value_of(connection, "SELECT count(*) FROM sqlite_schema")


def _library() -> Any:
    try:
        import apsw
        import numpy  # noqa: F401 - told here, and not in the midst of a search
    except ImportError as error:
        raise DefinitionError("an index in a file needs apsw and numpy: pip install 'agentrt[retrieval]'") from error
    return apsw


def _told(apsw: Any, error: Exception, path: Path) -> AgentrtError:
    """Return this package's error for one of SQLite's, with what to do."""
    for kind, told, remedy in (
        (apsw.NotADBError, DefinitionError, "it is no index: choose another file"),
        (apsw.CorruptError, DefinitionError, "the file is damaged: move it away and make it anew"),
        (apsw.CantOpenError, DefinitionError, "it cannot be opened: check that its folder exists and may be written"),
        (apsw.ReadOnlyError, IndexUnavailable, "it may not be written: change its permissions"),
        (apsw.FullError, IndexUnavailable, "the disk is full: make room"),
        (apsw.BusyError, IndexUnavailable, "another process keeps it locked: let that end"),
    ):
        if isinstance(error, kind):
            return told(f"{path}: {remedy}")
    return IndexUnavailable(f"{path}: {error}")
