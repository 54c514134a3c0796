"""An event loop for tests: its time jumps to the next timer, and it may run what is ready in a seeded random order.

Time stands still while tasks work and jumps when all of them wait. What goes on outside the loop cannot be hurried:
while a thread works (`anyio.to_thread`, `run_in_executor`) or a socket or pipe is open the loop waits for it, and the
next timer is due when it has waited as long for real, so that a time-out of a stuck thread still comes.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from typing import Final, TypeAlias, TypeVar, TypeVarTuple, Unpack

import anyio.to_thread

from agentrt.testing.order import Order

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_Events: TypeAlias = list[tuple[selectors.SelectorKey, int]]
_OWN_PIPE: Final = 1
"""What is registered with the selector of every loop: the pipe by which threads wake it."""


class _Selector(selectors.DefaultSelector):
    """Wait for files as the machine does, and let the loop decide how to wait for its timers."""

    def __init__(self, wait: Callable[[Callable[[float | None], _Events], float], _Events]) -> None:
        super().__init__()
        self._wait_for_timer = wait

    def select(self, timeout: float | None = None) -> _Events:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        return self._wait_for_timer(super().select, timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Run tasks as asyncio does, in virtual time that begins at 0.

    With a `seed` the tasks that are ready take their next step in a random order, and some wait for a later round:
    every order in which wake-ups could be served can come, and the same seed gives the same order. Callbacks of the
    loop itself keep their order.
    """

    # What the base class keeps; its own selector loops rely on both, in every version since 3.4.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int | None = None) -> None:
        self._now = 0.0
        self._awaited: asyncio.TimerHandle | None = None
        self._held_up = 0.0
        self._executing = 0
        self._limiter: anyio.CapacityLimiter | None = None
        self._order = None if seed is None else Order(seed)
        self._files = _Selector(self._wait)
        super().__init__(self._files)

    def time(self) -> float:
        """Return the virtual time, in seconds since the loop was made."""
        return self._now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run in a thread, and let time wait for it."""
        future = super().run_in_executor(executor, func, *args)
        self._executing += 1
        future.add_done_callback(self._executed)
        return future

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer. Whoever waits for time is a task, and only a task can ask anyio for its limit of threads."""
        if self._limiter is None and asyncio.current_task(self) is not None:
            self._limiter = anyio.to_thread.current_default_thread_limiter()
        return super().call_at(when, callback, *args, context=context)

    def _executed(self, future: asyncio.Future[T]) -> None:
        self._executing -= 1

    def _run_once(self) -> None:
        if self._order is not None and len(self._ready) > 1:
            now, later = self._order.arrange(self._ready)
            self._ready.clear()
            self._ready.extend(now)
            super()._run_once()  # type: ignore[misc]
            self._ready.extendleft(reversed(later))
        else:
            super()._run_once()  # type: ignore[misc]

    def _wait(self, select: Callable[[float | None], _Events], timeout: float) -> _Events:
        """Wait for the next timer: by jumping there, unless something outside the loop is at work."""
        events = select(0)
        if events or not self._outside():
            return events or self._jump()
        if self._scheduled[0] is not self._awaited:
            self._awaited, self._held_up = self._scheduled[0], 0.0
        began = time.monotonic()
        events = select(max(0.0, timeout - self._held_up))
        self._held_up += time.monotonic() - began
        return events if events or self._held_up < timeout else self._jump()

    def _jump(self) -> _Events:
        self._now = max(self._now, self._scheduled[0].when())
        return []

    def _outside(self) -> bool:
        """Say whether something may happen that no timer of this loop brings about."""
        threads = self._limiter.borrowed_tokens if self._limiter is not None else 0
        return bool(self._executing or threads or len(self._files.get_map()) > _OWN_PIPE)
