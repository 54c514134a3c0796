"""A seed decides which of the tasks that are ready goes first."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from itertools import permutations

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import END, START, Graph, collect, run
from agentrt.testing import run_virtual


async def served(n: int = 3, turns: int = 1) -> str:
    """Return the order in which some tasks take their turns."""
    order: list[str] = []

    async def task(name: str) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
            order.append(name)

    async with anyio.create_task_group() as tasks:
        for name in "abcdefgh"[:n]:
            tasks.start_soon(task, name)
    return "".join(order)


def test_every_order_comes() -> None:
    """Even one in which a task takes all its turns before another takes its first."""
    assert {run_virtual(served, seed=seed) for seed in range(200)} == {"".join(p) for p in permutations("abc")}
    assert {"aabb", "bbaa"} <= {run_virtual(served, 2, 2, seed=seed) for seed in range(200)}


def test_without_a_seed_it_is_first_come_first_served() -> None:
    """As in every event loop of asyncio."""
    assert run_virtual(served, 3, 2) == "abcabc"


@given(seed=st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_order(seed: int) -> None:
    """So that a failure can be had again."""
    assert run_virtual(served, 5, 3, seed=seed) == run_virtual(served, 5, 3, seed=seed)


CANCELLED = """
import anyio
from agentrt.testing import run_virtual

async def main():
    async def task(name):
        try:
            await anyio.sleep_forever()
        finally:
            print(name, end="")
    async with anyio.create_task_group() as tasks:
        for name in "abcdefghijklmnop":
            tasks.start_soon(task, name)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()

run_virtual(main, seed=7)
"""


def test_the_order_is_the_same_in_every_process() -> None:
    """Also where anyio walks a set of tasks, whose order depends on where they are in memory."""
    there = subprocess.run([sys.executable, "-c", CANCELLED], capture_output=True, text=True, check=True).stdout
    junk = [object() for _ in range(12345)]
    with redirect_stdout(StringIO()) as here:
        exec(CANCELLED, {})
    assert (here.getvalue(), len(junk)) == (there, 12345)
    assert sorted(there) == list("abcdefghijklmnop")


@given(seed=st.integers(0, 2**32))
def test_callbacks_keep_their_order_and_come_no_later(seed: int) -> None:
    """Protocols rely on it; a task that became ready after a callback never runs before it."""
    seen: list[str] = []

    async def late() -> None:
        seen.append("task")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for name in "xyz":
            loop.call_soon(seen.append, name)
        await asyncio.gather(*(asyncio.create_task(late()) for _ in range(3)))

    run_virtual(main, seed=seed)
    assert seen == ["x", "y", "z", "task", "task", "task"]


def race() -> Graph[int, list[int]]:
    """Build a graph with a race in its code: two branches read, wait, and write."""
    account = [0]

    async def add(x: int) -> int:
        was = account[0]
        await anyio.lowlevel.checkpoint()
        account[0] = was + x
        return account[0]

    async def split(x: int) -> list[int]:
        return [x, x, x]

    graph: Graph[int, list[int]] = Graph("g", input=int, output=list[int])
    graph.edge(START, split)
    graph.edge(split, add, each=True)
    graph.edge(add, END, join=collect)
    return graph


def test_steps_of_a_graph_are_interleaved() -> None:
    """A lost update that depends on the order shows in some and not in others."""

    async def main() -> int:
        return max((await run(race(), 1, concurrency=2)).output)

    assert {run_virtual(main, seed=seed) for seed in range(60)} >= {2, 3}


@pytest.mark.anyio
@pytest.mark.interleavings(5)
async def test_time_stands_still_while_somebody_is_kept_waiting() -> None:
    """A task that was put off is ready: no timer overtakes it."""
    began = anyio.current_time()

    async def busy() -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert anyio.current_time() == began

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(busy)
        tasks.start_soon(anyio.sleep, 0.001)
