"""Tasks that work for each other: whoever finds nobody at work does at once what all of them wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Combiner(Generic[Job]):
    """Do jobs in groups, each in one of the tasks that asked for them: its leader; what waits meanwhile is the next.

    `begin` gets a group's jobs, in the order asked, and returns the work on them, which notes on the jobs how they
    ended. Where a leader is cancelled, another task of its group calls that work again, and it goes on from wherever
    it was; if no task of the group is left, nor is the group. Serves one event loop at a time, asyncio's.
    """

    def __init__(self, begin: Callable[[Sequence[Job]], Callable[[], Awaitable[None]]]) -> None:
        self._begin = begin
        self._waiting: dict[_Waiter[Job], None] = {}
        self._group: _Group[Job] | None = None
        self._leader: _Waiter[Job] | None = None
        self._at_rest: asyncio.Future[None] | None = None

    async def do(self, job: Job) -> None:
        """Return when the job is done; one whose task is cancelled is done as a whole or not at all."""
        waiter = _Waiter(job)
        self._waiting[waiter] = None
        if self._leader is None:
            self._leader = waiter
        try:
            if self._leader is not waiter:
                await waiter.turn
            if not waiter.done:
                await self._lead()
        finally:
            self._leave(waiter)

    async def rest(self) -> None:
        """Return when nobody waits for anything."""
        while self._leader is not None:
            if self._at_rest is None:
                self._at_rest = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._at_rest])

    async def _lead(self) -> None:
        """Finish the group that another has left unfinished, or else begin and finish the next."""
        if self._group is None:
            self._group = _Group(self._waiting, self._begin([waiter.job for waiter in self._waiting]))
            self._waiting = {}
        group = self._group
        await group.work()
        self._group = None
        for waiter in group.waiters:
            waiter.done = True
            waiter.wake()

    def _leave(self, waiter: _Waiter[Job]) -> None:
        """Let go of a task that has what it wanted, or is cancelled; one that leads hands the lead on."""
        self._waiting.pop(waiter, None)
        if self._group is not None:
            self._group.waiters.pop(waiter, None)
        if self._leader is waiter:
            self._leader = self._next()
            if self._leader is not None:
                self._leader.wake()
            elif self._at_rest is not None:
                self._at_rest.set_result(None)
                self._at_rest = None

    def _next(self) -> _Waiter[Job] | None:
        """Return who leads now: a task of an unfinished group, or else the first that waits."""
        if self._group is not None and not self._group.waiters:
            self._group = None
        return next(iter(self._waiting if self._group is None else self._group.waiters), None)


class _Waiter(Generic[Job]):
    """Be a task that waits for a job, until that is done or its turn to lead has come."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done = False

    def wake(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)


class _Group(Generic[Job]):
    """Hold jobs that are done together, by the tasks that wait for them, and the work on them."""

    def __init__(self, waiters: dict[_Waiter[Job], None], work: Callable[[], Awaitable[None]]) -> None:
        self.waiters = waiters
        self.work = work
