"""Events are stamped by the machine's clock, or by the event loop's time where that is another."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import anyio
import anyio.to_thread

from agentrt import Budget, Context, run
from agentrt import events as ev
from agentrt.clock import event_clock
from agentrt.testing import run_virtual


def test_in_real_time_it_is_the_machines_clock() -> None:
    """The very function: it costs nothing, and is right after the machine slept."""

    async def main() -> bool:
        return event_clock() is time.time

    assert anyio.run(main)


def test_in_virtual_time_it_goes_with_the_loop() -> None:
    """From now on, exactly, also when a thread asks."""

    async def main() -> tuple[float, float]:
        clock = event_clock()
        began = clock()
        await anyio.sleep(1000)
        return began, await anyio.to_thread.run_sync(clock)

    began, later = run_virtual(main)
    assert abs(time.time() - began) < 60
    assert later - began == 1000


def test_events_of_a_run_follow_virtual_time() -> None:
    """A step that sleeps for an hour takes an hour, whatever the thread that speaks of it."""
    events: list[ev.Event] = []

    def told(x: int, ctx: Context) -> int:
        ctx.emit(threading.get_ident())
        return x

    async def slow(x: int, ctx: Context) -> int:
        await anyio.sleep(3600)
        return await ctx.run(told, x)

    async def main() -> int:
        return (await run(slow, 1, budget=Budget(seconds=4000), observers=[events.append])).output

    assert run_virtual(main) == 1
    assert [e.at - events[0].at for e in events if isinstance(e, ev.Emitted | ev.RunFinished)] == [3600, 3600]


def test_on_trio_nothing_imports_asyncio_to_ask() -> None:
    """In a process of its own, where nothing has; it is the time all the same."""
    code = (
        "import sys, time, anyio\n"
        "from agentrt.clock import event_clock\n"
        "async def main(): return abs(event_clock()() - time.time()) < 60\n"
        "assert anyio.run(main, backend='trio')\n"
        "assert 'asyncio' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
