"""SQL: what a database says, in bounded time and space, and that asking it changes nothing."""

from __future__ import annotations

import importlib
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import make_url

from agentrt import Agent, DefinitionError, InvalidArguments, ModelRequest, run
from agentrt.messages import ToolMessage
from agentrt.testing import FunctionModel, call
from agentrt.tool import tool_spec
from agentrt_tools import sql
from agentrt_tools.database import OtherDatabase, SqlError
from agentrt_tools.rows import Wanted
from agentrt_tools.sqlite import SqliteDatabase
from agentrt_tools.sqlite_worker import connected

sqlite_module = importlib.import_module("agentrt_tools.sqlite")
pytestmark = pytest.mark.anyio
HOTELS = """
CREATE TABLE towns (id INTEGER PRIMARY KEY, name VARCHAR(80) NOT NULL);
CREATE TABLE hotels (name TEXT, nights INTEGER, town INTEGER REFERENCES towns (id), photo BLOB);
CREATE INDEX by_name ON hotels (name);
CREATE VIEW cheap AS SELECT name FROM hotels;
INSERT INTO towns VALUES (1, 'Dorrel');
INSERT INTO hotels VALUES ('Zura Inn', 74, 1, x'0102'), ('Harbour', NULL, 1, NULL), ('Old
Mill', 40, 1, NULL);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "hotels.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(HOTELS)
    return path


def held(folder: Path) -> dict[str, bytes]:
    """Return all that is in a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


async def query(path: Path, statement: str, offset: int = 0, **options: Any) -> str:
    ask, _ = sql(f"sqlite:///{path}", **options)
    answer: str = await ask(statement, offset)
    return answer


async def test_rows_come_as_lines(path: Path) -> None:
    """With the columns first; NULL, bytes and line ends in a form of their own."""
    assert await query(path, "SELECT name, nights, photo FROM hotels ORDER BY name") == (
        "name | nights | photo\nHarbour | NULL | NULL\nOld\\nMill | 40 | NULL\nZura Inn | 74 | (2 bytes)"
    )
    assert await query(path, "SELECT name FROM hotels WHERE nights > 99") == "name\n(no rows)"
    assert await query(path, "SELECT ':x', '100%', name FROM hotels WHERE name LIKE 'Z%'") == (
        "':x' | '100%' | name\n:x | 100% | Zura Inn"
    )
    long = await query(path, "SELECT replace(hex(zeroblob(1000)), '0', 'x')")
    assert long.endswith("x… (2,000 characters: substr(replace(hex(zeroblob(1000)), '0', 'x'), 501, 500) goes on)")
    assert len(long) < 700
    text = ", ".join(f"word {n}" for n in range(200))
    first = await query(path, f"SELECT '{text}' AS words")
    assert first == f"words\n{text[:500]}… ({len(text):,} characters: substr(words, 501, 500) goes on)"
    more = await query(path, f"SELECT substr(words, 501, 500) FROM (SELECT '{text}' AS words)")
    assert more.partition("\n")[2] == text[500:1000]


async def test_more_rows_are_had_by_an_offset(path: Path) -> None:
    """Where there are too many, or too many characters."""
    ordered = "SELECT nights FROM hotels ORDER BY nights"
    assert await query(path, ordered, rows=2) == "nights\nNULL\n40\n… more rows; pass offset=2 to go on"
    assert await query(path, ordered, 2, rows=2) == "nights\n74"
    assert await query(path, ordered, 3) == "nights\n(no more rows)"
    assert await query(path, ordered, most=15) == "nights\nNULL\n40\n… more rows; pass offset=2 to go on"
    wide = await query(path, "SELECT " + ", ".join(f"hex(zeroblob(400)) AS column_number_{n}" for n in range(100)))
    assert 7_000 < len(wide) < 8_100
    assert wide.endswith("000…\n(values that end with … are cut: ask for fewer columns to see more of each)")
    assert await query(path, "SELECT 'a long value'", most=3) == "'a long value'\na long value"
    with pytest.raises(InvalidArguments, match="offset is 0 or more"):
        await query(path, ordered, -1)


NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n {0}) "


async def test_a_million_rows_are_not_fetched(path: Path) -> None:
    """Only as many as are returned: here there is no last one."""
    answer = await query(path, NUMBERS.format("") + "SELECT x FROM n", rows=3)
    assert answer == "x\n1\n2\n3\n… more rows; pass offset=3 to go on"


