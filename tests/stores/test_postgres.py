"""The journal in PostgreSQL: what is particular to it, and what a server does that goes away."""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentrt.errors import JournalError
from agentrt.events import Event, RunStarted, StepFinished
from agentrt.stores import PostgresJournal, open_store
from agentrt.stores import postgres as module
from agentrt.stores.operations import Append
from tests.stores.postgresql import Server

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def empty(server: Server) -> None:
    server.sql("DROP SCHEMA IF EXISTS agentrt CASCADE")


@pytest.fixture
async def journal(server: Server) -> AsyncIterator[PostgresJournal]:
    store = PostgresJournal(server.url)
    yield store
    await store.aclose()


def step(output: object) -> StepFinished:
    return StepFinished(path="brief/a", at=2.0, output=output)


async def begin(journal: PostgresJournal, run_id: str = "r", *events: Event) -> int:
    epoch = await journal.claim(run_id, "me", seconds=30, new=True)
    started = RunStarted(run_id=run_id, at=1.0, name="brief", input="why?", limits={})
    await journal.append(run_id, epoch, [started, *events])
    return epoch


async def outputs(journal: PostgresJournal, run_id: str = "r") -> list[object]:
    return [e.output for e in await journal.events(run_id) if isinstance(e, StepFinished)]


STATEMENTS = {"execute", "fetch", "fetchrow", "fetchval", "executemany", "copy_records_to_table"}


class Counted:
    """Be a connection that counts what it is asked."""

    def __init__(self, connection: Any) -> None:
        self.statements = 0
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        self.statements += name in STATEMENTS
        return getattr(self._connection, name)


# What is written, and how


async def test_what_waits_is_one_transaction(journal: PostgresJournal, server: Server) -> None:
    """However many runs it is of; but for the first, which waits for nobody."""
    epochs = [await begin(journal, f"r{i}") for i in range(100)]
    before = int(server.sql("SELECT pg_current_xact_id()"))
    async with anyio.create_task_group() as tasks:
        for i, epoch in enumerate(epochs):
            tasks.start_soon(journal.append, f"r{i}", epoch, [step(i)])
    assert int(server.sql("SELECT pg_current_xact_id()")) - before - 1 <= 2


async def test_equal_content_is_kept_once(journal: PostgresJournal, server: Server) -> None:
    """Of any event, and of any run."""
    for run_id in ("a", "b"):
        await begin(journal, run_id, *[step("x" * 1_000_000)] * 10)
    assert server.sql("SELECT count(*), sum(length(data)) FROM agentrt.content") == "1|1000002"


async def test_what_a_group_costs(journal: PostgresJournal) -> None:
    """Six statements, however many runs and events are in it."""
    epochs = [await begin(journal, f"r{i}") for i in range(10)]
    journal._writer._connection = counted = Counted(journal._writer._connection)
    async with anyio.create_task_group() as tasks:
        for i, epoch in enumerate(epochs):
            tasks.start_soon(journal.append, f"r{i}", epoch, [step("x" * 1000)] * 10)
    assert counted.statements == 2 * 6  # the first waits for nobody


async def test_it_is_durable_whatever_the_default(server: Server) -> None:
    """A database that commits lazily does not for a journal."""
    server.sql("CREATE DATABASE lazy")
    server.sql("ALTER DATABASE lazy SET synchronous_commit = off")
    journal = PostgresJournal(server.database("lazy"))
    await begin(journal)
    assert await journal._writer._connection.fetchval("SHOW synchronous_commit") == "on"
    await journal.aclose()
    server.sql("DROP DATABASE lazy")


async def test_the_servers_clock_counts(journal: PostgresJournal, server: Server) -> None:
    """So that machines whose clocks differ agree on when a claim ends."""
    await begin(journal)
    until = (await journal.run("r")).until
    assert 20 < until - float(server.sql("SELECT extract(epoch FROM clock_timestamp())")) <= 30


