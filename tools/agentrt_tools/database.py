"""Databases: connections that read, or also write, for a bounded time. Needs the extra `agentrt[sql]`.

That nothing is written is for the database to see to, whatever a statement looks like. Each call has a connection of
its own, so that nothing a statement sets outlives it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import anyio
from anyio import to_thread

from agentrt import AgentrtError, DefinitionError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
Work: TypeAlias = Callable[["Connection"], T]
"""What is done with a connection; written without `await`, whichever kind of driver is used."""

MOST_VALUE: Final = 1_000_000
"""SQLite makes no value of more bytes. It cannot be interrupted while one function works on one value."""
_STEPS: Final = 10_000
_GRACE: Final = 0.5
_SAID: Final = 500
_READING: Final = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_PRAGMAS: Final = {
    "data_version", "database_list", "encoding", "foreign_key_list", "index_info", "index_list", "index_xinfo",
    "read_uncommitted", "schema_version", "table_info", "table_list", "table_xinfo",
}  # fmt: skip
_REFUSED: Final = {
    "load_extension",
    "regexp",  # SQLAlchemy's, of Python's engine, which nothing interrupts
}
# Whoever may become one of these reads and writes files of the server's machine, or runs programs there, in a
# transaction that only reads, too.
_POWERFUL: Final = """
SELECT rolname FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER') AND (rolsuper OR rolname IN
    ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')) LIMIT 1
"""
# The last is known from PostgreSQL 14 on: a statement ends soon after the step that ran it was cancelled.
_BOUNDS: Final = """
SELECT set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '500' ELSE '{0}' END, true)
FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
    'client_connection_check_interval')
"""


class SqlError(AgentrtError):
    """Say why a statement was refused or failed, and what to do."""


class Database(ABC):
    """Do work on connections to one database, each within `seconds`; without `write` the work can only read.

    `do` raises `SqlError`.
    """

    def __init__(self, url: URL, *, write: bool, seconds: float) -> None:
        self.url = url
        self.write = write
        self.seconds = seconds

    async def do(self, work: Work[T]) -> T:
        """Return what the work on a connection comes to. What it writes is kept if the work commits it."""
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            return await self._do(work)
        except DBAPIError as error:
            raise SqlError(self._told(error.orig or error)) from error
        except SQLAlchemyError as error:
            raise SqlError(str(error)[:_SAID]) from error
        except OSError as error:  # among them a time-out
            if isinstance(error, TimeoutError):
                raise SqlError(self._late()) from error
            raise SqlError(f"the database cannot be reached: {error}") from error

    @abstractmethod
    async def _do(self, work: Work[T]) -> T: ...

    def _told(self, error: BaseException) -> str:
        return _said(error)

    def _late(self) -> str:
        return f"the statement took longer than {self.seconds:g} s: ask for less"


class SqliteDatabase(Database):
    """Read an SQLite file in a thread. Neither other files nor extensions are opened, to write neither."""

    async def _do(self, work: Work[T]) -> T:
        gone = threading.Event()
        try:
            return await to_thread.run_sync(self._work, work, gone, abandon_on_cancel=True)
        finally:
            gone.set()

    def _work(self, work: Work[T], gone: threading.Event) -> T:
        ends = time.monotonic() + self.seconds
        with self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.set_progress_handler(lambda: gone.is_set() or time.monotonic() > ends, _STEPS)
            return work(connection)

    @cached_property
    def _engine(self) -> Engine:
        from sqlalchemy import create_engine, event
        from sqlalchemy.pool import NullPool

        # `rw`, too, makes no file that is missing.
        path = Path(self.url.database or "").absolute().as_uri()
        location = f"{path}?mode={'rw' if self.write else 'ro'}"
        connect = partial(sqlite3.connect, location, uri=True, check_same_thread=False, timeout=self.seconds)
        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
        event.listen(engine, "connect", self._restrict)
        return engine

    def _restrict(self, raw: sqlite3.Connection, record: object) -> None:
        if not self.write:
            raw.execute("PRAGMA query_only = ON")
        raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE)
        raw.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        raw.set_authorizer(self._allows)

    def _allows(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_PRAGMA:
            allowed = str(first).lower() in _PRAGMAS
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = str(second).lower() not in _REFUSED
        elif self.write:
            allowed = action not in {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}
        else:
            allowed = action in _READING
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _told(self, error: BaseException) -> str:
        reason = _said(error)
        if reason == "interrupted":
            return self._late()
        if "regexp" in reason.lower():
            return f"{reason}: use LIKE or GLOB"
        if reason.startswith(("not authorized", "authorization denied", "attempt to write")):
            return f"{reason}: {'it would leave the database' if self.write else 'this tool only reads'}"
        return reason


class PostgresDatabase(Database):
    """Read a PostgreSQL database in a transaction that only reads and that no statement can leave.

    superuser: lets a role be used that can reach beyond the database.
    """

    def __init__(self, url: URL, *, write: bool, seconds: float, superuser: bool) -> None:
        super().__init__(url, write=write, seconds=seconds)
        self._superuser = superuser

    async def _do(self, work: Work[T]) -> T:
        engine = self._engine
        from asyncpg import InterfaceError, PostgresError

        try:
            with anyio.fail_after(self.seconds + _GRACE):  # a statement may raise the server's own limits
                async with engine.connect() as connection:
                    await connection.execution_options(postgresql_readonly=not self.write)
                    return await connection.run_sync(self._work, work)
        except (PostgresError, InterfaceError) as error:  # of rows that are streamed: SQLAlchemy lets those through
            raise SqlError(self._told(error)) from error

    def _work(self, connection: Connection, work: Work[T]) -> T:
        connection.exec_driver_sql(_BOUNDS.format(int(self.seconds * 1000)))
        # Once the transaction has read anything, it can no longer be made one that writes.
        powerful = connection.exec_driver_sql(_POWERFUL).scalar()
        if powerful is not None and not self._superuser:
            raise DefinitionError(
                f"the database's user is, or may become, {powerful}, and could reach files and programs of its "
                "machine: use one that may only read what is needed, or pass superuser=True"
            )
        return work(connection)

    @cached_property
    def _engine(self) -> AsyncEngine:
        return _async_engine(self.url.set(drivername="postgresql+asyncpg"), {"timeout": self.seconds})

    def _told(self, error: BaseException) -> str:
        reason = _said(error.__cause__ or error)
        if "statement timeout" in reason:
            return self._late()
        if "read-only transaction" in reason:
            return f"{reason}: this tool only reads"
        return reason


class OtherDatabase(Database):
    """Read and write any other database that SQLAlchemy has a driver for; only the step's time is bounded."""

    async def _do(self, work: Work[T]) -> T:
        with anyio.fail_after(self.seconds):
            if self.url.get_dialect().is_async:
                async with _async_engine(self.url, {}).connect() as connection:
                    return await connection.run_sync(work)
            return await to_thread.run_sync(self._work, work, abandon_on_cancel=True)

    def _work(self, work: Work[T]) -> T:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        try:
            engine = create_engine(self.url, poolclass=NullPool)
        except ImportError as error:
            raise _no_driver(self.url, error) from error
        with engine.connect() as connection:
            return work(connection)


