"""Virtual time jumps when everything waits, and waits itself for what is outside the loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio import from_thread

from agentrt import END, START, Budget, BudgetExceeded, Graph, first, run
from agentrt.testing import run_virtual, virtual_backend, virtual_loop


@pytest.fixture(params=["asyncio", "trio"])
def virtually(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run in virtual time on either backend."""
    pytest.importorskip(request.param)
    return partial(run_virtual, backend=request.param)


def real(function: Callable[[], Awaitable[Any]]) -> float:
    """Return how many real seconds a function takes in virtual time."""
    began = time.monotonic()
    run_virtual(function)
    return time.monotonic() - began


def test_sleeping_takes_no_time_and_exactly_as_long_as_it_says(virtually: Callable[..., Any]) -> None:
    """A day and a half; those who sleep side by side wake in order."""
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        began = anyio.current_time()
        await anyio.sleep(seconds)
        woken.append(anyio.current_time() - began)

    async def main(longest: float) -> None:
        async with anyio.create_task_group() as tasks:
            for seconds in (longest, 2.0, 1.0, 2.5):
                tasks.start_soon(sleeper, seconds)

    began = time.monotonic()
    virtually(main, 129_600.0)
    assert time.monotonic() - began < 60
    assert woken == pytest.approx([1.0, 2.0, 2.5, 129_600.0], abs=1e-9)


def test_deadlines_of_scopes_and_budgets_follow(virtually: Callable[..., Any]) -> None:
    """`fail_after`, `move_on_after` and `seconds`, to the moment."""

    async def slow(x: int) -> int:
        await anyio.sleep(100)
        return x

    async def main() -> float:
        began = anyio.current_time()
        with anyio.move_on_after(7) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(5):
            await anyio.sleep(6)
        with pytest.raises(BudgetExceeded, match="its time of 60 s is over"):
            await run(slow, 1, budget=Budget(seconds=60))
        await run(slow, 1, budget=Budget(seconds=101))
        return anyio.current_time() - began

    assert virtually(main) == pytest.approx(7 + 5 + 60 + 100)


def test_the_faster_branch_wins_by_its_time() -> None:
    """A graph whose outcome depends on time needs no real time to be tested."""

    async def rabbit(x: int) -> str:
        await anyio.sleep(300)
        return "rabbit"

    async def turtle(x: int) -> str:
        await anyio.sleep(299.9)
        return "turtle"

    race = Graph("race", input=int, output=str)
    race.edge(START, [rabbit, turtle])
    race.edge(rabbit, END, join=first())
    race.edge(turtle, END, join=first())

    async def main() -> str:
        return (await run(race, 1)).output

    assert run_virtual(main) == "turtle"


def test_time_waits_for_threads() -> None:
    """A deadline does not pass while a thread works for less than that, in anyio's threads and in asyncio's."""

    async def main() -> None:
        with anyio.fail_after(30):
            await anyio.to_thread.run_sync(time.sleep, 0.05)
            await asyncio.to_thread(time.sleep, 0.05)
        assert anyio.current_time() == 0

    assert real(main) >= 0.1


def test_a_stuck_thread_meets_its_deadline_in_real_time() -> None:
    """Counted from when the deadline was set, whatever was waited for before."""
    done = threading.Event()

    async def main() -> None:
        with anyio.fail_after(5):
            await anyio.to_thread.run_sync(time.sleep, 0.15)
        with anyio.move_on_after(0.2) as scope:
            await anyio.to_thread.run_sync(done.wait, abandon_on_cancel=True)
        assert scope.cancelled_caught
        await anyio.sleep(1000)  # the thread is abandoned: nobody waits for it any more
        done.set()

    assert 0.35 <= real(main) < 60


def test_a_thread_may_wait_for_the_loop() -> None:
    """What it sleeps in the loop passes in real time: no deadlock."""

    async def main() -> None:
        await anyio.to_thread.run_sync(from_thread.run, anyio.sleep, 0.05)
        assert anyio.current_time() == pytest.approx(0.05)

    assert real(main) >= 0.05


def test_time_waits_for_open_sockets_without_spinning() -> None:
    """The other end takes its time, for real; once the connection is closed, time jumps again."""
    here, there = socket.socketpair()

    def answer_slowly() -> None:
        there.recv(1)
        time.sleep(0.2)
        there.sendall(b"x")
        there.close()

    async def main() -> None:
        reader, writer = await asyncio.open_connection(sock=here)
        thread = threading.Thread(target=answer_slowly)
        thread.start()
        worked = time.thread_time()
        with anyio.fail_after(60):
            writer.write(b"?")
            assert await reader.read() == b"x"
        assert anyio.current_time() == 0
        assert time.thread_time() - worked < 0.1
        writer.close()
        await writer.wait_closed()
        thread.join()
        await anyio.sleep(1000)

    assert 0.2 <= real(main) < 60


def test_pytest_and_others_take_the_loop_by_its_factory() -> None:
    """`asyncio.Runner(loop_factory=virtual_loop)`, and anyio's backend options."""

    async def main() -> float:
        await asyncio.sleep(50)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=virtual_loop) as runner:
        assert runner.run(main()) == 50
    name, options = virtual_backend()
    assert anyio.run(main, backend=name, backend_options=options) == 50


def test_trio_takes_no_seed() -> None:
    """It has no such thing; better an error than an order that cannot be had again."""
    with pytest.raises(ValueError, match="needs the asyncio backend"):
        virtual_backend(1, "trio")