async def test_one_that_is_refused_fails_alone(journal: PostgresJournal, server: Server) -> None:
    """What the database does not take of one run leaves the others alone."""
    epochs = [await begin(journal, f"r{i}") for i in range(4)]
    server.sql("ALTER TABLE agentrt.content ADD CHECK (length(data) < 1000)")
    told: list[str] = []

    async def append(i: int) -> None:
        try:
            await journal.append(f"r{i}", epochs[i], [step("x" * (2_000 if i == 1 else 500))])
        except JournalError as error:
            told.append(f"{i} {error}")

    async with anyio.create_task_group() as tasks:
        for i in range(4):
            tasks.start_soon(append, i)
    (error,) = told
    assert error.startswith("1 postgresql://")
    assert "violates check constraint" in error
    assert [len(await outputs(journal, f"r{i}")) for i in range(4)] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("DELETE FROM agentrt.content", "number 2: its output is missing"),
        ("UPDATE agentrt.content SET data = '\"other\"'", "number 2: its output is damaged"),
        ("UPDATE agentrt.events SET data = 'nonsense', refs = NULL WHERE seq = 2", "number 2: "),
    ],
)
async def test_a_damaged_event_is_told(journal: PostgresJournal, server: Server, damage: str, reason: str) -> None:
    """With the run and the event's number."""
    await begin(journal, "r", step("x" * 1000))
    server.sql(damage)
    with pytest.raises(JournalError, match=rf"run r in postgresql.* holds an event that cannot be read, {reason}"):
        await journal.events("r")


async def test_newer_schema_is_told(journal: PostgresJournal, server: Server) -> None:
    """A database of a newer agentrt is left alone."""
    await begin(journal)
    server.sql("UPDATE agentrt.schema SET version = 99")
    with pytest.raises(JournalError, match=r"newer agentrt \(schema 99"):
        await PostgresJournal(server.url).runs()


async def test_an_older_schema_is_brought_up_to_date(journal: PostgresJournal, server: Server) -> None:
    """Its runs can be read and gone on with, have the time they took, and are due if they wait; one process does it."""
    await begin(journal, "r", step(1))
    await begin(journal, "waits")
    server.sql(
        "DROP TABLE agentrt.guidance, agentrt.notes;"
        "ALTER TABLE agentrt.runs DROP COLUMN worked, DROP COLUMN latest, DROP COLUMN due;"
        "UPDATE agentrt.runs SET ended = 3; UPDATE agentrt.schema SET version = 2;"
        "UPDATE agentrt.runs SET status = 'waiting' WHERE run_id = 'waits'"
    )
    journals = [PostgresJournal(server.url) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for newer in journals:
            tasks.start_soon(newer.runs)
    newer = journals[0]
    assert await newer.events("r") == await journal.events("r")
    assert await newer.guidance("brief") == []
    assert await newer.notes("notes") == []
    summary = await newer.run("r")
    assert (summary.worked, summary.latest, summary.due) == (2.0, 3.0, None)
    assert (await newer.run("waits")).due == 0.0
    for newer in journals:
        await newer.aclose()


async def test_many_make_the_tables_at_once(server: Server) -> None:
    """One does; the others use them."""
    journals = [PostgresJournal(server.url) for _ in range(6)]
    async with anyio.create_task_group() as tasks:
        for i, journal in enumerate(journals):
            tasks.start_soon(begin, journal, f"r{i}")
    assert len(await journals[0].runs()) == 6
    for journal in journals:
        await journal.aclose()


# A server that is not there


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@/none?host=/nowhere", "postgresql://me:secret@localhost:1/none"]
)
async def test_a_server_that_never_was_is_told_at_once(url: str) -> None:
    """Without the password."""
    journal = open_store(url)
    with (
        anyio.fail_after(20),
        pytest.raises(JournalError, match=r"postgresql://me@.* cannot be reached .*--store") as told,
    ):
        await journal.runs()
    assert "secret" not in str(told.value)


async def test_a_missing_database_is_told(server: Server) -> None:
    """By what the server says."""
    with pytest.raises(JournalError, match='database "none" does not exist'):
        await PostgresJournal(server.database("none")).claim("r", "me", seconds=1, new=True)


