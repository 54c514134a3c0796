"""A step's slot: what it runs on (`concurrency`), and lends while it waits for others (rule B12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from agentrt.scheduler import Scheduler


class Slot:
    """Hold the slot of one step; enter it while a step below runs on it, in the same task."""

    __slots__ = ("_is_lent", "_is_used", "_scheduler", "_waits")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_used = False
        self._is_lent = False
        self._waits = 0

    @property
    def is_free(self) -> bool:
        """Say whether a step below may run on it."""
        return not self._is_used and not self._is_lent

    def __enter__(self) -> None:
        self._is_used = True

    def __exit__(self, *_: object) -> None:
        self._is_used = False
        if self._waits:
            self._lend()

    async def wait(self, until: Callable[[], Awaitable[object]]) -> None:
        """Wait for steps below, or for a time to be over, lending the slot meanwhile."""
        self._waits += 1
        self._lend()
        try:
            await until()
        except BaseException as error:
            self._scheduler.is_ending(error)  # for the steps below, which are cancelled next, by this step
            # Cancelled: the step unwinds at once, over the limit if need be. Waiting for a slot here could wait for
            # the very steps that are about to be cancelled.
            if self._is_wanted_back():
                self._scheduler.reclaim_nowait()
            raise
        if self._is_wanted_back():
            await self._scheduler.reclaim()

    async def wait_to_unwind(self, event: anyio.Event) -> None:
        """Wait, whatever happens, for steps below that are being cancelled; their cleaning up may need the slot."""
        self._waits += 1
        self._lend()
        try:
            with anyio.CancelScope(shield=True):
                await event.wait()
        finally:
            if self._is_wanted_back():
                self._scheduler.reclaim_nowait()

    def _lend(self) -> None:
        """Lend the slot of a step that waits, if nothing below uses it."""
        if self.is_free:
            self._is_lent = True
            self._scheduler.lend()

    def _is_wanted_back(self) -> bool:
        """Note that one wait is over; say whether the slot is to be taken back."""
        self._waits -= 1
        if self._waits or not self._is_lent:
            return False
        self._is_lent = False
        return True
