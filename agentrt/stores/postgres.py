"""The journal in PostgreSQL: for many processes and machines. Needs the extra `agentrt[postgres]`, and asyncio.

One task at a time writes, for all that wait, in one transaction. Where the server goes away, whoever writes or reads
waits for it. A transaction whose end nobody was told, since the server did not live to or the task was cancelled, is
tried again under its number, which the database takes once, so that it is neither lost nor done twice.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Final

from agentrt.errors import JournalError
from agentrt.events import Event, QuestionAsked
from agentrt.guidance import Guidance
from agentrt.journal import Note, OpenQuestion, RunSummary
from agentrt.stores.combiner import Combiner
from agentrt.stores.content import StoredRow, guidance_of, hashes, to_events
from agentrt.stores.link import Link, Refused, Server, check_loop, shown
from agentrt.stores.operations import OperatedJournal, Operation, Records, unknown_run
from agentrt.stores.record import (
    COLUMNS,
    QuestionRow,
    RunRow,
    columns,
    writable,
)

SCHEMA_VERSION: Final = 5
"""Of SQLite's tables, and `commits`."""
PATIENCE: Final = 60.0
_LOCK: Final = int.from_bytes(b"agrt")
# Durable even where the default is not to be; and a process that is stopped keeps no run locked.
_SETTINGS: Final = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
SET idle_in_transaction_session_timeout = '15s';
"""
# One call of several statements is one transaction; the lock lets one process at a time make the tables, or bring those
# of an older version up to date.
_SCHEMA: Final = f"""
SELECT pg_advisory_xact_lock({_LOCK});
CREATE SCHEMA IF NOT EXISTS agentrt;
CREATE TABLE IF NOT EXISTS agentrt.schema (version INTEGER NOT NULL);
INSERT INTO agentrt.schema SELECT {SCHEMA_VERSION} WHERE NOT EXISTS (SELECT FROM agentrt.schema);
CREATE TABLE IF NOT EXISTS agentrt.runs (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id    TEXT NOT NULL UNIQUE,
    name      TEXT NOT NULL,
    status    TEXT NOT NULL,
    started   DOUBLE PRECISION NOT NULL,  -- seconds since the epoch
    ended     DOUBLE PRECISION,
    tokens    BIGINT NOT NULL,
    cost      BIGINT NOT NULL,  -- pico-dollars
    target    TEXT,
    parent    TEXT,
    owner     TEXT,  -- who drives it
    until     DOUBLE PRECISION NOT NULL,  -- when the owner's claim ends
    epoch     BIGINT NOT NULL,  -- how often it was claimed
    events    BIGINT NOT NULL,
    questions BIGINT NOT NULL  -- neither answered nor withdrawn
) WITH (fillfactor = 70);
ALTER TABLE agentrt.runs ADD COLUMN IF NOT EXISTS worked DOUBLE PRECISION NOT NULL DEFAULT 0;  -- seconds, up to...
ALTER TABLE agentrt.runs ADD COLUMN IF NOT EXISTS latest DOUBLE PRECISION NOT NULL DEFAULT 0;  -- ... the latest event
ALTER TABLE agentrt.runs ADD COLUMN IF NOT EXISTS due DOUBLE PRECISION;  -- when a waiting run may go on
UPDATE agentrt.runs SET worked = coalesce(ended - started, 0), latest = coalesce(ended, started),
    due = CASE status WHEN 'waiting' THEN 0 END  -- each is tried once: what it waits for is not in its row
    WHERE (SELECT version FROM agentrt.schema) < 4;