@pytest.mark.parametrize(
    "statement",
    [
        NUMBERS.format("") + "SELECT count(*) FROM n",
        NUMBERS.format("") + "SELECT x FROM n WHERE x < 0",
        NUMBERS.format("") + "SELECT x FROM n ORDER BY -x",
        "SELECT count(*) FROM " + ", ".join(f"(SELECT 1 UNION ALL SELECT 2) AS t{i}" for i in range(40)),
    ],
)
async def test_what_never_ends_is_stopped(path: Path, statement: str) -> None:
    """By the database, and the thread with it."""
    with pytest.raises(SqlError, match=r"took longer than 0\.1 s: ask for less"):
        await query(path, statement, seconds=0.1)


async def test_rows_without_end_are_stopped(path: Path) -> None:
    """Where an offset leaves them all out."""
    with pytest.raises(SqlError, match=r"took longer than 0\.1 s: ask for less"):
        await query(path, NUMBERS.format("") + "SELECT x FROM n", 10**12, seconds=0.1)


SLOW = "SELECT sum(instr(hex(zeroblob(499000) || x), hex(zeroblob(400000)) || '1')) FROM n"


@pytest.mark.parametrize(
    "statement", [NUMBERS.format("LIMIT 1000") + SLOW, NUMBERS.format("") + "SELECT max(x) FROM n"]
)
async def test_one_function_on_one_value_is_stopped(
    path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its process, which the database itself could not interrupt."""
    monkeypatch.setattr("agentrt_tools.sqlite._GRACE", 0.2)
    before = children()
    with pytest.raises(SqlError, match=r"took longer than 0\.1 s: ask for less"):
        await query(path, statement, seconds=0.1)
    assert children() <= before


async def test_a_process_that_is_slow_to_start_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with much to do; a long statement reaches it, too."""
    monkeypatch.setattr(sqlite_module, "_START", "import time; time.sleep(0.1)\n" + sqlite_module._START)
    long = "SELECT '" + "é" * 19_000 + "' AS x"
    assert (await query(path, long, seconds=20)).endswith("… (19,000 characters: substr(x, 501, 500) goes on)")


@pytest.mark.parametrize("write", [True, False])
async def test_a_cancelled_query_ends(path: Path, write: bool) -> None:
    """No process goes on by itself."""
    before = children()
    with anyio.move_on_after(0.1) as scope:
        await query(path, NUMBERS.format("") + "SELECT count(*) FROM n", seconds=60, write=write)
    assert scope.cancelled_caught
    assert children() <= before


async def test_a_statement_that_is_stopped_has_changed_nothing(path: Path) -> None:
    """It is undone, and the file can be read at once."""
    adding = f"INSERT INTO towns (name) {NUMBERS.format('')} SELECT x FROM n"
    with pytest.raises(SqlError, match="ask for less"):
        await query(path, adding, seconds=0.2, write=True)
    assert await query(path, "SELECT count(*) AS n FROM towns") == "n\n1"


def children() -> set[str]:
    """Return the processes that this one has started, in whichever thread."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


WRITES = [
    "INSERT INTO towns VALUES (2, 'X')",
    "UPDATE hotels SET nights = 1",
    "DELETE FROM hotels",
    "REPLACE INTO towns VALUES (1, 'X')",
    "WITH x AS (SELECT 1) INSERT INTO towns SELECT 2, 'x'",
    "INSERT INTO towns VALUES (2, 'X') RETURNING id",
    "DROP TABLE hotels",
    "ALTER TABLE hotels ADD x",
    "CREATE TABLE t (x)",
    "CREATE TEMP TABLE t (x)",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "DROP INDEX by_name",
    "CREATE INDEX i ON hotels (name)",
    "CREATE VIRTUAL TABLE f USING fts5 (x)",
    "CREATE TRIGGER t AFTER INSERT ON towns BEGIN SELECT 1; END",
    "VACUUM",
    "REINDEX",
    "ANALYZE",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "SAVEPOINT s",
    "EXPLAIN INSERT INTO towns VALUES (2, 'X')",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA user_version = 7",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA application_id = 7",
    "SELECT * FROM pragma_journal_mode('delete')",
]
_REFUSED = r"this tool only reads|no such table: pragma_journal_mode|prohibited|a transaction of its own"
LEADING_OUT = [
    "ATTACH DATABASE '{folder}/other.db' AS o",
    "VACUUM INTO '{folder}/other.db'",
    "SELECT load_extension('x')",
    "SELECT load_extension('x', 'y')",
    "PRAGMA temp_store_directory = '{folder}'",
    "PRAGMA data_store_directory = '{folder}'",
]


@pytest.mark.parametrize("statement", [*WRITES, *LEADING_OUT])
async def test_nothing_is_written(path: Path, statement: str) -> None:
    """By no statement: the file and its folder are what they were."""
    before = held(path.parent)
    with pytest.raises(SqlError, match=_REFUSED):
        await query(path, statement.format(folder=path.parent))
    assert held(path.parent) == before


async def test_a_file_that_is_only_read_is_locked_thrice(path: Path) -> None:
    """It is opened to be read, its connection does not write, and statements that would are not even compiled."""
    with closing(connected(f"{path.as_uri()}?mode=ro", write=False, seconds=5)) as connection:
        connection.set_authorizer(None)
        with pytest.raises(sqlite3.OperationalError, match="attempt to write a readonly database"):
            connection.execute("CREATE TEMP TABLE t (x)")  # which would not be in the file
        connection.execute("PRAGMA query_only = OFF")
        with pytest.raises(sqlite3.OperationalError, match="attempt to write a readonly database"):
            connection.execute("DELETE FROM towns")


@pytest.mark.parametrize("statement", LEADING_OUT)
async def test_a_statement_that_may_write_stays_in_the_database(path: Path, statement: str) -> None:
    """It neither opens other files nor loads code."""
    with pytest.raises(SqlError, match=r"it would leave the database|prohibited|a transaction of its own"):
        await query(path, statement.format(folder=path.parent), write=True)
    assert not (path.parent / "other.db").exists()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT 1; DROP TABLE hotels", "one statement at a time"),
        ("COMMIT; DROP TABLE hotels", "COMMIT is not run: each statement is a transaction of its own"),
        (" -- why\n/* none */ begin", "BEGIN is not run"),
        ("", "the statement is empty: write one, like SELECT"),
        (" ; -- nothing\n/* at * all", "the statement is empty"),
        ("SELECT x FROM hotels", "no such column: x: sql_schema returns the tables and columns"),
        ("SELECT name FROM hotel", "no such table: hotel: sql_schema returns the tables and columns"),
        ("SELECT fts3_tokenizer('simple')", "fts3_tokenizer: this tool only reads"),
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("SELECT 'a' REGEXP '(a+)+b'", "REGEXP: use LIKE or GLOB"),
        ("SELECT zeroblob(1000000000)", "string or blob too big"),
        (NUMBERS.format("LIMIT 300000") + "SELECT group_concat(x) FROM n", "string or blob too big"),
        ("SELECT * FROM (SELECT 1" + ", 1" * 100 + ")", "returns 101 columns, at most 100"),
    ],
)
async def test_what_goes_wrong_is_told(path: Path, statement: str, reason: str) -> None:
    """In the database's words."""
    with pytest.raises(SqlError, match=reason):
        await query(path, statement)


async def test_patterns_take_no_time(path: Path) -> None:
    """LIKE and GLOB, which nothing interrupts, do not try all ways, which would take more than their time."""
    text = "replace(hex(zeroblob(100000)), '0', 'a')"
    await query(path, f"SELECT {text} LIKE '{'%a' * 50}%b', {text} GLOB '{'*a' * 50}*b'")


async def test_statements_may_write_if_that_is_wanted(path: Path) -> None:
    """Each is kept when it is done."""
    assert await query(path, "INSERT INTO towns VALUES (2, 'X')", write=True) == "done: 1 rows"
    more = "INSERT INTO towns VALUES (3, 'Y'), (4, 'Z') RETURNING id"
    answer = await query(path, more, write=True, rows=1)
    assert answer == "id\n3\n… more rows; pass offset=1 to go on if the statement only reads"
    assert await query(path, "SELECT id FROM towns", 3, write=True) == "id\n4"
    with pytest.raises(SqlError, match="UNIQUE constraint failed"):
        await query(path, "INSERT INTO towns VALUES (1, 'X')", write=True)


ADDING = [
    "INSERT INTO towns (name) SELECT 'X' FROM hotels RETURNING id",
    "WITH s AS (SELECT name FROM hotels) INSERT INTO towns (name) SELECT name FROM s RETURNING id",
    "/* go */ WITH s AS (SELECT 1) UPDATE towns SET name = name || '!' RETURNING name",
    "REPLACE INTO towns (name) SELECT name FROM hotels RETURNING id",
    "WITH s AS (SELECT 1) DELETE FROM hotels RETURNING name",
    "CREATE TABLE t (x)",
]


@pytest.mark.parametrize("statement", ADDING)
async def test_who_reads_on_changes_nothing(path: Path, statement: str) -> None:
    """Whatever the statement looks like: done once it is kept, and is not done again, nor said to be."""
    await query(path, "INSERT INTO towns (name) VALUES ('Y'), ('Z')", write=True)
    before = await kept(path)
    await query(path, statement, write=True, rows=1)
    once = await kept(path)
    assert once != before
    with pytest.raises(SqlError, match="offset= is for statements that read; what one has changed can be read with a"):
        await query(path, statement.replace("TABLE t", "TABLE u"), 1, write=True, rows=1)
    assert await kept(path) == once


async def kept(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("statement", ["\ufeffCOMMIT", "\ufeffSAVEPOINT s", "\ufeffBEGIN"])
async def test_a_transaction_is_left_by_no_statement(path: Path, statement: str) -> None:
    """Also by one that is not seen in its text: the database knows what it is."""
    with pytest.raises(SqlError, match="it would leave the database or its transaction"):
        await query(path, statement, write=True)


async def test_a_statement_that_returns_too_much_has_changed_nothing(path: Path) -> None:
    """What cannot be told is not kept."""
    columns = ", ".join(["id"] * 101)
    with pytest.raises(SqlError, match="returns 101 columns"):
        await query(path, f"WITH s AS (SELECT 1) INSERT INTO towns (name) VALUES ('X') RETURNING {columns}", write=True)
    assert await query(path, "SELECT count(*) AS n FROM towns") == "n\n1"


async def test_the_schema(path: Path) -> None:
    """Tables and views, with types, keys and what they refer to."""
    _, schema = sql(f"sqlite:///{path}")
    assert await schema() == (
        "cheap\n  name TEXT\n"
        "hotels\n  name TEXT\n  nights INTEGER\n  town INTEGER → towns.id\n  photo BLOB\n"
        "towns\n  id INTEGER primary key\n  name VARCHAR(80) not null"
    )
    assert await schema("TOWN") == "towns\n  id INTEGER primary key\n  name VARCHAR(80) not null"
    assert await schema("x") == "(no such tables)"
    _, small = sql(f"sqlite:///{path}", most=20)
    assert (await small()).endswith("more characters; pass start=18 to go on")


async def test_a_file_in_use_is_read(path: Path) -> None:
    """One that others write to at the same time."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO towns VALUES (2, 'X')")
        assert await query(path, "SELECT count(*) AS n FROM towns") == "n\n1"
        connection.commit()
        assert await query(path, "SELECT count(*) AS n FROM towns") == "n\n2"


async def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """Where the tool is made; one that others may have made until it is written to is not made, either."""
    with pytest.raises(DefinitionError, match=r"there is no file .*none\.db: make it first"):
        sql(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(SqlError, match="unable to open database file"):
        await query(tmp_path / "none.db", "SELECT 1", write=True)
    assert held(tmp_path) == {}


VIRTUAL = """
CREATE VIRTUAL TABLE words USING fts5 (text); INSERT INTO words VALUES ('the old mill');
CREATE VIRTUAL TABLE boxes USING rtree (id, low, high);
PRAGMA writable_schema = ON;
INSERT INTO sqlite_schema VALUES ('table', 'odd', 'odd', 0,
    'CREATE VIRTUAL TABLE odd USING none (x)');
"""


async def test_virtual_tables(path: Path) -> None:
    """Are found and asked where their module is here; one without it does not hide the others."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VIRTUAL)
    _, schema = sql(f"sqlite:///{path}")
    told = await schema()
    assert "words\n  text" in told
    assert "towns\n  id INTEGER primary key" in told
    assert "words_data" not in told
    assert "odd\n  (its columns cannot be read, nor can the table: no such module: none)" in told
    assert await query(path, "SELECT text FROM words WHERE words MATCH 'mill'") == "text\nthe old mill"
    assert await query(path, "SELECT count(*) AS n FROM boxes") == "n\n0"
    with pytest.raises(
        SqlError, match="no such module: none: this virtual table cannot be opened here; ask the other tables"
    ):
        await query(path, "SELECT * FROM odd")
    with pytest.raises(SqlError, match="this tool only reads"):
        await query(path, "INSERT INTO words VALUES ('x')")
    assert await query(path, "INSERT INTO words VALUES ('a new mill')", write=True) == "done: 1 rows"
    assert await query(path, "SELECT count(*) AS n FROM words WHERE words MATCH 'mill'") == "n\n2"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("hotels.db", "write a URL like sqlite:///PATH"),
        ("sqlite://", "name the file"),
        ("sqlite:///:memory:", "name the file"),
        ("sqlite:///x.db?mode=rw", "name the file"),
        ("mysql+pymysql://me@host/db", "mysql cannot be kept from being written to here: pass write=True"),
    ],
)
def test_a_url_of_no_use_is_told(url: str, reason: str) -> None:
    """Where it is given."""
    with pytest.raises(DefinitionError, match=reason):
        sql(url)


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(DefinitionError, match=r"pip install 'agentrt\[sql\]'"):
        sql("sqlite:///x.db")


