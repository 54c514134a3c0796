"""The journal in an SQLite file: what is particular to it. `test_conformance` tests what all stores promise."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agentrt.errors import JournalError
from agentrt.events import Event, RunParked, RunStarted, StepFinished, StepStarted, encode
from agentrt.journal import RunSummary
from agentrt.messages import AssistantMessage, UserMessage
from agentrt.model import ModelRequest, ModelResponse
from agentrt.stores import SqliteJournal, default_store, open_store
from agentrt.testing import run_virtual
from agentrt.usage import Usage

pytestmark = pytest.mark.anyio

VERSION_1 = """
CREATE TABLE runs (
    id      INTEGER PRIMARY KEY,
    run_id  TEXT NOT NULL UNIQUE,
    name    TEXT NOT NULL,
    status  TEXT NOT NULL,
    started REAL NOT NULL,  -- seconds since the epoch
    ended   REAL,
    tokens  INTEGER NOT NULL DEFAULT 0,
    cost    INTEGER NOT NULL DEFAULT 0  -- pico-dollars
);
CREATE INDEX runs_by_time ON runs (started, id);
CREATE TABLE events (
    run  INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq  INTEGER NOT NULL,
    data BLOB NOT NULL,  -- agentrt.events.encode
    PRIMARY KEY (run, seq)
);
"""


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    store = SqliteJournal(tmp_path / "runs.db")
    yield store
    await store.aclose()


def started(run_id: str = "r", at: float = 1.0) -> RunStarted:
    return RunStarted(run_id=run_id, at=at, name="brief", input="why?", limits={"tokens": 100})


def step(output: object) -> StepFinished:
    return StepFinished(path="brief/a", at=2.0, output=output)


async def begin(journal: SqliteJournal, run_id: str = "r", *events: Event) -> int:
    epoch = await journal.claim(run_id, "me", seconds=30, new=True)
    await journal.append(run_id, epoch, [started(run_id), *events])
    return epoch


async def size(journal: SqliteJournal) -> int:
    """Close the journal, and return how big its file is."""
    await journal.aclose()
    return journal.path.stat().st_size


# What is written, and how


async def test_group_is_on_disk_when_append_returns(journal: SqliteJournal) -> None:
    """What is appended survives a reader that never saw this process."""
    await begin(journal)
    reader = sqlite3.connect(journal.path)
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    reader.close()


async def test_what_waits_is_one_transaction(journal: SqliteJournal) -> None:
    """However many runs it is of; those that came before the thread took them are another."""
    epochs = [await begin(journal, f"r{i}") for i in range(100)]
    statements: list[str] = []
    journal._connection.set_trace_callback(statements.append)
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as tasks:
        for i, epoch in enumerate(epochs):
            tasks.start_soon(journal.append, f"r{i}", epoch, [step(i)])
        await anyio.wait_all_tasks_blocked()
        other.close()
    assert statements.count("COMMIT") <= 2
    assert [(await journal.events(f"r{i}"))[1:] for i in range(100)] == [[step(i)] for i in range(100)]


def test_loops_share_a_journal(tmp_path: Path) -> None:
    """One after the other; trio's and those in virtual time too, which waits while the thread writes."""
    journal = SqliteJournal(tmp_path / "runs.db")

    async def write(run_id: str) -> float:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0.01)
            for i in range(5):
                tasks.start_soon(begin, journal, f"{run_id}{i}")
        return anyio.current_time()

    run_virtual(write, "virtual")
    anyio.run(write, "asyncio")
    anyio.run(write, "trio", backend="trio")
    assert len(anyio.run(journal.runs)) == 15
    anyio.run(journal.aclose)


async def test_a_closed_journal_is_told(journal: SqliteJournal) -> None:
    """To whoever still writes or reads."""
    epoch = await begin(journal)
    await journal.aclose()
    with pytest.raises(JournalError, match="closed"):
        await journal.append("r", epoch, [step(1)])
    with pytest.raises(JournalError, match="closed"):
        await journal.events("r")