CREATE INDEX IF NOT EXISTS runs_by_time ON agentrt.runs (started, id);
CREATE INDEX IF NOT EXISTS runs_by_status ON agentrt.runs (status, started, id);
CREATE TABLE IF NOT EXISTS agentrt.events (
    run  BIGINT NOT NULL,  -- of `runs`, whose row is locked by whoever writes here: checking each event costs too much
    seq  BIGINT NOT NULL,  -- from 1, without gaps
    data BYTEA NOT NULL,  -- agentrt.events.encode, but for what is in `refs`
    refs BYTEA,  -- JSON object: fields that are not in `data`, and the hashes of their content
    PRIMARY KEY (run, seq)
);
ALTER TABLE agentrt.events DROP CONSTRAINT IF EXISTS events_run_fkey;
CREATE TABLE IF NOT EXISTS agentrt.commits (
    journal TEXT NOT NULL PRIMARY KEY,  -- one that was opened somewhere
    number  BIGINT NOT NULL,  -- of its last transaction
    at      TIMESTAMPTZ NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE TABLE IF NOT EXISTS agentrt.content (
    hash BYTEA NOT NULL PRIMARY KEY,  -- agentrt.stores.content.digest
    data BYTEA NOT NULL  -- JSON
);
CREATE TABLE IF NOT EXISTS agentrt.questions (
    run    BIGINT NOT NULL REFERENCES agentrt.runs (id) ON DELETE CASCADE,
    path   TEXT NOT NULL,
    seq    BIGINT NOT NULL,  -- of the event that asked
    asked  DOUBLE PRECISION NOT NULL,
    closed TEXT,  -- why nobody can answer it any more
    PRIMARY KEY (run, path)
);
CREATE INDEX IF NOT EXISTS open_questions ON agentrt.questions (asked, run, seq) WHERE closed IS NULL;
CREATE TABLE IF NOT EXISTS agentrt.guidance (  -- answers that were to be kept for later questions
    run      BIGINT NOT NULL REFERENCES agentrt.runs (id) ON DELETE CASCADE,
    asked    BIGINT NOT NULL,  -- seq of the question
    answered BIGINT NOT NULL,  -- seq of the answer
    at       DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (run, answered)
);
CREATE TABLE IF NOT EXISTS agentrt.notes (
    space TEXT NOT NULL,
    name  TEXT NOT NULL,
    text  TEXT NOT NULL,
    at    DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (space, name)
);
UPDATE agentrt.schema SET version = {SCHEMA_VERSION} WHERE version < {SCHEMA_VERSION};
"""
_TYPES: Final = {
    "started": "float8", "ended": "float8", "until": "float8", "worked": "float8", "latest": "float8",
    "due": "float8", "tokens": "int8", "cost": "int8", "epoch": "int8", "events": "int8", "questions": "int8",
}  # fmt: skip
_PARAMETERS: Final = ", ".join(f"${i}::{_TYPES.get(name, 'text')}[]" for i, name in enumerate(COLUMNS, 1))
_SELECT_RUN: Final = f"SELECT id, {', '.join(COLUMNS)} FROM agentrt.runs"
# An earlier try of the same transaction, or of a later one, leaves no row in `own`; one that still goes on is awaited.
# The first row has the time, too, and no run where there is none of these names.
_BEGIN: Final = (
    "WITH own AS (INSERT INTO agentrt.commits AS last (journal, number) VALUES ($1, $2) ON CONFLICT (journal) "
    "DO UPDATE SET number = excluded.number, at = excluded.at WHERE last.number < excluded.number RETURNING number), "
    f"locked AS ({_SELECT_RUN} WHERE run_id = ANY($3::text[]) ORDER BY id FOR UPDATE) "
    "SELECT own.number, extract(epoch FROM clock_timestamp())::float8, locked.* "
    "FROM (SELECT) AS always LEFT JOIN own ON true LEFT JOIN locked ON true"
)
_FORGET_COMMITS: Final = "DELETE FROM agentrt.commits WHERE at < now() - interval '1 day'"
_INSERT_RUNS: Final = (
    f"INSERT INTO agentrt.runs ({', '.join(COLUMNS)}) SELECT * FROM unnest({_PARAMETERS}) RETURNING run_id, id"
)
_UPDATE_RUNS: Final = (
    f"UPDATE agentrt.runs SET {', '.join(f'{name} = new.{name}' for name in COLUMNS)} FROM "
    f"unnest({_PARAMETERS}) "
    f"AS new ({', '.join(COLUMNS)}) WHERE runs.run_id = new.run_id"
)
_SELECT_QUESTIONS: Final = (
    "SELECT run, path, seq, asked, closed FROM agentrt.questions "
    "WHERE run = ANY($1::int8[]) AND (closed IS NULL OR path = ANY($2::text[]))"
)
_INSERT_CONTENT: Final = (
    "INSERT INTO agentrt.content SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING"
)
_EVENTS: Final = ("run", "seq", "data", "refs")
_WRITE_QUESTIONS: Final = (
    "INSERT INTO agentrt.questions (run, path, seq, asked, closed) "
    "SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[], $4::float8[], $5::text[]) "
    "ON CONFLICT (run, path) DO UPDATE SET seq = excluded.seq, asked = excluded.asked, closed = excluded.closed"
)


_INSERT_GUIDANCE: Final = "INSERT INTO agentrt.guidance (run, asked, answered, at) VALUES ($1, $2, $3, $4)"
# In the order of their keys, so that two processes that write the same notes do not wait for each other.
_WRITE_NOTES: Final = (
    "INSERT INTO agentrt.notes (space, name, text, at) "
    "SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[]) "
    "ON CONFLICT (space, name) DO UPDATE SET text = excluded.text, at = excluded.at"
)
_DELETE_NOTE: Final = "DELETE FROM agentrt.notes WHERE space = $1 AND name = $2"
_NOTES: Final = 'SELECT name, text, at FROM agentrt.notes WHERE space = $1 ORDER BY name COLLATE "C"'
_GUIDANCE: Final = (
    "SELECT run_id, asks.seq, asks.data, asks.refs, says.seq, says.data, says.refs "
    "FROM agentrt.guidance JOIN agentrt.runs ON runs.id = guidance.run "
    "JOIN agentrt.events AS asks ON asks.run = guidance.run AND asks.seq = asked "
    "JOIN agentrt.events AS says ON says.run = guidance.run AND says.seq = answered "
    "WHERE name = $1 ORDER BY at DESC, guidance.run DESC, answered DESC LIMIT $2"
)
_OPEN_QUESTIONS: Final = (
    "SELECT run_id, name, events.seq, data, refs FROM agentrt.questions JOIN agentrt.runs ON runs.id = questions.run "
    "JOIN agentrt.events ON events.run = questions.run AND events.seq = questions.seq "
    "WHERE closed IS NULL AND ended IS NULL AND ($1::int8 IS NULL OR questions.run = $1) "
    "ORDER BY questions.asked, questions.run, questions.seq"
)


def from_url(url: str) -> PostgresJournal:
    """Return the journal of `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`; it connects when it is first used."""
    return PostgresJournal(url)


class PostgresJournal(OperatedJournal):
    """Keep the events of runs in the schema `agentrt` of a PostgreSQL database (13 or later), made where missing.

    What is appended is committed when the call returns. Where the server goes away calls wait up to `patience`
    seconds for it, then raise `JournalError`; a database that was never there is told at once. `clock` tells when
    claims end; without one the server's does. Serves one event loop at a time.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE, clock: Callable[[], float] | None = None) -> None:
        try:
            import asyncpg
        except ImportError as error:
            raise JournalError(f"{shown(url)} needs asyncpg: pip install 'agentrt[postgres]'") from error
        self.url = url
        self._clock = clock
        server = Server(asyncpg, url, patience)
        self._where = server.where
        self._writer = Link(server, self._prepare)
        self._reader = Link(server, self._prepare)
        self._combiner = Combiner(self._begin)
        self._numbers = _Numbers()

    def __repr__(self) -> str:
        return f"<PostgresJournal {self._where}>"

    async def runs(self, limit: int = 50, *, status: str | None = None) -> list[RunSummary]:
        where, values = ("", ()) if status is None else (" WHERE status = $2", (status,))
        query = f"{_SELECT_RUN}{where} ORDER BY started DESC, id DESC LIMIT $1"
        rows = await self._reader.do(lambda connection: connection.fetch(query, max(limit, 0), *values))
        return [RunRow(*row).summary() for row in rows]

    async def run(self, run_id: str) -> RunSummary:
        return (await self._reader.do(lambda connection: self._find(connection, run_id))).summary()

    async def events(self, run_id: str) -> list[Event]:
        async def read(connection: Any) -> list[Event]:
            run = await self._find(connection, run_id)
            query = "SELECT seq, data, refs FROM agentrt.events WHERE run = $1 ORDER BY seq"
            rows = [StoredRow(*row) for row in await connection.fetch(query, run.id)]
            return to_events(rows, await _contents(connection, rows), run_id, self._where)

        return await self._reader.do(read)

    async def questions(self, run_id: str | None = None) -> list[OpenQuestion]:
        async def read(connection: Any) -> list[OpenQuestion]:
            run = None if run_id is None else (await self._find(connection, run_id)).id
            asked = [(row[0], row[1], StoredRow(*row[2:])) for row in await connection.fetch(_OPEN_QUESTIONS, run)]
            contents = await _contents(connection, [row for *_, row in asked])
            found = [(run_id, name, to_events([row], contents, run_id, self._where)) for run_id, name, row in asked]
            return [OpenQuestion(run_id, name, e) for run_id, name, [e] in found if isinstance(e, QuestionAsked)]

        return await self._reader.do(read)

    async def guidance(self, name: str, limit: int = 100) -> list[Guidance]:
        async def read(connection: Any) -> list[Guidance]:
            kept = await connection.fetch(_GUIDANCE, writable(name), max(limit, 0))
            pairs = [(row[0], [StoredRow(*row[1:4]), StoredRow(*row[4:7])]) for row in reversed(kept)]
            contents = await _contents(connection, [row for _, rows in pairs for row in rows])
            return [guidance_of(run_id, to_events(rows, contents, run_id, self._where)) for run_id, rows in pairs]

        return await self._reader.do(read)

    async def notes(self, space: str) -> list[Note]:
        rows = await self._reader.do(lambda connection: connection.fetch(_NOTES, writable(space)))
        return [Note(*row) for row in rows]

    async def aclose(self) -> None:
        """Close the connections, once what was asked is written."""
        await self._combiner.rest()
        await self._writer.close()
        await self._reader.close()

    async def _find(self, connection: Any, run_id: str) -> RunRow:
        row = None
        if run_id == writable(run_id):
            row = await connection.fetchrow(f"{_SELECT_RUN} WHERE run_id = $1", run_id)
        if row is None:
            raise unknown_run(run_id, self._where)
        return RunRow(*row)

    async def _prepare(self, connection: Any) -> None:
        """Make the tables that are missing, and let transactions be durable and short."""
        await connection.execute(_SETTINGS)
        version = 0
        if await connection.fetchval("SELECT to_regclass('agentrt.schema')") is not None:
            version = await connection.fetchval("SELECT version FROM agentrt.schema")
        if version < SCHEMA_VERSION:
            await connection.execute(_SCHEMA)
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"{self._where} was written by a newer agentrt (schema {version}, this one reads {SCHEMA_VERSION}): "
                "upgrade agentrt, or choose another database"
            )

    async def _carry_out(self, operation: Operation) -> None:
        check_loop()
        await self._combiner.do(operation)

    def _begin(self, operations: Sequence[Operation]) -> Callable[[], Awaitable[None]]:
        return _Writing(self._writer, _Transaction(operations, self._numbers, self._where, self._clock)).go_on


