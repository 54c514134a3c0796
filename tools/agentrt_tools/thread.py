"""Threads that hear of cancellation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from agentrt.group import beside

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
        async with beside(watch):
            return await to_thread.run_sync(work, unwanted)
    finally:
        await checkpoint_if_cancelled()  # waiting for the thread heard of no cancellation
