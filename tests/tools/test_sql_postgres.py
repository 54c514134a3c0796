"""SQL on PostgreSQL: a transaction that only reads and that no statement leaves, and a role that reaches no further."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from sqlalchemy import make_url

from agentrt import DefinitionError
from agentrt_tools import sql
from agentrt_tools.database import OtherDatabase, SqlError
from tests.stores.postgresql import Server

pytestmark = pytest.mark.anyio
SETTING_UP = """
CREATE TABLE towns (id INTEGER PRIMARY KEY, name VARCHAR(80) NOT NULL);
CREATE TABLE hotels (name TEXT, nights NUMERIC(9, 2), town INTEGER REFERENCES towns (id), photo BYTEA);
INSERT INTO towns VALUES (1, 'Dorrel');
INSERT INTO hotels VALUES ('Zura Inn', 74, 1, '\\x0102'), ('Harbour', NULL, 1, NULL);
CREATE SEQUENCE numbers;
CREATE FUNCTION add_town() RETURNS integer LANGUAGE sql AS 'INSERT INTO towns VALUES (9, ''X'') RETURNING id';
CREATE TYPE mood AS ENUM ('calm', 'glad'); CREATE TYPE pair AS (x INTEGER, y TEXT);
CREATE TABLE odd (kind mood, pair pair, pairs pair[], place point, page xml, "Day" int4range NOT NULL);
CREATE SCHEMA archive; CREATE TABLE archive.old (x INTEGER);
CREATE ROLE reader LOGIN; CREATE ROLE owner LOGIN; CREATE ROLE risen LOGIN; CREATE ROLE files LOGIN;
CREATE ROLE ending LOGIN; GRANT pg_signal_backend TO ending;
GRANT postgres TO risen; ALTER ROLE risen NOINHERIT; GRANT pg_read_server_files TO files;
GRANT ALL ON ALL TABLES IN SCHEMA public TO reader; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO reader;
GRANT ALL ON SCHEMA public TO reader; GRANT USAGE ON SCHEMA archive TO reader;
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as started:
        started.sql(SETTING_UP)
        yield started


def url(server: Server, role: str = "reader") -> str:
    return server.url.replace("postgres@", f"{role}@", 1)


async def query(server: Server, statement: str, offset: int = 0, *, role: str = "reader", **options: Any) -> str:
    ask, _ = sql(url(server, role), **options)
    answer: str = await ask(statement, offset)
    return answer


async def test_rows_come_as_lines(server: Server) -> None:
    """As from any database; also of statements that are no SELECT."""
    assert await query(server, "SELECT name, nights, photo FROM hotels ORDER BY name") == (
        "name | nights | photo\nHarbour | NULL | NULL\nZura Inn | 74.00 | (2 bytes)"
    )
    assert (
        await query(server, "SELECT ':x' AS a, '100%' AS b, '$1' AS c WHERE 'x' LIKE '%x'")
        == "a | b | c\n:x | 100% | $1"
    )
    assert (await query(server, "EXPLAIN SELECT 1")).startswith("QUERY PLAN\nResult")
    assert await query(server, "SHOW transaction_read_only") == "transaction_read_only\non"
    assert await query(server, "VALUES (1), (2), (3)", rows=2) == "column1\n1\n2\n… more rows; pass offset=2 to go on"
    many = await query(server, "SELECT array_agg(n) AS many FROM generate_series(1, 500) n")
    assert many.endswith("characters: read it in parts, with substr(CAST(many AS TEXT), 1, 500))")
    parts = await query(server, f"SELECT {many.partition('with ')[2][:-1]} FROM (SELECT ARRAY[1, 2] AS many) x")
    assert parts == "substr\n{1,2}"
    assert await query(server, "VALUES (1), (2), (3)", 2, rows=2) == "column1\n3"


async def test_a_million_rows_are_not_fetched(server: Server) -> None:
    """Only as many as are returned: here there are too many to come to an end."""
    answer = await query(server, "SELECT generate_series(1, 1000000000000) AS x", rows=2, seconds=20)
    assert answer == "x\n1\n2\n… more rows; pass offset=2 to go on"
    rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    assert await query(server, rows, 60, rows=1) == "x\n61\n… more rows; pass offset=61 to go on"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_sleep(60)",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
        "SELECT pg_sleep(0.05) FROM generate_series(1, 100000)",
        "DO $$ BEGIN PERFORM set_config('statement_timeout', '0', false); LOOP END LOOP; END $$",
        "SELECT CASE WHEN x > 60 THEN pg_sleep(60)::text ELSE set_config('statement_timeout', '0', true) END "
        "FROM generate_series(1, 100) AS x",
    ],
)
async def test_what_never_ends_is_stopped(server: Server, statement: str) -> None:
    """On the server."""
    with pytest.raises(SqlError, match=r"took longer than 0\.2 s: ask for less"):
        await query(server, statement, 10**9, seconds=0.2)
    await idle(server)