class _Writing:
    """Carry out a transaction, or, where that is refused, each of its operations in its own: each fails alone."""

    def __init__(self, link: Link, transaction: _Transaction) -> None:
        self._link = link
        self._left = [transaction]

    async def go_on(self) -> None:
        """Do what is left, also after a call that was cancelled."""
        while self._left:
            transaction = self._left[0]
            alone: list[_Transaction] = []
            try:
                await self._link.do(transaction.commit)
            except Refused as error:
                alone = transaction.split()
                if not alone:
                    transaction.fail(error)
            except JournalError as error:
                transaction.fail(error)
            self._left[:1] = alone


class _Numbers:
    """Number the transactions of one journal in one process."""

    def __init__(self) -> None:
        self._name = os.urandom(16).hex()
        self._count = count(1)

    @property
    def journal(self) -> str:
        """Return a name that nobody else has, not even the same object in a process that was forked from this one."""
        return f"{self._name}-{os.getpid()}"

    def next(self) -> int:
        return next(self._count)


class _Transaction:
    """Be one transaction of some operations, committed once however often that is tried."""

    def __init__(
        self, operations: Sequence[Operation], numbers: _Numbers, where: str, clock: Callable[[], float] | None
    ) -> None:
        self._operations = operations
        self._numbers = numbers
        self._number = numbers.next()
        self._where = where
        self._clock = clock

    async def commit(self, connection: Any) -> None:
        await connection.execute("BEGIN")
        names = {o.run_id for o in self._operations if o.run_id == writable(o.run_id)}
        rows = await connection.fetch(_BEGIN, self._numbers.journal, self._number, sorted(names))
        number, now = rows[0][:2]
        if number is None:  # it is committed: the operations have the results of that try
            await connection.execute("ROLLBACK")
            return
        if number == 1:
            await connection.execute(_FORGET_COMMITS)
        runs = await self._load(connection, [RunRow(*row[2:]) for row in rows if row[2] is not None])
        records = Records(self._where, self._clock() if self._clock else now, runs)
        records.carry_out(self._operations)
        await _save(connection, list(records.runs.values()))
        await _save_notes(connection, records.notes)
        await connection.execute("COMMIT")

    def split(self) -> list[_Transaction]:
        """Return a transaction for each operation, if there are several."""
        if len(self._operations) == 1:
            return []
        return [_Transaction([o], self._numbers, self._where, self._clock) for o in self._operations]

    def fail(self, error: JournalError) -> None:
        """Note on each operation why it was not carried out."""
        for operation in self._operations:
            operation.error = JournalError(str(error))
            operation.error.__cause__ = error.__cause__

    async def _load(self, connection: Any, rows: Sequence[RunRow]) -> dict[str, RunRow]:
        """Return the runs by name, with the questions that may matter to the operations."""
        runs = {run.id: run for run in rows}
        paths = {path for o in self._operations for path in o.paths}
        asking = [run.id for run in rows if run.questions or paths]
        if asking:
            for run, path, *question in await connection.fetch(_SELECT_QUESTIONS, asking, sorted(paths)):
                runs[run].asked[path] = QuestionRow(*question)
        return {run.run_id: run for run in rows}


