"""SQL: tools that ask a database, in a way that cannot change it unless that is wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from agentrt import InvalidArguments, Tool
from agentrt_tools.database import Database, SqlError, open_database
from agentrt_tools.excerpt import MOST_CHARACTERS, excerpt, rest

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Inspector

MOST_COLUMNS: Final = 100
_MOST_STATEMENT: Final = 20_000
_MOST_VALUE: Final = 500
_BATCH: Final = 50


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

    Raises `DefinitionError` for a URL that names no database, and without the extra `agentrt[sql]`.
    """
    database = open_database(url, write=write, seconds=seconds, superuser=superuser)
    tools = _Sql(database, rows, most)
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


_CHANGES: Final = "Run one SQL statement, which may change the database, and return its rows."


class _Sql:
    """Hold what the tools of one database share."""

    def __init__(self, database: Database, rows: int, most: int) -> None:
        self._database = database
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

        def ask(connection: Connection) -> str:
            options = {"stream_results": True, "max_row_buffer": _BATCH, "no_parameters": True}
            with connection.exec_driver_sql(statement, execution_options=options) as result:
                answer = self._answer(result, offset)
            if self._database.write and not offset:  # who reads on does not change anything once more
                connection.commit()
            return answer

        return await self._database.do(ask)

    def _answer(self, result: CursorResult[Any], offset: int) -> str:
        """Write the rows, as many as fit; the others are not even fetched."""
        if not result.returns_rows:
            return "done" if result.rowcount < 0 else f"done: {result.rowcount:,} rows"
        columns = list(result.keys())
        if len(columns) > MOST_COLUMNS:
            raise SqlError(
                f"the statement returns {len(columns):,} columns, at most {MOST_COLUMNS}: name those you need"
            )
        lines, size = [_line(columns)], 0
        for number, row in enumerate(self._fetched(result)):
            if number < offset:
                continue
            line = _line(row)
            size += len(line) + 1
            if number - offset >= self._rows or (size > self._most and number > offset):
                return "\n".join([*lines, rest("more rows", "offset", number)])
            lines.append(line)
        return "\n".join(lines if len(lines) > 1 else [*lines, "(no rows)" if not offset else "(no more rows)"])

    def _fetched(self, result: CursorResult[Any]) -> Iterator[Sequence[Any]]:
        ends = time.monotonic() + self._database.seconds
        while batch := result.fetchmany(_BATCH):
            yield from batch
            if time.monotonic() > ends:
                raise SqlError(f"the rows took longer than {self._database.seconds:g} s: ask for less")

    async def schema(self, table: str = "", start: int = 0) -> str:
        """Return the tables of the database, with their columns, types and keys.

        Args:
            table: Only the tables whose name holds this text.
            start: Where to go on reading a long answer.
        """

        def look(connection: Connection) -> str:
            from sqlalchemy import inspect

            wanted = table.lower()
            return "\n".join(line for one in _tables(inspect(connection)) for line in one if wanted in one[0].lower())

        return excerpt(await self._database.do(look) or "(no such tables)", start, self._most)


def _line(values: Sequence[Any]) -> str:
    return " | ".join(_shown(value) for value in values)


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value):,} bytes)"
    text = str(value)
    if len(text) > _MOST_VALUE:
        text = f"{text[:_MOST_VALUE]}… ({len(text):,} characters)"
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _tables(inspector: Inspector) -> Iterator[list[str]]:
    """Yield the lines of each table: its name, then its columns."""
    from sqlalchemy.engine.reflection import ObjectKind

    for schema in _schemas(inspector):
        columns = inspector.get_multi_columns(schema=schema, kind=ObjectKind.ANY)
        primary = inspector.get_multi_pk_constraint(schema=schema, kind=ObjectKind.ANY)
        foreign = inspector.get_multi_foreign_keys(schema=schema, kind=ObjectKind.ANY)
        for key in sorted(columns, key=lambda key: key[1]):
            keys = set(primary[key]["constrained_columns"]) if key in primary else set[str]()
            links = {
                own: f"{one['referred_table']}.{other}"
                for one in foreign.get(key, ())
                for own, other in zip(one["constrained_columns"], one["referred_columns"], strict=False)
            }
            yield [".".join(filter(None, key)), *(_column(c, keys, links) for c in columns[key])]


def _schemas(inspector: Inspector) -> list[str | None]:
    """Return the schemas users have made, the default one without a name."""
    if inspector.dialect.name != "postgresql":
        return [None]
    default = inspector.default_schema_name
    return [None, *(s for s in inspector.get_schema_names() if s not in {default, "information_schema"})]


def _column(column: Any, keys: set[str], links: dict[str, str]) -> str:
    name = column["name"]
    notes = [" primary key" * (name in keys), " not null" * (not column["nullable"] and name not in keys)]
    return f"  {name} {column['type']}{''.join(notes)}{f' → {links[name]}' if name in links else ''}"
