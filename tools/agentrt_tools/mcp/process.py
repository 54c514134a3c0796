"""An MCP server as a process of this machine, spoken to over its stdin and stdout.

The SDK's own transport holds up a start for as long as a server is mute, reads lines of any length, leaves behind what
a server has started if the server itself ends, and hands its stderr to the terminal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from subprocess import PIPE
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, Process

from agentrt_tools.mcp.log import ServerLog
from agentrt_tools.mcp.server import Server, ServerFailed
from agentrt_tools.session import kill_session

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams
    from mcp.shared.message import SessionMessage

MOST_BYTES: Final = 8_000_000
"""A message may be so long."""
_MOST_UNASKED: Final = 5_000
"""So many messages a server may send for each that it is sent: what sends more would only keep this process busy."""
_GRACE: Final = 1.0
"""Seconds that a server has to end once its stdin is closed, and once more when it is asked by a signal."""
_POLL: Final = 0.01
_WAITING: Final = 16
"""So many messages wait for a server that does not read; a call that is given up need not wait to say so."""
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER") + (
    ("APPDATA", "LOCALAPPDATA", "PATHEXT", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "USERPROFILE")
    if os.name == "nt"
    else ()
)
"""What of the environment a server gets, besides what it is given: not this process's keys."""


@asynccontextmanager
async def process_transport(server: Server, log: ServerLog) -> AsyncGenerator[TransportStreams]:
    """Start a server and yield the streams of its messages; it ends, with all that it has started, when left.

    Raises `OSError` where it cannot be started.
    """
    process = await anyio.open_process(
        server.command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=_environment(server.env),
        start_new_session=True,
    )
    to_session, from_server = anyio.create_memory_object_stream["SessionMessage | Exception"](0)
    to_server, from_session = anyio.create_memory_object_stream["SessionMessage"](_WAITING)
    wire = _Wire(process, log)
    async with to_session, from_server, to_server, from_session:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wire.carry, to_session)
                tasks.start_soon(wire.write, from_session)
                tasks.start_soon(wire.note)
                try:
                    yield from_server, to_server
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process, patient=not log.reason)


class _Wire:
    """Carry messages between a session and a process."""

    def __init__(self, process: Process, log: ServerLog) -> None:
        self._process = process
        self._log = log
        self._unasked = 0

    async def carry(self, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Hand over what the process writes; raises `ServerFailed`, and notes why, where it ends or does not stop."""
        try:
            await self._read(to_session)
        except ServerFailed as failure:
            self._log.reason = str(failure)
            raise

    async def _read(self, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        from mcp.shared.message import SessionMessage
        from mcp_types import jsonrpc_message_adapter

        async for line in _lines(_stream(self._process.stdout)):
            self._unasked += 1
            if self._unasked > _MOST_UNASKED:
                raise ServerFailed(f"it sent more than {_MOST_UNASKED:,} messages that nobody asked for")
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                self._log.add(line + b"\n")
                continue
            with suppress(anyio.BrokenResourceError):  # the session is over
                await to_session.send(SessionMessage(message))
        ended = await _has_ended(self._process)
        raise ServerFailed(f"it ended with status {self._process.returncode}" if ended else "it closed its stdout")

    async def write(self, from_session: MemoryObjectReceiveStream[SessionMessage]) -> None:
        """Write each message of the session; what cannot be written any more `carry` tells."""
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async for message in from_session:
                self._unasked = 0
                json = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await stdin.send(json.encode(errors="replace") + b"\n")

    async def note(self) -> None:
        """Keep the last of what the process writes to stderr."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in _stream(self._process.stderr):
                self._log.add(data)


def _stream(stream: ByteReceiveStream | None) -> ByteReceiveStream:
    assert stream is not None
    return stream


async def _lines(stream: ByteReceiveStream) -> AsyncGenerator[bytes]:
    """Yield the lines of a stream; raises `ServerFailed` for one that is too long."""
    line = bytearray()
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for data in stream:
            *ends, rest = data.split(b"\n")
            for end in ends:
                yield bytes(line + end)
                line.clear()
            line += rest
            if len(line) > MOST_BYTES:
                raise ServerFailed(f"it sent a message of more than {MOST_BYTES:,} bytes")


def _environment(given: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(given)


async def _end(process: Process, *, patient: bool) -> None:
    """End a process and its session: its stdin is closed, then it is asked to, if patiently, then all are killed."""
    assert process.stdin is not None
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    if patient and not await _has_ended(process):
        _ask_to_end(process)
        await _has_ended(process)
    if os.name == "nt":
        with suppress(ProcessLookupError):
            process.kill()
    else:  # and those that it has left behind
        await anyio.to_thread.run_sync(kill_session, process.pid)
    await _has_ended(process)
    await _close(process)


async def _has_ended(process: Process) -> bool:
    """Wait for a process to end. `wait()` would also wait for all who hold its pipes."""
    with anyio.move_on_after(_GRACE):
        while process.returncode is None:  # noqa: ASYNC110 - nothing else tells
            await anyio.sleep(_POLL)
    return process.returncode is not None


async def _close(process: Process) -> None:
    """Let go of the pipes, even where somebody who has left the group still holds their other ends."""
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            await stream.aclose()
    # Nothing public closes asyncio's transport, which would complain when it is collected; the SDK does the same.
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:
        transport.close()


def _ask_to_end(process: Process) -> None:
    """Ask a process and its group to end."""
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "nt":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGTERM)
