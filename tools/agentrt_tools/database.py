"""Databases: connections that read, or also write, for a bounded time. Needs the extra `agentrt[sql]`.

That nothing is written is for the database to see to, whatever a statement looks like. Each call has a connection of
its own, so that nothing a statement sets outlives it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import anyio
from anyio import to_thread

from agentrt import AgentrtError, DefinitionError
from agentrt_tools.rows import BATCH, Rows, TooMuch, Wanted, done, written

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
Work: TypeAlias = Callable[["Connection"], T]
"""What is done with a connection; written without `await`, whichever kind of driver is used."""

_GRACE: Final = 0.5
_SAID: Final = 500
_AGAIN: Final = "offset= is for statements that read; what one has changed can be read with a SELECT"
# Whoever may become one of these reads and writes files of the server's machine, runs programs there, or ends whatever
# others do, in a transaction that only reads, too.
_POWERFUL: Final = """
SELECT rolname FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER') AND (rolsuper OR rolname IN
    ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_signal_backend')) LIMIT 1
"""
# The last is known from PostgreSQL 14 on: a statement ends soon after the step that ran it was cancelled.
_BOUNDS: Final = """
SELECT set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '500' ELSE '{0}' END, true)
FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
    'client_connection_check_interval')
"""


_TABLES: Final = """
SELECT CASE WHEN n.nspname = current_schema() THEN '' ELSE quote_ident(n.nspname) || '.' END || quote_ident(c.relname),
    '  ' || quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
    || coalesce((
        SELECT ' (' || left(string_agg(enumlabel, ', ' ORDER BY enumsortorder), 200) || ')'
        FROM pg_enum WHERE enumtypid = a.atttypid
    ), '')
    || CASE
        WHEN EXISTS (
            SELECT FROM pg_constraint WHERE contype = 'p' AND conrelid = c.oid AND a.attnum = ANY (conkey)
        ) THEN ' primary key'
        WHEN a.attnotnull THEN ' not null'
        ELSE ''
    END
    || coalesce((
        SELECT ' → ' || f.confrelid::regclass || '.' || quote_ident(t.attname)
        FROM pg_constraint f JOIN pg_attribute t
            ON t.attrelid = f.confrelid AND t.attnum = f.confkey[array_position(f.conkey, a.attnum)]
        WHERE f.contype = 'f' AND f.conrelid = c.oid AND a.attnum = ANY (f.conkey) ORDER BY f.oid LIMIT 1
    ), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
    AND NOT starts_with(n.nspname, 'pg_') AND n.nspname <> 'information_schema'
ORDER BY n.nspname <> current_schema(), n.nspname, c.relname, a.attnum
"""


class SqlError(AgentrtError):
    """Say why a statement was refused or failed, and what to do."""


class Database(ABC):
    """Answer from one database, each time within `seconds`; without `write` a statement can only read.

    Every method raises `SqlError`.
    """

    def __init__(self, *, write: bool, seconds: float) -> None:
        self.write = write
        self.seconds = seconds

    @property
    def refusal(self) -> str:
        """Say why a statement that changes the database is refused."""
        return _AGAIN if self.write else "this tool only reads"

    @abstractmethod
    async def rows(self, statement: str, wanted: Wanted) -> Rows:
        """Run a statement. Where rows are left out it can only read: who reads on changes nothing again."""

    @abstractmethod
    async def tables(self) -> list[list[str]]:
        """Return the lines of each table and view: its name, then its columns."""


class EngineDatabase(Database):
    """Do work on connections of SQLAlchemy's."""

    def __init__(self, url: URL, *, write: bool, seconds: float) -> None:
        super().__init__(write=write, seconds=seconds)
        self.url = url

    async def rows(self, statement: str, wanted: Wanted) -> Rows:
        def ask(connection: Connection) -> Rows:
            # A function in a SELECT may write, and is called for a row when that is fetched: none is kept in part.
            options = {"stream_results": True, "max_row_buffer": BATCH, "no_parameters": True}
            with connection.exec_driver_sql(statement, execution_options=options) as result:
                if result.returns_rows:
                    rows = written(list(result.keys()), lambda: result.fetchmany(BATCH), wanted, whole=write)
                else:
                    rows = done(result.rowcount, wanted)
            if write:
                connection.commit()
            return rows

        write = self.write and not wanted.offset
        return await self.do(ask, write=write)

    async def tables(self) -> list[list[str]]:
        return await self.do(self._tables)

    def _tables(self, connection: Connection) -> list[list[str]]:
        from sqlalchemy import inspect
        from sqlalchemy.engine.reflection import ObjectKind

        columns = inspect(connection).get_multi_columns(kind=ObjectKind.ANY)
        return [
            [name, *(f"  {column['name']} {column['type']}" for column in columns[schema, name])]
            for schema, name in sorted(columns, key=lambda key: key[1])
        ]

    async def do(self, work: Work[T], *, write: bool = False) -> T:
        """Return what the work on a connection comes to. What it writes is kept if the work commits it.

        Without `write` it can only read, where the database can be told so.
        """
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            return await self._do(work, write=write)
        except TooMuch as error:
            raise SqlError(str(error)) from error
        except DBAPIError as error:
            raise SqlError(self._told(error.orig or error)) from error
        except SQLAlchemyError as error:
            raise SqlError(str(error)[:_SAID]) from error
        except OSError as error:  # among them a time-out
            if isinstance(error, TimeoutError):
                raise SqlError(late(self.seconds)) from error
            raise SqlError(f"the database cannot be reached: {error}") from error

    @abstractmethod
    async def _do(self, work: Work[T], *, write: bool) -> T: ...

    def _told(self, error: BaseException) -> str:
        return _said(error)


class PostgresDatabase(EngineDatabase):
    """Read a PostgreSQL database in a transaction that only reads and that no statement can leave.

    What does not write it lets through: a statement may end other sessions of its role, for one.

    superuser: lets a role be used that can reach beyond the database.
    """

    def __init__(self, url: URL, *, write: bool, seconds: float, superuser: bool) -> None:
        super().__init__(url, write=write, seconds=seconds)
        self._superuser = superuser

    async def _do(self, work: Work[T], *, write: bool) -> T:
        engine = self._engine
        from asyncpg import InterfaceError, PostgresError

        try:
            with anyio.fail_after(self.seconds + _GRACE):  # a statement may raise the server's own limits
                async with engine.connect() as connection:
                    await connection.execution_options(postgresql_readonly=not write)
                    return await connection.run_sync(self._work, work)
        except (PostgresError, InterfaceError) as error:  # of rows that are streamed: SQLAlchemy lets those through
            raise SqlError(self._told(error)) from error

    def _work(self, connection: Connection, work: Work[T]) -> T:
        connection.exec_driver_sql(_BOUNDS.format(int(self.seconds * 1000)))
        # Once the transaction has read anything, it can no longer be made one that writes.
        powerful = connection.exec_driver_sql(_POWERFUL).scalar()
        if powerful is not None and not self._superuser:
            raise DefinitionError(
                f"the database's user is, or may become, {powerful}, and could end others' sessions, or reach files "
                "and programs of its machine: use one that may only read what is needed, or pass superuser=True"
            )
        return work(connection)

    def _tables(self, connection: Connection) -> list[list[str]]:
        tables: dict[str, list[str]] = {}
        for table, line in connection.exec_driver_sql(_TABLES):
            tables.setdefault(table, [table]).append(line)
        return list(tables.values())

    @cached_property
    def _engine(self) -> AsyncEngine:
        return _async_engine(self.url.set(drivername="postgresql+asyncpg"), {"timeout": self.seconds})

    def _told(self, error: BaseException) -> str:
        reason = _said(error.__cause__ or error)
        if "statement timeout" in reason:
            return late(self.seconds)
        if "read-only transaction" in reason:
            return f"{reason}: {self.refusal}"
        return reason


class OtherDatabase(EngineDatabase):
    """Read and write any other database that SQLAlchemy has a driver for; only the step's time is bounded."""

    async def _do(self, work: Work[T], *, write: bool) -> T:
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


def late(seconds: float) -> str:
    """Say that a statement took too long."""
    return f"the statement took longer than {seconds:g} s: ask for less"
