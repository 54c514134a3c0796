"""Measure what a journal costs a run, beside the same run without one, and print a Markdown table.

    python tests/benchmarks/durable.py [--postgres]

Works, all in one process and in turn:
    side by side   10,000 idempotent tools, 256 at once, each with its intent on disk before it begins
    one by one     300 of them in a chain: what a lone step waits for the disk
    resume         a run of 100,000 finished steps whose last step failed, gone on with
    growth         a loop of 400 steps with 1 KB new content each: what the store's files hold

`--postgres` starts a PostgreSQL of its own, as the tests do. "added" is wall time above that of the run without a
journal; the disk's own speed swings on shared machines, so look at the bare file beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from agentrt import END, START, Context, Graph, StepFailed, collect, resume, run, tool
from agentrt.journal import Journal
from agentrt.stores import SqliteJournal, open_store

SIDE_BY_SIDE, ONE_BY_ONE, FINISHED, ROUNDS = 10_000, 300, 100_000, 400
broken = [True]


@tool(effect="idempotent")
async def work(i: int) -> str:
    """Work a little."""
    await anyio.lowlevel.checkpoint()
    return f"{i:06d} " + "x" * 200


async def items(n: int) -> list[int]:
    return list(range(n))


async def one(i: int) -> str:
    return f"{i:06d} " + "x" * 100


async def last(found: list[str]) -> int:
    if broken[0]:
        raise RuntimeError("not yet")
    return len(found)


async def in_turn(n: int, ctx: Context) -> int:
    for i in range(n):
        await ctx.run(work, i)
    return n


async def longer(text: str) -> str:
    return os.urandom(512).hex()


def fan(node: Any) -> Graph[int, list[str]]:
    graph = Graph("fan", input=int, output=list[str])
    graph.edge(START, items)
    graph.edge(items, node, each=True)
    graph.edge(node, END, join=collect)
    return graph


unfinished = Graph("unfinished", input=int, output=int)
unfinished.edge(START, items)
unfinished.edge(items, one, each=True)
unfinished.edge(one, last, join=collect)
unfinished.edge(last, END)

loop = Graph("loop", input=str, output=str)
loop.edge(START, longer)
loop.edge(longer, longer, times=ROUNDS - 1)
loop.edge(longer, END)


async def seconds(task: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await task()
    return time.perf_counter() - began


def bare_file() -> float:
    """Return the seconds that one small write takes to be on this disk."""
    with tempfile.NamedTemporaryFile(dir=".") as file:
        began = time.perf_counter()
        for _ in range(100):
            os.write(file.fileno(), b"x" * 500)
            os.fsync(file.fileno())
        return (time.perf_counter() - began) / 100


async def side_by_side(journal: Journal) -> str:
    graph = fan(work)
    plain = await seconds(lambda: run(graph, SIDE_BY_SIDE, concurrency=256))
    kept = await seconds(lambda: run(graph, SIDE_BY_SIDE, concurrency=256, journal=journal))
    return f"{SIDE_BY_SIDE / kept:,.0f} steps/s; without a journal {SIDE_BY_SIDE / plain:,.0f}"


async def one_by_one(journal: Journal) -> str:
    plain = await seconds(lambda: run(in_turn, ONE_BY_ONE))
    kept = await seconds(lambda: run(in_turn, ONE_BY_ONE, journal=journal))
    return (
        f"{(kept - plain) / ONE_BY_ONE * 1e3:.2f} ms added to a step; the disk takes {bare_file() * 1e3:.2f} ms a write"
    )


async def resumed(journal: Journal) -> str:
    broken[0] = True
    try:
        await run(unfinished, FINISHED, journal=journal, run_id="resumed")
    except StepFailed:
        broken[0] = False
    took = await seconds(lambda: resume(unfinished, "resumed", journal=journal))
    return f"{took:.1f} s for {FINISHED:,} finished steps"


async def growth(journal: Journal) -> str:
    assert isinstance(journal, SqliteJournal)
    await run(loop, "begin", journal=journal)
    await journal.aclose()  # what is on disk then is all in one file
    return f"{journal.path.stat().st_size / 1e6:.2f} MB for {ROUNDS} steps of 1 KB"


async def measure(url: str, folder: Path) -> None:
    name = url.partition(":")[0]
    works: list[tuple[str, Callable[[Journal], Awaitable[str]]]] = [
        ("side by side", side_by_side),
        ("one by one", one_by_one),
        ("resume", resumed),
    ]
    if name == "sqlite":
        works.append(("growth", growth))
    for label, task in works:
        address = f"sqlite:///{folder / label.replace(' ', '-')}.db" if name == "sqlite" else url
        journal = await anyio.to_thread.run_sync(open_store, address)
        try:
            print(f"| {name} | {label} | {await task(journal)} |", flush=True)
        finally:
            await journal.aclose()


@contextmanager
def stores(*, postgres: bool) -> Iterator[list[str]]:
    if not postgres:
        yield ["sqlite:"]
        return
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.stores.postgresql import Server

    with Server(fsync=True) as server:
        yield ["sqlite:", server.url]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a journal costs a run.")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL, too")
    with stores(postgres=parser.parse_args().postgres) as urls, tempfile.TemporaryDirectory(dir=".") as folder:
        print("| store | work | figures |\n|---|---|---|")
        for url in urls:
            anyio.run(measure, url, Path(folder))


if __name__ == "__main__":
    main()
