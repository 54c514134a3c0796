"""An event loop that does one thing at a time, on a clock of its own, and can be interfered with between any two.

Between two callbacks of a loop is every moment at which a task can be cancelled; by counting them a test can try each.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio


class StepLoop(asyncio.SelectorEventLoop):
    """Call `interfere` before the `at`-th callback, from 1. Waiting takes no time, and `pass_time` makes it later."""

    def __init__(self, at: int = 0, interfere: Callable[[], object] | None = None) -> None:
        self._now = 0.0
        super().__init__()
        self.steps = 0
        self._at = at
        self._interfere = interfere

    def time(self) -> float:
        """Return a time that only this loop moves: so the same moments come again, however slow the machine is."""
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Let so many seconds have passed."""
        self._now += seconds

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        self.steps += 1
        if self.steps == self._at and self._interfere is not None:
            self._interfere()
        if not ready:
            self._pass_time()
        self._make_due_ready(ready)
        later = [ready.pop() for _ in range(len(ready) - 1)]
        super()._run_once()  # type: ignore[misc]
        ready.extendleft(later)  # before what the one callback has made ready

    def _make_due_ready(self, ready: deque[Any]) -> None:
        """Put timers that are due behind what is ready already, as asyncio does."""
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].when() <= self._now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if timer.cancelled():
                self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            else:
                ready.append(timer)

    def _pass_time(self) -> None:
        """Go to the next moment at which something is due; threads are not waited for."""
        due = [h.when() for h in self._scheduled if not h.cancelled()]  # type: ignore[attr-defined]
        if not due:
            raise RuntimeError("deadlock: everything waits, and nothing is due")
        self._now = max(self._now, min(due))


def run_stepwise(main: Callable[[], Awaitable[Any]], loop: StepLoop) -> Any:
    """Run like `anyio.run`, on this loop."""
    return anyio.run(main, backend_options={"loop_factory": lambda: loop})
