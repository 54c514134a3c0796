"""The floor: the same work on bare anyio, a task for every node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

Work = Callable[[], Awaitable[None]]


def chain(n: int) -> Work:
    async def node(i: int) -> int:
        await anyio.lowlevel.checkpoint()
        return i + 1

    async def work() -> None:
        i = 0
        while i < n:
            i = await node(i)

    return work


def fanout(n: int, delay: float = 0) -> Work:
    async def work() -> None:
        outputs: list[int] = []

        async def node(i: int) -> None:
            await anyio.sleep(delay)
            outputs.append(i)

        async with anyio.create_task_group() as tasks:
            for i in range(n):
                tasks.start_soon(node, i)
        assert len(outputs) == n

    return work


def sleepers(n: int) -> Work:
    return fanout(n, 1.0)


def cancelled(n: int) -> Work:
    """Start n tasks that wait for ever, and cancel them once all wait."""

    async def work() -> None:
        waiting = 0

        async def node() -> None:
            nonlocal waiting
            waiting += 1
            if waiting == n:
                tasks.cancel_scope.cancel()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            for _ in range(n):
                tasks.start_soon(node)
        assert waiting == n

    return work


def nested(n: int) -> Work:
    """Like `fanout`: what a runtime makes of graphs within graphs is its own affair."""
    return fanout(n)