def open_database(url: str, *, write: bool, seconds: float, superuser: bool) -> Database:
    """Return the database of a URL, which is connected to when it is used.

    Raises `DefinitionError` for a URL that names none, and for a database that cannot be kept from being written to.
    """
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as error:
        raise DefinitionError("sql needs SQLAlchemy: pip install 'agentrt[sql]'") from error
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise DefinitionError("sql: write a URL like sqlite:///PATH or postgresql://USER@HOST/DATABASE") from error
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise DefinitionError("sql: name the file of the SQLite database, as in sqlite:///PATH, and nothing else")
        return SqliteDatabase(parsed, write=write, seconds=seconds)
    if kind in {"postgresql", "postgres"}:
        return PostgresDatabase(parsed, write=write, seconds=seconds, superuser=superuser)
    if not write:
        raise DefinitionError(
            f"sql: {kind} cannot be kept from being written to here: pass write=True, with a user that may only read"
        )
    return OtherDatabase(parsed, write=write, seconds=seconds)


def _async_engine(url: URL, arguments: dict[str, Any]) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    try:
        return create_async_engine(url, poolclass=NullPool, connect_args=arguments)
    except ImportError as error:
        raise DefinitionError(
            f"{url.get_backend_name()} needs a driver: {error}; pip install 'agentrt[sql]'"
        ) from error


def _no_driver(url: URL, error: ImportError) -> DefinitionError:
    return DefinitionError(f"{url.drivername} needs a driver: {error}; that of PostgreSQL is in 'agentrt[sql]'")


def _said(error: BaseException) -> str:
    return str(error).strip()[:_SAID] or type(error).__name__