async def test_equal_content_is_kept_once(journal: SqliteJournal) -> None:
    """Of any event, and of any run."""
    for run_id in ("a", "b"):
        await begin(journal, run_id, *[step("x" * 1_000_000)] * 10)
    assert 1_000_000 < await size(journal) < 1_200_000


async def test_a_growing_conversation_is_kept_in_linear_space(journal: SqliteJournal) -> None:
    """400 steps whose conversation grows by 1 KB each take less than 2 MB."""
    epoch = await begin(journal)
    messages: tuple[Any, ...] = ()
    for i in range(400):
        messages = (*messages, UserMessage(f"{i} " + "u" * 500))
        said = AssistantMessage(f"{i} " + "a" * 500)
        path = f"agent/chat#{i}"
        request = ModelRequest(messages=messages)
        begun = StepStarted(path=path, at=1.0, name="chat", kind="model", input=request)
        await journal.append(
            "r", epoch, [begun, StepFinished(path=path, at=2.0, output=ModelResponse(message=said, usage=Usage()))]
        )
        messages = (*messages, said)
    events = await journal.events("r")
    last = events[-2]
    assert isinstance(last, StepStarted)
    assert last.input == {"messages": [{"text": "399 " + "u" * 500, "role": "user", "untrusted": False}]}
    assert await size(journal) < 2_000_000


# Other processes


WRITER = """
import sys, anyio
from agentrt.errors import JournalError
from agentrt.events import RunStarted, StepFinished
from agentrt.stores import SqliteJournal

async def main(path, run_id, big):
    journal = SqliteJournal(path)
    epoch = await journal.claim(run_id, "me", seconds=30, new=True)
    await journal.append(run_id, epoch, [RunStarted(run_id=run_id, at=1.0, name="b", input=1, limits={})])
    try:
        for i in range(int(sys.argv[4])):
            await journal.append(run_id, epoch, [StepFinished(path=str(i), at=1.0, output=str(i) * big)])
            print(i, flush=True)
    except JournalError as error:
        print(error, flush=True)
    await journal.aclose()

LIMIT
anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def writer(path: Path, run_id: str, big: int = 1, steps: int = 20, limit: str = "") -> subprocess.Popen[str]:
    """Start a process that writes steps, and prints the number of each that is kept."""
    code = WRITER.replace("LIMIT", limit)
    command = [sys.executable, "-c", code, str(path), run_id, str(big), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_processes_share_a_new_file(tmp_path: Path) -> None:
    """All make it at once, and write at once; all is kept."""
    path = tmp_path / "runs.db"
    writers = [writer(path, f"r{i}") for i in range(2)]
    printed = [process.communicate()[0].split() for process in writers]
    assert printed == [[str(i) for i in range(20)]] * 2
    journal = SqliteJournal(path)
    for i in range(2):
        assert len(await journal.events(f"r{i}")) == 21
    await journal.aclose()


async def test_a_file_that_another_is_making_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses at once to switch a file to its write-ahead log while another writes to it."""
    path = tmp_path / "runs.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(time, "sleep", lambda seconds: other.execute("COMMIT"))
    journal = SqliteJournal(path)
    other.close()
    assert await journal.runs() == []
    await journal.aclose()


async def test_what_was_kept_survives_a_kill(tmp_path: Path) -> None:
    """Of a process in the middle of writing."""
    path = tmp_path / "runs.db"
    with writer(path, "r", steps=100_000) as process:
        assert process.stdout is not None
        kept = [process.stdout.readline() for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        kept += process.stdout.readlines()
    journal = SqliteJournal(path)
    events = await journal.events("r")
    await journal.aclose()
    last = int([line for line in kept if line.endswith("\n")][-1])
    assert [e.path for e in events if isinstance(e, StepFinished)][: last + 1] == [str(i) for i in range(last + 1)]


async def test_a_locked_file_is_waited_for(journal: SqliteJournal) -> None:
    """And then written."""
    epoch = await begin(journal)
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.append, "r", epoch, [step(1)])
        await checkpoint()
        assert await journal.events("r") == [started()]  # readers do not wait
        other.close()
    assert await journal.events("r") == [started(), step(1)]