async def test_a_cancelled_query_ends(server: Server) -> None:
    """On the server, too."""
    with anyio.move_on_after(0.3) as scope:
        await query(server, "SELECT pg_sleep(60)", seconds=60)
    assert scope.cancelled_caught
    await idle(server)


async def idle(server: Server) -> None:
    """Wait until no connection is left."""
    with anyio.fail_after(20):
        while server.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'") != "0":  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.02)


WRITES = [
    "INSERT INTO towns VALUES (2, 'X')",
    "WITH x AS (INSERT INTO towns VALUES (2, 'X') RETURNING id) SELECT * FROM x",
    "UPDATE towns SET name = 'X'",
    "DELETE FROM hotels",
    "TRUNCATE hotels",
    "DROP TABLE hotels",
    "CREATE TABLE t (x INTEGER)",
    "SELECT * INTO t FROM hotels",
    "SELECT add_town()",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 7)",
    "SELECT * FROM towns FOR UPDATE",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_create(0)",
    "EXPLAIN ANALYZE INSERT INTO towns VALUES (2, 'X')",
    "DO $$ BEGIN INSERT INTO towns VALUES (2, 'X'); END $$",
    "DO $$ BEGIN SET TRANSACTION READ WRITE; INSERT INTO towns VALUES (2, 'X'); END $$",
    "DO $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO towns VALUES (2, 'X'); END $$",
    "DO $$ BEGIN SET transaction_read_only = off; INSERT INTO towns VALUES (2, 'X'); END $$",
    "SELECT set_config('transaction_read_only', 'off', false), add_town()",
    "SELECT set_config('default_transaction_read_only', 'off', false), add_town()",
    "COMMIT; DROP TABLE hotels",
    "COMMIT; INSERT INTO towns VALUES (2, 'X')",
    "ROLLBACK; BEGIN; INSERT INTO towns VALUES (2, 'X'); COMMIT",
    "SET TRANSACTION READ WRITE; INSERT INTO towns VALUES (2, 'X')",
    "SELECT 1; INSERT INTO towns VALUES (2, 'X')",
    "PREPARE TRANSACTION 'x'",
    "COPY towns TO PROGRAM 'cat'",
    "COPY towns TO '/tmp/agentrt-towns'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/agentrt-lo')",
    "CREATE EXTENSION dblink",
    "VACUUM",
]
LEAVING = ["COMMIT", "END", "ROLLBACK", "SET TRANSACTION READ WRITE", "SET default_transaction_read_only = off"]


def held(server: Server) -> str:
    return server.sql(
        "SELECT (SELECT string_agg(t::text, ';') FROM towns t), (SELECT count(*) FROM hotels), "
        "(SELECT last_value FROM numbers), (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_largeobject)"
    )


@pytest.mark.parametrize("statement", WRITES)
async def test_nothing_is_written(server: Server, statement: str) -> None:
    """By no statement, though the role may write."""
    before = held(server)
    with pytest.raises(SqlError):
        await query(server, statement)
    assert held(server) == before


@pytest.mark.parametrize("statement", LEAVING)
async def test_no_statement_changes_the_next(server: Server, statement: str) -> None:
    """Whatever it does to its own transaction or session, which end with it."""
    ask, _ = sql(url(server))
    with suppress(SqlError):
        await ask(statement)
    assert await ask("SHOW transaction_read_only") == "transaction_read_only\non"
    with pytest.raises(SqlError, match="cannot execute INSERT in a read-only transaction: this tool only reads"):
        await ask("INSERT INTO towns VALUES (2, 'X')")


@pytest.mark.parametrize("role", ["postgres", "risen", "files", "ending"])
async def test_a_role_that_reaches_further_is_refused(server: Server, role: str) -> None:
    """A superuser, who may become one, who may read the server's files or end sessions; unless that is wanted."""
    with pytest.raises(DefinitionError, match="use one that may only read what is needed, or pass superuser=True"):
        await query(server, "SELECT 1 AS x", role=role)
    assert await query(server, "SELECT 1 AS x", role=role, superuser=True) == "x\n1"
    with pytest.raises(SqlError, match="read-only transaction: this tool only reads"):
        await query(server, "CREATE TABLE t (x INTEGER)", role=role, superuser=True)


