"""Whole runs on stores that fail under them: nothing begins that cannot be recorded, and what goes on pays once."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from agentrt import END, START, Agent, Context, Graph, JournalError, Result, StepFailed, collect, resume, run, tool
from agentrt import events as ev
from agentrt.journal import Journal
from agentrt.messages import ToolMessage
from agentrt.model import ModelRequest
from agentrt.recorded import Recorded
from agentrt.stores import MemoryJournal, PostgresJournal, SqliteJournal
from agentrt.stores.content import LIMIT
from agentrt.testing import FunctionModel, call
from agentrt.usage import Usage
from tests.stores.postgresql import Server
from tests.stores.test_sqlite import older_file

pytestmark = pytest.mark.anyio

RUN = "r"
WORDS = 6
TROUBLE = 6
"""The model call, from 1, in which something happens to the store: half the run is on record then."""
PAGE = "x" * 4096

Trouble = Callable[[], Awaitable[None]]


class World:
    """Be what is outside of a run: what the model was asked there, and what a tool did, by its key."""

    def __init__(self, trouble: Trouble | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.uses: list[str] = []
        self._trouble = trouble

        @tool(effect="keyed")
        async def book(word: str, ctx: Context) -> str:
            """Book a word."""
            self.uses.append(ctx.key)
            await anyio.lowlevel.checkpoint()
            return f"{word} booked {PAGE}"

        async def say(request: ModelRequest) -> Any:
            word, told = request.messages[0].text, [m.text for m in request.messages if isinstance(m, ToolMessage)]
            self.asked.append((word, len(told)))
            if len(self.asked) == TROUBLE and self._trouble is not None:
                await self._trouble()
            return told[0].removesuffix(PAGE) + "." if told else call("book", word=word)

        async def words(n: int) -> list[str]:
            return [f"word {i}" for i in range(n)]

        agent = Agent("agent", model=FunctionModel(say), tools=[book])
        self.graph = Graph("graph", input=int, output=list[str])
        self.graph.edge(START, words)
        self.graph.edge(words, agent, each=True)
        self.graph.edge(agent, END, join=collect)

    async def begin(self, journal: Journal, run_id: str = RUN) -> Result[list[str]]:
        return await run(self.graph, WORDS, journal=journal, run_id=run_id, concurrency=2)


class Undisturbed:
    """Hold what a run without trouble does."""

    def __init__(self) -> None:
        self.world = World()
        self.result: Result[list[str]] = anyio.run(self.world.begin, MemoryJournal())


@pytest.fixture(scope="module")
def undisturbed() -> Undisturbed:
    return Undisturbed()


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "runs.db")
    yield journal
    await journal.aclose()


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteJournal | PostgresJournal]:
    journal: SqliteJournal | PostgresJournal
    if request.param == "sqlite":
        journal = SqliteJournal(tmp_path / "runs.db")
    else:
        server = request.getfixturevalue("server")
        server.sql("DROP SCHEMA IF EXISTS agentrt CASCADE")
        journal = PostgresJournal(server.url)
    yield journal
    await journal.aclose()


def reserved(record: Sequence[ev.Event]) -> dict[str, Usage]:
    """Return what the calls in doubt may have cost, by path."""
    return {path: usage for path, usage in Recorded(record).reserved.items() if usage.tokens}


def check_stopped(world: World, record: Sequence[ev.Event]) -> None:
    """Check that no call has begun whose intent is not on record, and that the run had neither just begun nor ended."""
    assert len(world.asked) <= sum(isinstance(e, ev.UsageReserved) for e in record)
    assert len(world.uses) <= sum(isinstance(e, ev.EffectBegun) for e in record)
    assert any(isinstance(e, ev.StepFinished) for e in record)
    assert not any(isinstance(e, ev.RunFinished | ev.RunFailed | ev.RunCancelled) for e in record)


async def check_goes_on(undisturbed: Undisturbed, world: World, journal: Journal) -> None:
    """Go on with a run, and check that all was done and paid once, but for what the record calls in doubt."""
    record = await journal.events(RUN)
    doubts = reserved(record)
    result = await resume(world.graph, RUN, journal=journal)
    assert result.output == undisturbed.result.output
    again = Counter(world.asked) - Counter(undisturbed.world.asked)
    assert not Counter(undisturbed.world.asked) - Counter(world.asked)
    assert again.total() <= len(doubts)
    doubt = sum(usage.tokens for usage in doubts.values())
    assert result.usage.tokens == undisturbed.result.usage.tokens + doubt
    assert result.usage.uncertain == doubt
    in_flight = sum(step.began for step in Recorded(record).steps.values() if step.ended is None)
    assert set(world.uses) == set(undisturbed.world.uses)
    assert len(world.uses) - len(undisturbed.world.uses) <= in_flight


# The disk is full


async def test_a_full_disk(undisturbed: Undisturbed, file: SqliteJournal) -> None:
    """The run stops and says what to do; after room is made it goes on."""

    async def fill() -> None:
        (pages,) = file._connection.execute("PRAGMA page_count").fetchone()
        file._connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    world = World(fill)
    with pytest.raises(JournalError, match=r"runs\.db: database or disk is full; the disk is full: make room, or"):
        await world.begin(file)
    check_stopped(world, await file.events(RUN))
    file._connection.execute("PRAGMA max_page_count = 1000000")
    await check_goes_on(undisturbed, world, file)


# Another keeps the file locked


async def test_a_file_that_is_locked_for_a_while(undisturbed: Undisturbed, file: SqliteJournal) -> None:
    """Is waited for: the run does as without, and no call begins meanwhile but those on record."""
    other = sqlite3.connect(file.path, isolation_level=None)

    async def lock() -> None:
        other.execute("BEGIN IMMEDIATE")
        await anyio.sleep(0.1)
        asked = len(world.asked)
        intents = sum(isinstance(e, ev.UsageReserved) for e in await file.events(RUN))
        assert asked <= intents
        other.execute("COMMIT")

    world = World(lock)
    result = await world.begin(file)
    other.close()
    assert (result.output, result.usage.tokens) == (undisturbed.result.output, undisturbed.result.usage.tokens)
    assert Counter(world.asked) == Counter(undisturbed.world.asked)
    assert sorted(world.uses) == sorted(undisturbed.world.uses)


async def test_a_file_that_stays_locked(undisturbed: Undisturbed, file: SqliteJournal) -> None:
    """Stops the run, which goes on when it is free."""
    other = sqlite3.connect(file.path, isolation_level=None)
    file._connection.execute("PRAGMA busy_timeout = 20")

    async def lock() -> None:
        other.execute("BEGIN IMMEDIATE")

    world = World(lock)
    with pytest.raises(JournalError, match=r"runs\.db: database is locked; another process keeps it locked: let that"):
        await world.begin(file)
    other.execute("COMMIT")
    other.close()
    check_stopped(world, await file.events(RUN))
    await check_goes_on(undisturbed, world, file)


# The server goes away


@pytest.mark.parametrize("end", [Server.crash, Server.stop], ids=["crash", "stop"])
async def test_a_server_that_comes_back(
    undisturbed: Undisturbed, mortal: Server, end: Callable[[Server], None]
) -> None:
    """Is waited for: the run does as without."""
    mortal.sql("DROP SCHEMA IF EXISTS agentrt CASCADE")

    async def restart() -> None:
        await to_thread.run_sync(end, mortal)
        await to_thread.run_sync(mortal.start)

    world, journal = World(restart), PostgresJournal(mortal.url)
    result = await world.begin(journal)
    assert (result.output, result.usage.tokens) == (undisturbed.result.output, undisturbed.result.usage.tokens)
    assert Counter(world.asked) == Counter(undisturbed.world.asked)
    assert sorted(world.uses) == sorted(undisturbed.world.uses)
    record = await journal.events(RUN)
    assert len(record) == len(set(map(ev.encode, record)))
    await journal.aclose()


async def test_a_server_that_stays_away(undisturbed: Undisturbed, mortal: Server) -> None:
    """Stops the run, which goes on when the server is back."""
    mortal.sql("DROP SCHEMA IF EXISTS agentrt CASCADE")
    journal = PostgresJournal(mortal.url)

    async def end() -> None:
        journal._writer._server.patience = 0.5
        await to_thread.run_sync(mortal.crash)

    world = World(end)
    with pytest.raises(JournalError, match=r"cannot be reached .*check that the server runs"):
        await world.begin(journal)
    await to_thread.run_sync(mortal.start)
    later = PostgresJournal(mortal.url)
    check_stopped(world, await later.events(RUN))
    await check_goes_on(undisturbed, world, later)
    await journal.aclose()
    await later.aclose()


# An event is damaged


def overwrite(store: SqliteJournal | PostgresJournal, server: Server, number: int, data: bytes) -> None:
    """Put other bytes in the place of an event's."""
    of_it = f"WHERE seq = {number} AND run = (SELECT id FROM runs WHERE run_id = '{RUN}')"
    if isinstance(store, SqliteJournal):
        store._connection.execute(f"UPDATE events SET data = ? {of_it}", (data,))
    else:
        server.sql(f"SET search_path = agentrt; UPDATE events SET data = '\\x{data.hex()}' {of_it}")


