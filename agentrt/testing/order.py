"""The order in which an event loop serves what is ready: random, yet the same for the same seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from itertools import count
from typing import Any, cast
from weakref import WeakKeyDictionary


class Order:
    """Arrange the handles of one loop, round by round.

    A step of a task may be served later than its turn, in this round or a later one, never before a callback of the
    loop that came first: that much is promised to whoever uses `call_soon`. Callbacks keep their order.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._next = count()

    def arrange(self, ready: Iterable[asyncio.Handle]) -> tuple[list[asyncio.Handle], list[asyncio.Handle]]:
        """Return what to serve in this round, never nothing, and what to keep for the next."""
        callbacks: list[asyncio.Handle] = []
        steps: list[tuple[int, int, asyncio.Handle]] = []
        for handle in ready:
            if (task := _task(handle)) is None:
                callbacks.append(handle)
            else:
                steps.append((self._number(task), len(callbacks), handle))
        # Sets of tasks, as when a scope is cancelled, are walked in an order that differs between processes.
        steps.sort(key=lambda step: step[0])
        gaps: list[list[asyncio.Handle]] = [[] for _ in range(len(callbacks) + 1)]
        later: list[asyncio.Handle] = []
        self._random.shuffle(steps)
        for _, earliest, handle in steps:
            keep = self._random.random() < 0.5
            (later if keep else gaps[self._random.randint(earliest, len(callbacks))]).append(handle)
        now = [handle for gap, last in zip(gaps, [*callbacks, None], strict=True) for handle in (*gap, last) if handle]
        return (now, later) if now else ([later[0]], later[1:])

    def _number(self, task: asyncio.Task[Any]) -> int:
        """Number tasks in the order in which they first come up, which is that of their creation."""
        if task not in self._numbers:
            self._numbers[task] = next(self._next)
        return self._numbers[task]


def _task(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """Return the task whose step this is, told apart as asyncio does in its own debug output."""
    owner = getattr(cast(Any, handle)._callback, "__self__", None)  # noqa: SLF001
    return owner if isinstance(owner, asyncio.Task) else None