def test_trio_is_told(server: Server) -> None:
    """The driver is asyncio's."""
    journal = PostgresJournal(server.url)
    with pytest.raises(JournalError, match="needs asyncio"):
        anyio.run(journal.runs, backend="trio")
    with pytest.raises(JournalError, match="needs asyncio"):
        anyio.run(journal.release, "r", 1, backend="trio")


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra to install."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(JournalError, match=r"postgresql://me@host/x needs asyncpg: pip install 'agentrt\[postgres\]'"):
        open_store("postgresql://me:secret@host/x")


# A server that goes away


async def test_an_append_waits_for_a_server_that_is_gone(mortal: Server) -> None:
    """It comes back, and all that was appended meanwhile is kept once, in order; reading waits too."""
    journal = PostgresJournal(mortal.url)
    epoch = await begin(journal)
    assert await outputs(journal) == []
    await anyio.to_thread.run_sync(mortal.crash)
    read: list[list[object]] = []

    async def look() -> None:
        read.append(await outputs(journal))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        for i in range(5):
            tasks.start_soon(journal.append, "r", epoch, [step(i)])
        await anyio.to_thread.run_sync(mortal.start)
    assert read[0] == list(range(len(read[0])))
    assert await outputs(journal) == list(range(5))
    await journal.aclose()


async def test_the_patience_ends(mortal: Server) -> None:
    """Then it is told; and when the server is back, the journal works again."""
    journal = PostgresJournal(mortal.url)
    epoch = await begin(journal)
    journal._writer._server.patience = 0.2
    await anyio.to_thread.run_sync(mortal.crash)
    with pytest.raises(JournalError, match=r"cannot be reached for 0\.2 s: whether .* is not known"):
        await journal.append("r", epoch, [step(1)])
    await anyio.to_thread.run_sync(mortal.start)
    journal._writer._server.patience = 60
    await journal.append("r", epoch, [step(2)])
    assert await outputs(journal) == [2]
    await journal.aclose()


async def test_a_deaf_server_is_told(mortal: Server) -> None:
    """Its connections stay open, and nothing comes; going on it may still do what it was asked, but once."""
    journal = PostgresJournal(mortal.url)
    epoch = await begin(journal)
    journal._writer._server.patience = 0.4
    mortal.pause()
    with pytest.raises(JournalError, match=r"cannot be reached for 0\.4 s: .*\(no answer\)"):
        await journal.append("r", epoch, [step(1)])
    mortal.go_on()
    journal._writer._server.patience = 60
    await journal.append("r", epoch, [step(2)])
    assert await outputs(journal) in ([2], [1, 2])
    await journal.aclose()


async def test_a_deaf_server_is_waited_for(mortal: Server) -> None:
    """Until it goes on; the append is kept once."""
    journal = PostgresJournal(mortal.url)
    epoch = await begin(journal)
    mortal.pause()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.append, "r", epoch, [step(1)])
        await anyio.lowlevel.checkpoint()
        mortal.go_on()
    assert await outputs(journal) == [1]
    await journal.aclose()


class Lossy:
    """Be a connection whose end is lost: before the n-th statement is sent, or before its answer comes."""

    def __init__(self, connection: Any, n: int, *, sent: bool) -> None:
        self._connection = connection
        self._left = n
        self._sent = sent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        return self._losing(found) if name in STATEMENTS else found

    def _losing(self, method: Any) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left >= 0:
                return await method(*arguments, **named)
            if self._sent:
                await method(*arguments, **named)
            self._connection.terminate()
            raise ConnectionResetError("lost")

        return call


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("n", range(8))
async def test_a_lost_connection_neither_loses_nor_doubles(journal: PostgresJournal, n: int, sent: bool) -> None:
    """Whichever statement it is lost at, the commit's answer too."""
    epoch = await begin(journal)
    for i in range(2):
        journal._writer._connection = Lossy(journal._writer._connection, n, sent=sent)
        await journal.append("r", epoch, [step(i), step("x" * 1000)])
    assert await outputs(journal) == [0, "x" * 1000, 1, "x" * 1000]


