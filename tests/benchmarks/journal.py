"""Steps a second that the journal's stores keep, beside a bare SQLite file with one commit each, just before.

    python -m tests.benchmarks.journal [memory sqlite postgres]

A step is two events: that it starts, with 200 bytes of input, and that it has ended, with 1 KB of output; each is one
append, or both are. Each of the appenders writes to a run of its own and waits for each append. PostgreSQL is that of
the tests.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from agentrt.events import Event, RunStarted, StepFinished, StepStarted, encode
from agentrt.journal import Journal
from agentrt.stores import MemoryJournal, PostgresJournal, SqliteJournal
from tests.stores.postgresql import Server

WORK = ((1, 2), (16, 2), (256, 2), (256, 1))
"""How many append at once, and in how many appends a step."""
SECONDS = 3.0
INPUT = {"query": "why did churn rise? " * 9, "k": 5}


def started(i: int) -> StepStarted:
    return StepStarted(path=f"brief/researcher[{i}]", at=time.time(), name="researcher", kind="function", input=INPUT)


def finished(i: int, run: int) -> StepFinished:
    return StepFinished(path=f"brief/researcher[{i}]", at=time.time(), output=[f"passage {run} {i}", "word " * 200])


async def measure(journal: Journal, appenders: int, appends: int) -> tuple[float, float, float]:
    """Return steps a second, the milliseconds an append took in the middle, and the CPU µs of a step."""
    ends = time.perf_counter() + SECONDS
    taken: list[float] = []

    async def append(run: int) -> None:
        run_id = f"{appenders}-{appends}-{run}"
        epoch = await journal.claim(run_id, "benchmark", seconds=60, new=True)
        await journal.append(run_id, epoch, [RunStarted(run_id=run_id, at=time.time(), name="b", input="", limits={})])
        i = 0
        while time.perf_counter() < ends:
            step: list[Event] = [started(i), finished(i, run)]
            for events in [step] if appends == 1 else [step[:1], step[1:]]:
                began = time.perf_counter()
                await journal.append(run_id, epoch, events)
                taken.append(time.perf_counter() - began)
            i += 1

    began, cpu = time.perf_counter(), time.process_time()
    async with anyio.create_task_group() as tasks:
        for run in range(appenders):
            tasks.start_soon(append, run)
    steps, cpu = len(taken) / appends, time.process_time() - cpu
    return steps / (time.perf_counter() - began), sorted(taken)[len(taken) // 2] * 1000, cpu / steps * 1e6


def floor(folder: Path) -> float:
    """Return steps a second of one bare connection that commits each event."""
    path = folder / "floor.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, data BLOB)")
    rows = [encode(started(1)), encode(finished(1, 1))]
    ends, n = time.perf_counter() + SECONDS / 3, 0
    while time.perf_counter() < ends:
        for row in rows:
            connection.execute("INSERT INTO events (data) VALUES (?)", (row,))
        n += 1
    connection.close()
    path.unlink()
    return n / (SECONDS / 3)


@asynccontextmanager
async def memory(folder: Path) -> AsyncIterator[Journal]:
    yield MemoryJournal()


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Journal]:
    journal = SqliteJournal(folder / "runs.db")
    yield journal
    await journal.aclose()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Journal]:
    with Server(fsync=True) as server:
        journal = PostgresJournal(server.url)
        yield journal
        await journal.aclose()


STORES: dict[str, Callable[[Path], AbstractAsyncContextManager[Journal]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "postgres": postgres,
}


async def main(names: list[str]) -> None:
    print("store      appenders appends   steps/s bare file  ms an append  CPU µs a step")
    with TemporaryDirectory() as folder:
        for name in names:
            async with STORES[name](Path(folder)) as journal:
                for appenders, appends in WORK:
                    bare = floor(Path(folder))
                    steps, middle, cpu = await measure(journal, appenders, appends)
                    print(
                        f"{name:10} {appenders:9} {appends:7} {steps:9,.0f} {bare:9,.0f} {middle:13.2f} {cpu:14.0f}",
                        flush=True,
                    )


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:] or list(STORES))
