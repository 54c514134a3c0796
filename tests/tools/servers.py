"""Servers for tests of tools: real sockets on this machine, and answers that a test writes byte by byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
import anyio.abc

Answer: TypeAlias = Callable[[str, anyio.abc.SocketStream], Awaitable[None]]
"""Answer a request, whose head is given, on its connection."""


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """Serve on a port of 127.0.0.1, which is yielded."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    head += await stream.receive()
                await answer(head.decode(), stream)
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                return  # the client has what it wanted

    failure: Exception | None = None
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        try:
            yield listener.extra(anyio.abc.SocketAttribute.local_port)
        except Exception as error:  # noqa: BLE001 - the test's own, which a task group would hand on in a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Write a whole response; `_` in the name of a header stands for `-`."""
    given = {"content_length": str(len(body)), "connection": "close", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def always(data: bytes) -> Answer:
    """Answer every request with the same bytes."""

    async def answer(head: str, stream: anyio.abc.SocketStream) -> None:
        await stream.send(data)

    return answer