async def test_a_connection_about_to_be_lost(journal: PostgresJournal) -> None:
    """The server has said that it goes, and the driver not yet that it is gone: another connection is made."""
    epoch = await begin(journal)
    broken = journal._writer._connection

    class Going:
        """Be a connection that takes nothing more, and is not closed."""

        def __getattr__(self, name: str) -> Any:
            if name in STATEMENTS:
                raise journal._writer._server.asyncpg.InternalClientError("another operation (2) is in progress")
            return getattr(broken, name)

    journal._writer._connection = Going()
    await journal.append("r", epoch, [step(1)])
    assert await outputs(journal) == [1]


class Deadly:
    """Be a connection on which a task that sends its n-th statement is cancelled: before, after or at that."""

    def __init__(self, connection: Any, n: int, when: str) -> None:
        self.victim: asyncio.Task[None] | None = None
        self._connection = connection
        self._left = n
        self._when = when

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        return self._killing(found) if name in STATEMENTS else found

    def _killing(self, method: Any) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            task = asyncio.current_task()
            if task is None or task is not self.victim:
                return await method(*arguments, **named)
            self._left -= 1
            if self._left != -1:
                return await method(*arguments, **named)
            if self._when == "after":
                await method(*arguments, **named)
            if self._when == "meanwhile":
                asyncio.get_running_loop().call_soon(task.cancel)
                return await method(*arguments, **named)
            task.cancel()
            return await asyncio.sleep(0)

        return call


@pytest.mark.parametrize("when", ["before", "meanwhile", "after"])
@pytest.mark.parametrize("n", range(6))
async def test_a_leader_that_is_cancelled_leaves_the_others(journal: PostgresJournal, n: int, when: str) -> None:
    """Natively, at any statement: they are kept once and in order, its own whole or not at all."""
    epochs = {run_id: await begin(journal, run_id) for run_id in "abc"}
    journal._writer._connection = deadly = Deadly(journal._writer._connection, n, when)
    tasks = [asyncio.create_task(journal.append("a", epochs["a"], [step(0)]))]
    await asyncio.sleep(0)  # it writes, alone
    for i in range(1, 4):  # what waits for it is the next group, and b's the task that leads
        tasks += [asyncio.create_task(journal.append(r, epochs[r], [step(i), step("x" * 999)])) for r in "bca"]
    deadly.victim = tasks[1]
    with anyio.fail_after(20):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [i for i, outcome in enumerate(outcomes) if outcome is not None] == [1]
    whole: list[object] = [m for i in range(1, 4) for m in (i, "x" * 999)]
    assert await outputs(journal, "a") == [0, *whole]
    assert await outputs(journal, "b") in (whole, whole[2:])
    assert await outputs(journal, "c") == whole


async def test_a_cancelled_leader_that_waits_for_the_server(mortal: Server) -> None:
    """Hands the lead on; the others wait in its place."""
    journal = PostgresJournal(mortal.url)
    epochs = [await begin(journal, f"r{i}") for i in range(3)]
    await anyio.to_thread.run_sync(mortal.crash)
    async with anyio.create_task_group() as tasks:
        for i, epoch in enumerate(epochs):
            tasks.start_soon(journal.append, f"r{i}", epoch, [step(i)])
        with anyio.move_on_after(0.1):
            await journal.append("r0", epochs[0], [step("first")])
        await anyio.to_thread.run_sync(mortal.start)
    assert [await outputs(journal, f"r{i}") for i in range(1, 3)] == [[1], [2]]
    assert await outputs(journal, "r0") in ([0], ["first", 0])
    await journal.aclose()


