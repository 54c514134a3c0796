"""Threads that hear of cancellation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

T = TypeVar("T")


async def run_stoppable(work: Callable[[threading.Event], T]) -> T:
    """Run work in a thread. Who is cancelled sets the event that the work has to look at, and waits for its end.

    Raises what the work raises.
    """
    unwanted = threading.Event()
    outcome: list[T] = []
    failure: list[Exception] = []

    def attempt() -> None:
        try:
            outcome.append(work(unwanted))
        except Exception as error:  # noqa: BLE001 - raised below, where it comes in no group
            failure.append(error)

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            unwanted.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await to_thread.run_sync(attempt)
        tasks.cancel_scope.cancel()
    await checkpoint_if_cancelled()  # waiting for the thread heard of no cancellation
    for error in failure:
        raise error
    return outcome[0]