async def test_statements_may_write_if_that_is_wanted(server: Server) -> None:
    """Each is kept when it is done; reading on is refused, also where no transaction could undo it."""
    assert await query(server, "INSERT INTO towns VALUES (5, 'X'), (6, 'X')", write=True) == "done"
    more = "INSERT INTO towns SELECT id + 2, name FROM towns WHERE name = 'X' RETURNING id"
    assert (await query(server, more, write=True, rows=1)).endswith(
        "pass offset=1 to go on if the statement only reads"
    )
    with_it = f"WITH x AS ({more.replace('+ 2', '+ 20')}) SELECT * FROM x"
    for statement in (more.replace("+ 2", "+ 20"), with_it, "SELECT nextval('numbers')", "CREATE TABLE t (x int)"):
        with pytest.raises(SqlError, match="read-only transaction: offset= is for statements that read"):
            await query(server, statement, 1, write=True, rows=1)
    assert await query(server, "SELECT count(*) AS n FROM towns") == "n\n5"
    assert await query(server, "DELETE FROM towns WHERE name = 'X'", write=True) == "done"
    with pytest.raises(SqlError, match="cannot insert multiple commands"):
        await query(server, "DELETE FROM towns; DROP TABLE hotels", write=True)


async def test_what_writes_row_by_row_is_done_to_its_end(server: Server) -> None:
    """Also for rows that are not shown; what does not come to its end in time has changed nothing."""
    server.sql(
        "CREATE TABLE notes (x INTEGER); GRANT ALL ON notes TO reader;"
        "CREATE FUNCTION note(x INTEGER) RETURNS integer LANGUAGE sql AS 'INSERT INTO notes VALUES (x) RETURNING x'"
    )
    noting = "SELECT note(x) AS x FROM generate_series(1, 1000) AS x"
    answer = await query(server, noting, write=True, rows=1)
    assert answer == "x\n1\n… more rows; pass offset=1 to go on if the statement only reads"
    assert await query(server, "SELECT count(*) AS n FROM notes") == "n\n1000"
    with pytest.raises(SqlError, match=r"took longer than 0\.2 s"):
        await query(server, noting.replace("1000", "1000000000"), write=True, rows=1, seconds=0.2)
    await idle(server)
    assert await query(server, "SELECT count(*) AS n FROM notes") == "n\n1000"
    server.sql("DROP FUNCTION note; DROP TABLE notes")


async def test_the_schema(server: Server) -> None:
    """Of the default schema, and of others under their names, with whatever types, as statements write them."""
    _, schema = sql(url(server))
    assert await schema() == (
        "hotels\n  name text\n  nights numeric(9,2)\n  town integer → towns.id\n  photo bytea\n"
        "odd\n  kind mood (calm, glad)\n  pair pair\n  pairs pair[]\n  place point\n  page xml\n"
        '  "Day" int4range not null\n'
        "towns\n  id integer primary key\n  name character varying(80) not null\n"
        "archive.old\n  x integer"
    )


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT x FROM hotels", 'column "x" does not exist: sql_schema returns the tables and columns'),
        ("SELECT x FROM hotel", 'relation "hotel" does not exist: sql_schema returns the tables and columns'),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT * FROM archive.old", "permission denied for table old"),
    ],
)
async def test_what_goes_wrong_is_told(server: Server, statement: str, reason: str) -> None:
    """In the database's words alone."""
    with pytest.raises(SqlError, match=f"^{reason}"):
        await query(server, statement)


async def test_a_server_that_is_not_there_is_told() -> None:
    """To the model, too: it may come back."""
    ask, _ = sql("postgresql://me@/db?host=/tmp/agentrt-none")
    with pytest.raises(SqlError, match="the database cannot be reached"):
        await ask("SELECT 1")


async def test_other_databases_may_be_written_to(server: Server) -> None:
    """Through async drivers, too."""
    database = OtherDatabase(make_url(server.url).set(drivername="postgresql+asyncpg"), write=True, seconds=5)
    assert await database.do(lambda c: c.exec_driver_sql("SELECT count(*) FROM towns").scalar()) == 1
