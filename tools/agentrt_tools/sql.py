"""SQL: tools that ask a database, in a way that cannot change it unless that is wanted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agentrt import DefinitionError, InvalidArguments, Tool
from agentrt.messages import tool_name
from agentrt_tools.database import Database, OtherDatabase, PostgresDatabase, SqlError
from agentrt_tools.excerpt import MOST_CHARACTERS, excerpt, rest
from agentrt_tools.rows import Wanted
from agentrt_tools.sqlite import SqliteDatabase

_MOST_STATEMENT: Final = 20_000
_BLANK: Final = re.compile(r"(?:[\s;]|--[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/|$))*")
"""What stands before a statement and is none: blanks and comments."""
_DIVIDES: Final = re.compile(r"(begin|start\s+transaction|commit|end|rollback|savepoint|release)\b", re.IGNORECASE)
_UNKNOWN: Final = re.compile(r"^no such (table|column)|^(relation|column) .* does not exist")
_CHANGES: Final = "Run one SQL statement, which may change the database, and return its rows."


def sql(
    url: str,
    *,
    write: bool = False,
    rows: int = 100,
    seconds: float = 10.0,
    name: str = "sql",
    untrusted: bool = True,
    superuser: bool = False,
    most: int = MOST_CHARACTERS,
) -> list[Tool[..., str]]:
    """Return the tools `sql.query` and `sql.schema` of a database, `sqlite:///PATH` or `postgresql://USER@HOST/NAME`.

    write: lets statements change it; else the database itself refuses that. Other databases than those two have to be
    opened with it. rows, most: how many rows and characters a call returns. seconds: how long a statement may take.
    name: what the tools are called, for agents with several databases. untrusted: whether what it holds is from the
    outside world. superuser: lets a PostgreSQL role be used that can reach beyond the database.

    A PostgreSQL role may end its own sessions, those of other programs too (`pg_terminate_backend`), in a statement
    that only reads: give it a role of its own.

    Raises `DefinitionError` for a URL that names no database, and without the extra `agentrt[sql]`.
    """
    database = _opened(url, write=write, seconds=seconds, superuser=superuser)
    tools = _Sql(database, name, rows, most)
    return [
        Tool(
            tools.query,
            name=f"{name}.query",
            description=_CHANGES if write else None,
            effect="unsafe" if write else "read",
            timeout=seconds + 5,
            untrusted=untrusted,
        ),
        Tool(tools.schema, name=f"{name}.schema", effect="read", timeout=seconds + 5, untrusted=untrusted),
    ]


class _Sql:
    """Hold what the tools of one database share."""

    def __init__(self, database: Database, name: str, rows: int, most: int) -> None:
        self._database = database
        self._name = name
        self._rows = rows
        self._most = most

    async def query(self, statement: str, offset: int = 0) -> str:
        """Run one SQL statement that reads, and return its rows.

        Args:
            statement: One statement, like SELECT name FROM hotels ORDER BY name.
            offset: How many rows to leave out, to go on reading; needs an ORDER BY.
        """
        if offset < 0 or len(statement) > _MOST_STATEMENT or "\0" in statement:
            raise InvalidArguments(f"offset is 0 or more, statement has up to {_MOST_STATEMENT:,} characters, no NUL")
        _check(statement)
        text = statement.encode(errors="replace").decode()
        try:
            rows = await self._database.rows(text, Wanted(offset, self._rows, self._most, self._database.seconds))
        except SqlError as error:
            if _UNKNOWN.search(str(error)):
                raise SqlError(f"{error}: {tool_name(self._name)}_schema returns the tables and columns") from error
            raise
        if rows.more is None:
            return "\n".join(rows.lines)
        only = " if the statement only reads" if self._database.write else ""
        return "\n".join([*rows.lines, f"{rest('more rows', 'offset', rows.more)}{only}"])

    async def schema(self, table: str = "", start: int = 0) -> str:
        """Return the tables of the database, with their columns, types and keys.

        Args:
            table: Only the tables whose name holds this text.
            start: Where to go on reading a long answer.
        """
        wanted = table.lower()
        lines = [line for one in await self._database.tables() for line in one if wanted in one[0].lower()]
        return excerpt("\n".join(lines) or "(no such tables)", start, self._most)


def _check(statement: str) -> None:
    """Raise `SqlError` for what is no statement, or would divide statements that are done one by one."""
    word = _BLANK.sub("", statement, count=1)
    if not word:
        raise SqlError("the statement is empty: write one, like SELECT name FROM hotels ORDER BY name")
    if (divides := _DIVIDES.match(word)) is not None:
        raise SqlError(f"{divides[0].upper()} is not run: each statement is a transaction of its own")


def _opened(url: str, *, write: bool, seconds: float, superuser: bool) -> Database:
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
        if not write and not Path(parsed.database).is_file():
            raise DefinitionError(f"sql: there is no file {parsed.database}: make it first, or name another")
        return SqliteDatabase(parsed.database, write=write, seconds=seconds)
    if kind in {"postgresql", "postgres"}:
        return PostgresDatabase(parsed, write=write, seconds=seconds, superuser=superuser)
    if not write:
        raise DefinitionError(
            f"sql: {kind} cannot be kept from being written to here: pass write=True, with a user that may only read"
        )
    return OtherDatabase(parsed, write=write, seconds=seconds)