async def _save(connection: Any, runs: Sequence[RunRow]) -> None:
    """Write what has changed of the runs."""
    new, known = [r for r in runs if r.id is None], [r for r in runs if r.id is not None]
    if new:
        keys = dict(await connection.fetch(_INSERT_RUNS, *_columns([columns(run) for run in new])))
        for run in new:
            run.id = keys[run.run_id]
    if known:
        await connection.execute(_UPDATE_RUNS, *_columns([columns(run) for run in known]))
    rows = [(run.id, seq, row) for run in runs for seq, row in run.added]
    # In the order of their hashes, so that two processes that keep the same content do not wait for each other.
    if contents := sorted({content for *_, row in rows for content in row.contents}):
        await connection.execute(_INSERT_CONTENT, *_columns(contents))
    if rows:
        records = [(run, seq, row.data, row.refs) for run, seq, row in rows]
        await connection.copy_records_to_table("events", schema_name="agentrt", columns=_EVENTS, records=records)
    if kept := [(run.id, *one) for run in runs for one in run.kept]:
        await connection.executemany(_INSERT_GUIDANCE, kept)
    if questions := [(run.id, path, q.seq, q.asked, q.closed) for run in runs for path, q in run.changed.items()]:
        await connection.execute(_WRITE_QUESTIONS, *_columns(questions))


async def _save_notes(connection: Any, notes: Mapping[tuple[str, str], Note | None]) -> None:
    if written := [(*key, note.text, note.at) for key, note in sorted(notes.items()) if note is not None]:
        await connection.execute(_WRITE_NOTES, *_columns(written))
    for key in sorted(key for key, note in notes.items() if note is None):
        await connection.execute(_DELETE_NOTE, *key)


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def _contents(connection: Any, rows: Sequence[StoredRow]) -> dict[bytes, bytes]:
    keys = sorted(hashes(rows))
    query = "SELECT hash, data FROM agentrt.content WHERE hash = ANY($1::bytea[])"
    return dict(await connection.fetch(query, keys)) if keys else {}