async def test_locked_file_is_told(journal: SqliteJournal) -> None:
    """A file that another process keeps locked is named, with what to do, to all that wait."""
    epoch = await begin(journal)
    journal._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    told: list[str] = []

    async def append() -> None:
        try:
            await journal.append("r", epoch, [step(1)])
        except JournalError as error:
            told.append(str(error))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(append)
    other.close()
    assert len(told) == 3
    assert all("runs.db: database is locked; another process keeps it locked" in t for t in told)
    await journal.append("r", epoch, [step(2)])
    assert await journal.events("r") == [started(), step(2)]


# A disk without room


async def test_full_disk_is_told(journal: SqliteJournal) -> None:
    """Whoever finds no room is told, and alone; what was kept stays readable."""
    epochs = [await begin(journal, f"r{i}") for i in range(4)]
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    told: list[str] = []

    async def append(i: int) -> None:
        try:
            await journal.append(f"r{i}", epochs[i], [step("x" * (100_000 if i == 1 else 10))])
        except JournalError as error:
            told.append(f"{i} {error}")

    async with anyio.create_task_group() as tasks:
        for i in range(4):
            tasks.start_soon(append, i)
    (error,) = told
    assert error.startswith("1 ")
    assert "runs.db: database or disk is full; the disk is full: make room" in error
    assert [len(await journal.events(f"r{i}")) for i in range(4)] == [2, 1, 2, 2]


async def test_nothing_is_lost_where_files_may_not_grow(tmp_path: Path) -> None:
    """The kernel cuts a write short; all that was said to be kept is."""
    path = tmp_path / "runs.db"
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    )
    with writer(path, "r", big=7_000, limit=limit) as process:
        *kept, error = process.communicate()[0].splitlines()
    assert "runs.db: " in error
    assert 1 < len(kept) < 20
    journal = SqliteJournal(path)
    events = await journal.events("r")
    assert [e.path for e in events if isinstance(e, StepFinished)] == kept
    await journal.aclose()


# Damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("UPDATE events SET data = 'nonsense' WHERE run = 1 AND seq = 2", "number 2: "),
        (
            'UPDATE events SET data = \'{"event": "Later"}\', refs = NULL WHERE run = 1 AND seq = 2',
            "number 2: .*'Later'",
        ),
        (
            'UPDATE events SET data = \'{"event": "StepFinished"}\', refs = NULL WHERE run = 1 AND seq = 2',
            "number 2: .*path",
        ),
        ("UPDATE events SET refs = 'nonsense' WHERE run = 1 AND seq = 2", "number 2: "),
        ("UPDATE events SET refs = 5 WHERE run = 1 AND seq = 2", "number 2: "),
        ("DELETE FROM content", "number 2: its output is missing"),
        ("UPDATE content SET data = CAST('\"other\"' AS BLOB)", "number 2: its output is damaged"),
    ],
)
async def test_a_damaged_event_is_told(journal: SqliteJournal, damage: str, reason: str) -> None:
    """With the run and the event's number; other runs can be read."""
    await begin(journal, "r", step("x" * 1000), step(2))
    await begin(journal, "other", step(2))
    journal._connection.execute(damage)
    with pytest.raises(JournalError, match=rf"run r in .*runs\.db holds an event that cannot be read, {reason}"):
        await journal.events("r")
    assert (await journal.events("other"))[1:] == [step(2)]


async def test_damaged_file_is_told(tmp_path: Path) -> None:
    """A file that is no database is refused in one line."""
    path = tmp_path / "runs.db"
    path.write_bytes(b"not a database at all, " * 100)
    with pytest.raises(JournalError, match="it is no SQLite file") as caught:
        SqliteJournal(path)
    assert "\n" not in str(caught.value)


# Schemas


