"""Cancellation: whose it is."""

from __future__ import annotations

import sys

import anyio


def is_stray(error: BaseException) -> bool:
    """Say whether this is a cancellation that nobody asked of this task: code let out that of something it awaited.

    To pass it on would end the task without an outcome, and whoever waits for that would wait for ever.
    """
    asyncio = sys.modules.get("asyncio")  # imported by whoever runs its event loop; importing agentrt should not
    task = asyncio.current_task() if asyncio and isinstance(error, asyncio.CancelledError) else None
    if task is not None and task.cancelling():  # asked first: it is cheap, and true of 100,000 steps cancelled at once
        return False
    return (
        isinstance(error, anyio.get_cancelled_exc_class()) and not anyio.get_current_task().has_pending_cancellation()
    )
