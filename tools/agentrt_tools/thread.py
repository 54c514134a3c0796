"""Threads that hear of cancellation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from agentrt.group import one_error

T = TypeVar("T")


async def run_stoppable(work: Callable[[threading.Event], T]) -> T:
    """Run work in a thread. Who is cancelled sets the event that the work has to look at, and waits for its end.

    Raises what the work raises.
    """
    unwanted = threading.Event()

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            unwanted.set()

    try:
        async with one_error(), anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            outcome = await to_thread.run_sync(work, unwanted)
            tasks.cancel_scope.cancel()
    finally:
        await checkpoint_if_cancelled()  # waiting for the thread heard of no cancellation
    return outcome