def older_file(path: Path, run: tuple[Any, ...], events: Sequence[Event]) -> None:
    """Make a file of the first version, with one run."""
    old = sqlite3.connect(path)
    old.executescript(VERSION_1)
    old.execute(f"PRAGMA application_id = {int.from_bytes(b'agrt')}")
    old.execute("PRAGMA user_version = 1")
    old.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", run)
    old.executemany("INSERT INTO events VALUES (?, ?, ?)", [(run[0], i, encode(e)) for i, e in enumerate(events, 1)])
    old.commit()
    old.close()


async def test_an_older_file_goes_on(tmp_path: Path) -> None:
    """Its runs can be read, claimed and written to."""
    path = tmp_path / "runs.db"
    events: list[Event] = [started(), step("x" * 1000)]
    older_file(path, (7, "r", "brief", "done", 1.0, 3.0, 42, 700), events)
    for latest in (3.0, 2.0):  # the second time it is up to date
        journal = SqliteJournal(path)
        assert await journal.run("r") == RunSummary(
            run_id="r",
            name="brief",
            status="done",
            started=1.0,
            ended=3.0,
            tokens=42,
            cost=700,
            worked=2.0,
            latest=latest,
        )
        assert await journal.events("r") == events
        epoch = await journal.claim("r", "me", seconds=30)
        await journal.append("r", epoch, [step(3)])
        await journal.release("r", epoch)
        events.append(step(3))
        assert await journal.events("r") == events
        await journal.write_note("notes", "a", f"{latest}")
        assert [note.text for note in await journal.notes("notes")] == [f"{latest}"]
        await journal.aclose()


async def test_a_file_between_two_versions_is_refused_as_it_is_opened(tmp_path: Path) -> None:
    """And not run by run: it says that it is of this version, and lacks a column."""
    path = tmp_path / "runs.db"
    await SqliteJournal(path).aclose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN due")
    with pytest.raises(JournalError, match=r"between two versions \(due is missing\): move it away"):
        SqliteJournal(path)


async def test_a_run_that_waits_in_an_older_file_is_due(tmp_path: Path) -> None:
    """Once, for nobody knows what it waits for; until it parks again."""
    path = tmp_path / "runs.db"
    older_file(path, (7, "r", "brief", "waiting", 1.0, None, 42, 700), [started()])
    journal = SqliteJournal(path)
    assert (await journal.run("r")).due == 0.0
    epoch = await journal.claim("r", "me", seconds=30)
    await journal.append("r", epoch, [RunParked(run_id="r", at=2.0, usage=Usage(), questions=("a",))])
    assert (await journal.run("r")).due is None
    await journal.aclose()


async def test_newer_schema_is_told(journal: SqliteJournal) -> None:
    """A file of a newer agentrt is left alone."""
    journal._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match=r"newer agentrt \(schema 99"):
        SqliteJournal(journal.path)


async def test_another_programs_database_is_told(tmp_path: Path) -> None:
    """A database with tables of somebody else gets none of ours."""
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(JournalError, match="another program's database"):
        SqliteJournal(path)


# URLs


@pytest.mark.parametrize("url", ["runs.db", "postgres://x/y", "sqlite://", "sqlite:///", ""])
async def test_store_that_cannot_be_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that names no store says how to write one; an empty one is the default."""
    monkeypatch.setenv("AGENTRT_STORE", "nonsense")
    with pytest.raises(JournalError, match="sqlite:///"):
        open_store(url)


async def test_missing_folder_is_told(tmp_path: Path) -> None:
    """A path into nowhere is not made up."""
    with pytest.raises(JournalError, match="check that its folder exists"):
        open_store(f"sqlite:///{tmp_path}/nowhere/runs.db")


async def test_default_store_is_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`AGENTRT_STORE` names the store, else it is a file in the user's data, whose folder is made."""
    monkeypatch.setenv("AGENTRT_STORE", "sqlite:///here.db")
    assert default_store() == "sqlite:///here.db"
    monkeypatch.delenv("AGENTRT_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store().endswith("agentrt/runs.db")
