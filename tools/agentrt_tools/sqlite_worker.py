"""The process that asks an SQLite file: started by `sqlite.py` for one question, and ended by it where it must be.

SQLite cannot be interrupted while one function works on one value, and a function of quadratic time on a megabyte
takes minutes: only a process of its own can be stopped then. Nothing but the standard library is imported.
"""

from __future__ import annotations

import json
import math
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any, Final

from agentrt_tools.rows import BATCH, Rows, TooMuch, Wanted, done, written

MOST_VALUE: Final = 1_000_000
"""SQLite makes no value of more bytes."""
_MOST_MEMORY: Final = 1 << 30
_STEPS: Final = 500
"""So many steps of SQLite's machine lie between two looks at the clock."""
_READING: Final = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_LEAVING: Final = {
    sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT,
}  # fmt: skip
_PRAGMAS: Final = {
    "data_version", "database_list", "encoding", "foreign_key_list", "index_info", "index_list", "index_xinfo",
    "page_size", "read_uncommitted", "schema_version", "table_info", "table_list", "table_xinfo",
}  # fmt: skip
_REFUSED: Final = {"load_extension", "fts3_tokenizer"}
_VIRTUAL: Final = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'virtual'"
_TABLES: Final = """
SELECT name FROM pragma_table_list
WHERE schema = 'main' AND type != 'shadow' AND name NOT LIKE 'sqlite#_%' ESCAPE '#' ORDER BY name
"""


def main() -> None:
    """Answer the question on stdin, in JSON, on stdout."""
    question = json.load(sys.stdin)
    gone = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: gone.set())
    _limit(question["seconds"])
    try:
        reply = _answered(question, gone)
    except (sqlite3.Error, sqlite3.Warning, TooMuch, MemoryError, OverflowError) as error:
        reply = {"error": str(error) or type(error).__name__}
    json.dump(reply, sys.stdout)


def _answered(question: Mapping[str, Any], gone: threading.Event) -> Mapping[str, Any]:
    ends = time.monotonic() + question["seconds"]
    with closing(connected(question["location"], write=question["write"], seconds=question["seconds"])) as connection:
        connection.set_progress_handler(lambda: gone.is_set() or time.monotonic() > ends, _STEPS)
        if question["statement"] is None:
            return {"tables": _tables(connection)}
        rows = _rows(connection, question["statement"], Wanted(**question["wanted"]))
        _commit(connection)
        return asdict(rows)


def connected(location: str, *, write: bool, seconds: float) -> sqlite3.Connection:
    """Open a file, to be read unless `write`, and begin a transaction that no statement ends.

    No statement opens another file, or loads code.
    """
    # Without a level the module begins no transaction itself; it does so for some statements only.
    connection = sqlite3.connect(location, uri=True, timeout=seconds, isolation_level=None)
    connection.text_factory = lambda data: data.decode(errors="replace")
    if not write:
        connection.execute("PRAGMA query_only = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    # Opening a virtual table compiles statements that write; it opens none that could: the connection only reads.
    for (name,) in connection.execute(_VIRTUAL).fetchall():
        with suppress(sqlite3.Error):  # its module is not here: a statement that needs it says so
            connection.execute(f"PRAGMA table_xinfo({_quoted(name)})").fetchall()
    connection.execute("BEGIN")
    connection.set_authorizer(lambda action, first, second, *_: _allowed(action, first, second, write=write))
    return connection


def _commit(connection: sqlite3.Connection) -> None:
    connection.set_authorizer(None)
    connection.execute("COMMIT")


def _allowed(action: int, first: str | None, second: str | None, *, write: bool) -> int:
    if action == sqlite3.SQLITE_PRAGMA:
        allowed = str(first).lower() in _PRAGMAS
    elif action == sqlite3.SQLITE_FUNCTION:
        allowed = str(second).lower() not in _REFUSED
    elif write:
        allowed = action not in _LEAVING
    else:
        allowed = action in _READING
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _rows(connection: sqlite3.Connection, statement: str, wanted: Wanted) -> Rows:
    with closing(connection.execute(statement)) as cursor:
        if cursor.description is None:
            return done(cursor.rowcount, wanted)
        # SQLite has made all changes before it returns the first row, and no function of its own writes.
        return written([column[0] for column in cursor.description], lambda: cursor.fetchmany(BATCH), wanted)


def _tables(connection: sqlite3.Connection) -> list[list[str]]:
    """Return the lines of each table and view; the tables in which virtual ones keep what they hold are left out."""
    return [[name, *_columns(connection, name)] for (name,) in connection.execute(_TABLES).fetchall()]


def _columns(connection: sqlite3.Connection, table: str) -> Sequence[str]:
    try:
        columns = connection.execute(f"PRAGMA table_xinfo({_quoted(table)})").fetchall()
        keys = connection.execute(f"PRAGMA foreign_key_list({_quoted(table)})").fetchall()
    except sqlite3.Error as error:
        return [f"  (its columns cannot be read, nor can the table: {error})"]
    links = {own: ".".join(filter(None, (other, column))) for _, _, other, own, column, *_ in keys}
    lines = []
    for _, name, kind, is_needed, _, key, hidden in columns:
        if hidden == 1:
            continue
        note = " primary key" if key else " not null" if is_needed else ""
        lines.append(f"  {f'{name} {kind}'.strip()}{note}{f' → {links[name]}' if name in links else ''}")
    return lines


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _limit(seconds: float) -> None:
    """Have the system end this process where it takes too much, also when nobody is left who would."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds) + 2, math.ceil(seconds) + 2))
    with suppress(ValueError, OSError):  # macOS takes none
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
