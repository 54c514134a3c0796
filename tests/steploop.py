"""An event loop that does one thing at a time, on a clock of its own, and can be interfered with between any two.

Between two callbacks of a loop is every moment at which a task can be cancelled; by counting them a test can try each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio


class StepLoop(asyncio.SelectorEventLoop):
    """Call `interfere` before the `at`-th callback, from 1. Waiting takes no time, and `pass_time` makes it later."""

    def __init__(self, at: int = 0, interfere: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.steps = 0
        self._at = at
        self._interfere = interfere
        self._ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    def pass_time(self, seconds: float) -> None:
        """Let so many seconds have passed."""
        self._ahead += seconds

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        self.steps += 1
        if self.steps == self._at and self._interfere is not None:
            self._interfere()
        if not ready:
            self._pass_time()
        later = [ready.pop() for _ in range(len(ready) - 1)]
        super()._run_once()  # type: ignore[misc]
        ready.extendleft(later)  # before what the one callback has made ready

    def _pass_time(self) -> None:
        """Go to the next moment at which something is due; threads are not waited for."""
        due = [h.when() for h in self._scheduled if not h.cancelled()]  # type: ignore[attr-defined]
        if not due:
            raise RuntimeError("deadlock: everything waits, and nothing is due")
        self._ahead += max(0.0, min(due) - self.time())


def run_stepwise(main: Callable[[], Awaitable[Any]], loop: StepLoop) -> Any:
    """Run like `anyio.run`, on this loop."""
    return anyio.run(main, backend_options={"loop_factory": lambda: loop})