async def test_a_path_is_a_path(tmp_path: Path) -> None:
    """Whatever is in it."""
    odd = tmp_path / "a?mode=rw#b %41.db"
    with closing(sqlite3.connect(odd)) as connection:
        connection.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    database = SqliteDatabase(odd, write=False, seconds=5)
    assert (await database.rows("SELECT x FROM t", Wanted(0, 10, 100, 5))).lines == ["x", "1"]


def test_what_the_tools_are(path: Path) -> None:
    """Names, effects, trust, and what a model is told of them."""
    reading = sql(f"sqlite:///{path}")
    assert [(t.name, t.effect, t.untrusted) for t in reading] == [
        ("sql.query", "read", True),
        ("sql.schema", "read", True),
    ]
    writing = sql(f"sqlite:///{path}", write=True, name="hotels", untrusted=False)
    assert [(t.name, t.effect, t.untrusted) for t in writing] == [
        ("hotels.query", "unsafe", False),
        ("hotels.schema", "read", False),
    ]
    assert tool_spec(reading[0]).description == "Run one SQL statement that reads, and return its rows."
    assert "may change the database" in tool_spec(writing[0]).description
    assert all(p["description"] for t in reading for p in tool_spec(t).parameters["properties"].values())


async def test_an_agent_asks_a_database(path: Path) -> None:
    """In virtual time, too; what is refused is told to it."""

    def say(request: ModelRequest) -> Any:
        told = [m.text for m in request.messages if isinstance(m, ToolMessage)]
        asked = [call("sql_query", statement="SELECT 7 AS x"), call("sql_query", statement="DROP TABLE hotels")]
        return " | ".join(told) if told else asked

    result = await run(Agent("clerk", model=FunctionModel(say), tools=sql(f"sqlite:///{path}")), "go")
    assert "x\n7\n" in result.output
    assert "SqlError: not authorized: this tool only reads" in result.output


@pytest.mark.parametrize("driver", ["mysql+aiomysql", "mysql+pymysql"])
async def test_a_missing_driver_is_told(driver: str) -> None:
    """To the developer, not to the model."""
    ask, _ = sql(f"{driver}://me@localhost/db", write=True)
    with pytest.raises(DefinitionError, match=r"needs a driver: No module named"):
        await ask("SELECT 1")


async def test_other_databases_may_be_written_to(path: Path) -> None:
    """Through SQLAlchemy's drivers, in a thread."""
    database = OtherDatabase(make_url(f"sqlite:///{path}"), write=True, seconds=5)
    assert (await database.rows("SELECT count(*) AS n FROM towns", Wanted(0, 10, 100, 5))).lines == ["n", "1"]
    assert ["towns", "  id INTEGER", "  name VARCHAR(80)"] in await database.tables()
