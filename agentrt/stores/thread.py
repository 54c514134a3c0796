"""A thread that does in groups what tasks ask of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

from agentrt.errors import JournalError

Job = TypeVar("Job")


class GroupThread(Generic[Job]):
    """Serve tasks of any event loop in one thread; whatever waits while it works is its next group.

    `work` gets each group, in the order asked, and says on the jobs themselves how they ended. A task that is cancelled
    while it waits takes nothing back: its job is done all the same.
    """

    def __init__(self, name: str, work: Callable[[Sequence[Job]], None]) -> None:
        self._work = work
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: dict[object, _Group[Job]] = {}

    async def do(self, job: Job) -> None:
        """Return when the job is done; raises `JournalError` if the thread was closed."""
        loop = _running_loop()
        with self._lock:
            group = self._waiting.get(loop)
            if group is None:
                group = _Group()
                self._start(loop, group)
                self._waiting[loop] = group
            group.jobs.append(job)
        await group.done.wait()
        if group.error is not None:
            raise group.error

    def close(self) -> None:
        """End the thread when it has done what was asked; blocks until then."""
        self._executor.shutdown()

    def _start(self, loop: Any, group: _Group[Job]) -> None:
        try:
            if isinstance(loop, asyncio.AbstractEventLoop):
                # The loop's own way, since a loop in virtual time waits for that.
                loop.run_in_executor(self._executor, self._serve, loop, group).add_done_callback(group.finish)
            else:
                future = self._executor.submit(self._serve, loop, group)
                future.add_done_callback(lambda done: loop.run_sync_soon(group.finish, done))
        except RuntimeError as error:
            raise JournalError("the store is closed") from error

    def _serve(self, loop: object, group: _Group[Job]) -> None:
        with self._lock:  # whoever comes from now on is of the next group
            del self._waiting[loop]
        self._work(group.jobs)


def _running_loop() -> object:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # trio, whose look-up takes longer
        return current_token().native_token


class _Group(Generic[Job]):
    """Hold jobs of one event loop that are done together; `error` is what broke the thread's work, if anything did."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.done = anyio.Event()
        self.error: BaseException | None = None

    def finish(self, future: Any) -> None:
        self.error = None if future.cancelled() else future.exception()
        self.done.set()