async def test_a_claim_whose_answer_is_lost(journal: PostgresJournal) -> None:
    """Has the epoch that was written."""
    await begin(journal)
    journal._writer._connection = Lossy(journal._writer._connection, 3, sent=True)
    epoch = await journal.claim("r", "me", seconds=30)
    await journal.append("r", epoch, [step(1)])
    assert await outputs(journal) == [1]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_a_commit_that_goes_on_is_waited_for(journal: PostgresJournal, server: Server, end: str) -> None:
    """Where the connection is lost and the server has not noticed: the next try waits for how the last one ends."""
    epoch = await begin(journal)
    numbers = journal._numbers
    other = await journal._writer._server.asyncpg.connect(server.url)
    await other.execute("BEGIN")
    going_on = module._Transaction([Append("r", epoch, [step(1)])], numbers, "", None)

    class Held:
        """Be its connection, which does not commit yet."""

        def __getattr__(self, name: str) -> Any:
            return getattr(other, name)

        async def execute(self, statement: str, *arguments: Any) -> None:
            if statement not in {"BEGIN", "COMMIT"}:
                await other.execute(statement, *arguments)

    await going_on.commit(Held())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal._writer.do, going_on.commit)
        await wait_for_a_lock(server)
        await other.execute(end)
    assert await outputs(journal) == [1]
    await other.close()


async def wait_for_a_lock(server: Server) -> None:
    """Return when somebody waits for another's transaction."""
    while await anyio.to_thread.run_sync(server.sql, "SELECT count(*) FROM pg_locks WHERE NOT granted") == "0":
        await checkpoint()


async def test_a_crash_may_give_an_id_again(mortal: Server) -> None:
    """What was on no disk when the server crashed is tried again, whatever has since had the transaction's id."""
    journal, other = PostgresJournal(mortal.url), PostgresJournal(mortal.url)
    epochs = {run_id: await begin(journal, run_id) for run_id in "ab"}
    connection = journal._writer._connection

    class Crashing:
        """Be a connection whose server crashes instead of committing, and goes on with others."""

        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        async def execute(self, statement: str, *arguments: Any) -> None:
            if statement != "COMMIT":
                await connection.execute(statement, *arguments)
                return
            await anyio.to_thread.run_sync(mortal.crash)
            await anyio.to_thread.run_sync(mortal.start)
            for _ in range(3):
                await other.append("b", epochs["b"], [step(2)])
            raise ConnectionResetError("lost")

    journal._writer._connection = Crashing()
    await journal.append("a", epochs["a"], [step(1)])
    assert await outputs(journal, "a") == [1]
    assert await outputs(journal, "b") == [2] * 3
    for store in (journal, other):
        await store.aclose()


async def test_a_forked_process_numbers_its_own(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal made before the fork may be used in both: what one commits is not taken for the other's."""
    parent, child = PostgresJournal(server.url), PostgresJournal(server.url)
    child._numbers = copy.deepcopy(parent._numbers)
    await begin(parent, "parent")
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: 1)
        await begin(child, "child")
    assert {run.run_id for run in await parent.runs()} == {"parent", "child"}
    await parent.aclose()
    await child.aclose()


async def test_an_older_database_goes_on(journal: PostgresJournal, server: Server) -> None:
    """It is brought up to date by whoever opens it next."""
    epoch = await begin(journal)
    server.sql("UPDATE agentrt.schema SET version = 2; DROP TABLE agentrt.commits")
    server.sql("ALTER TABLE agentrt.events ADD FOREIGN KEY (run) REFERENCES agentrt.runs (id) ON DELETE CASCADE")
    for _ in range(2):
        later = PostgresJournal(server.url)
        await later.append("r", epoch, [step(1)])
        await later.aclose()
    assert await outputs(journal) == [1, 1]
    assert server.sql("SELECT version FROM agentrt.schema") == str(module.SCHEMA_VERSION)
    assert server.sql("SELECT count(*) FROM pg_constraint WHERE conname = 'events_run_fkey'") == "0"


async def test_what_journals_leave_is_cleared_away(journal: PostgresJournal, server: Server) -> None:
    """A day later, by the next."""
    await begin(journal)
    server.sql("UPDATE agentrt.commits SET at = now() - interval '25 hours'")
    later = PostgresJournal(server.url)
    await begin(later, "later")
    assert server.sql("SELECT journal FROM agentrt.commits") == later._numbers.journal
    await journal.append("r", 1, [step(1)])
    assert await outputs(journal) == [1]
    await later.aclose()


def test_the_driver_is_imported_when_used() -> None:
    """Whoever keeps runs in a file does not pay for it."""
    code = "import sys, agentrt.stores; assert 'asyncpg' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
