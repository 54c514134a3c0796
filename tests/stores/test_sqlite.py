"""The journal in an SQLite file."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from agentrt.errors import JournalError
from agentrt.events import (
    ErrorInfo,
    Event,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    StepFinished,
    UsageRecorded,
)
from agentrt.stores import SqliteJournal, default_store, open_store
from agentrt.usage import Usage

pytestmark = pytest.mark.anyio

USED = Usage(input_tokens=30, output_tokens=12, cost=700)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    store = SqliteJournal(tmp_path / "runs.db")
    yield store
    await store.aclose()


def started(run_id: str, at: float = 1.0) -> RunStarted:
    return RunStarted(run_id=run_id, at=at, name="brief", input="why?", limits={"tokens": 100})


def finished(run_id: str) -> RunFinished:
    return RunFinished(run_id=run_id, at=3.0, output="so", usage=USED, stop_reason="done")


async def test_events_come_back_in_order(journal: SqliteJournal) -> None:
    """Events are returned as they were appended, group after group."""
    step = StepFinished(path="brief/a", at=2.0, output={"n": [1, 2]})
    await journal.append("r1", [started("r1"), step])
    await journal.append("r1", [finished("r1")])
    assert await journal.events("r1") == [started("r1"), step, finished("r1")]


async def test_summary_follows_the_run(journal: SqliteJournal) -> None:
    """The summary counts what is settled while the run goes on, and takes the total where it ends."""
    await journal.append("r1", [started("r1"), UsageRecorded(path="brief/chat", at=2.0, usage=USED)])
    (running,) = await journal.runs()
    await journal.append("r1", [finished("r1")])
    (done,) = await journal.runs()
    assert (running.status, running.ended, running.tokens, running.cost) == ("running", None, 42, 700)
    assert (done.status, done.ended, done.tokens, done.cost) == ("done", 3.0, 42, 700)


@pytest.mark.parametrize(
    ("closing", "status"),
    [
        (RunCancelled(run_id="r1", at=2.0, usage=USED), "cancelled"),
        (
            RunFailed(
                run_id="r1", at=2.0, path="a", error=ErrorInfo("X", "x"), usage=USED, stop_reason="budget_exceeded"
            ),
            "budget_exceeded",
        ),
    ],
)
async def test_status_says_how_a_run_ended(journal: SqliteJournal, closing: Event, status: str) -> None:
    """A run that was cancelled or ran out of budget says so."""
    await journal.append("r1", [started("r1"), closing])
    assert (await journal.runs())[0].status == status


async def test_newest_run_first(journal: SqliteJournal) -> None:
    """Runs are listed by their start, the newest first, at most as many as asked for."""
    for run_id, at in (("old", 1.0), ("new", 3.0), ("middle", 2.0)):
        await journal.append(run_id, [started(run_id, at)])
    assert [r.run_id for r in await journal.runs(2)] == ["new", "middle"]


async def test_a_group_is_kept_whole_or_not_at_all(journal: SqliteJournal) -> None:
    """A group that cannot be appended leaves nothing behind."""
    await journal.append("r1", [started("r1")])
    with pytest.raises(JournalError, match="already holds a run 'r1'"):
        await journal.append("r1", [StepFinished(path="a", at=2.0, output=1), started("r1")])
    assert await journal.events("r1") == [started("r1")]


async def test_unknown_run_is_an_error(journal: SqliteJournal) -> None:
    """Neither reading nor writing invents a run."""
    with pytest.raises(JournalError, match="no run 'nobody'"):
        await journal.events("nobody")
    with pytest.raises(JournalError, match="no run 'nobody'"):
        await journal.append("nobody", [StepFinished(path="a", at=2.0, output=1)])


async def test_two_journals_share_a_file(journal: SqliteJournal) -> None:
    """Runs written at once by two processes are all kept; here two connections stand for them."""
    other = SqliteJournal(journal.path)
    async with anyio.create_task_group() as tasks:
        for i in range(20):
            group: list[Event] = [started(f"r{i}"), finished(f"r{i}")]
            tasks.start_soon((journal, other)[i % 2].append, f"r{i}", group)
    assert len(await other.runs()) == 20
    await other.aclose()


async def test_group_is_on_disk_when_append_returns(journal: SqliteJournal) -> None:
    """What is appended survives a reader that never saw this process."""
    await journal.append("r1", [started("r1")])
    reader = sqlite3.connect(journal.path)
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()


async def test_locked_file_is_told(journal: SqliteJournal) -> None:
    """A file that another process keeps locked is named, with what to do."""
    journal._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match=r"runs\.db: .*another process keeps it locked"):
        await journal.append("r1", [started("r1")])
    other.close()


async def test_full_disk_is_told(journal: SqliteJournal) -> None:
    """A disk without room is named, and what was kept before stays readable."""
    await journal.append("r1", [started("r1")])
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match=r"runs\.db: .*the disk is full: make room"):
        await journal.append("r1", [StepFinished(path="a", at=2.0, output="x" * 100_000)])
    assert await journal.events("r1") == [started("r1")]


async def test_damaged_file_is_told(tmp_path: Path) -> None:
    """A file that is no database is refused in one line."""
    path = tmp_path / "runs.db"
    path.write_bytes(b"not a database at all, " * 100)
    with pytest.raises(JournalError, match="it is no SQLite file") as caught:
        SqliteJournal(path)
    assert "\n" not in str(caught.value)


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


async def test_a_run_that_goes_on_is_running_again(journal: SqliteJournal) -> None:
    """Until it ends anew."""
    await journal.append("r1", [started("r1"), finished("r1")])
    await journal.append("r1", [RunResumed(run_id="r1", at=4.0, name="brief", limits={"tokens": 200})])
    (running,) = await journal.runs()
    assert (running.status, running.ended) == ("running", None)
    await journal.append("r1", [finished("r1")])
    (done,) = await journal.runs()
    assert (done.status, done.ended) == ("done", 3.0)