async def test_a_damaged_event(
    undisturbed: Undisturbed, store: SqliteJournal | PostgresJournal, server: Server
) -> None:
    """Going on names the run, the place and what to do; nothing is done or lost, and other runs are as before."""

    async def fail() -> None:
        raise RuntimeError("enough")

    for run_id in (RUN, "other"):
        with pytest.raises(StepFailed, match="enough"):
            await World(fail).begin(store, run_id)
    world = World()
    before = await store.events(RUN)
    number = next(i for i in range(len(before) // 2, len(before)) if len(ev.encode(before[i - 1])) <= LIMIT)
    whole = ev.encode(before[number - 1])
    overwrite(store, server, number, whole[:20] + b"\xff\0" + whole[22:])
    for _ in range(2):
        with pytest.raises(
            JournalError, match=rf"run {RUN} in .* cannot be read, number {number}: .*put back a backup"
        ):
            await resume(world.graph, RUN, journal=store)
        assert (await store.run(RUN)).owner is None
    assert world.asked == []
    assert (await resume(world.graph, "other", journal=store)).output == undisturbed.result.output
    overwrite(store, server, number, whole)  # as a backup would
    assert await store.events(RUN) == before
    assert (await resume(world.graph, RUN, journal=store)).output == undisturbed.result.output


# The file is an older one


async def test_an_older_file(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Is brought up to date, and its unfinished run goes on."""
    memory = MemoryJournal()
    events: list[ev.Event] = []

    async def stop() -> None:
        events.extend(await memory.events(RUN))  # what is kept where the process is killed now
        scope.cancel()

    world = World(stop)
    with anyio.CancelScope() as scope:
        await world.begin(memory)
    path = tmp_path / "runs.db"
    older_file(path, (7, RUN, "graph", "running", 1.0, None, 0, 0), events)
    journal = SqliteJournal(path)
    check_stopped(world, await journal.events(RUN))
    await check_goes_on(undisturbed, world, journal)
    assert (await journal.run(RUN)).status == "done"
    await journal.aclose()
