"""A connection to an MCP server: made when it is needed, made again when it has broken, closed with its scope."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from anyio.abc import TaskGroup

from agentrt.group import errors_in, one_error
from agentrt.text import shortened
from agentrt_tools.mcp.kept import KeptResults
from agentrt_tools.mcp.log import ServerLog
from agentrt_tools.mcp.server import Server, ServerFailed, ToolFailed

if TYPE_CHECKING:
    from mcp import Client, MCPError
    from mcp.client._transport import TransportStreams

T = TypeVar("T")
MOST_FAILURES: Final = 5
"""A server that has failed so often in a row is not tried any more."""
_FIRST_DELAY: Final = 0.1
_LEAVE: Final = 1.0
"""Seconds that taking leave of a server may take."""
_LONGEST: Final = 2_000
_LOGGERS: Final = ("mcp", "client")
"""Those of the SDK; without a handler Python would write to stderr what they say of a server."""


@asynccontextmanager
async def connection(server: Server) -> AsyncGenerator[Connection]:
    """Yield a connection, which is closed when left; it connects with its first request."""
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(logging.NullHandler())
    async with one_error(), anyio.create_task_group() as tasks:
        opened = Connection(server, tasks)
        try:
            yield opened
            await opened.leave()
        finally:
            tasks.cancel_scope.cancel()


class Connection:
    """Send requests to a server, side by side, and connect again where it has ended.

    Raises `ServerFailed` where it cannot be reached, does not answer in time, or breaks off, and `ToolFailed` for the
    errors that it answers with.
    """

    def __init__(self, server: Server, tasks: TaskGroup) -> None:
        self.server = server
        self.results = KeptResults()
        self._tasks = tasks
        self._session: _Session | None = None
        self._connecting = anyio.Lock()
        self._failures = 0
        self._refusals = 0
        self._refusal = ""

    async def request(self, send: Callable[[Client], Awaitable[T]], *, again: bool = False) -> T:
        """Send a request and return its answer; where the server breaks off meanwhile it is sent once more if `again`.

        Cancelling cancels the request.
        """
        try:
            return await self._request(send)
        except _Lost as lost:
            if not again:
                raise ServerFailed(f"{lost}; whether the call has had its effect is not known") from lost
        try:
            return await self._request(send)
        except _Lost as lost:
            raise ServerFailed(f"{lost}, twice") from lost

    def statistics(self) -> Mapping[str, int]:
        """Return how often in a row the server has failed, and whether a session is open."""
        return {"failures": self._failures, "sessions": int(self._session is not None)}

    async def leave(self) -> None:
        """Take leave of the server."""
        if self._session is not None:
            await self._session.leave()

    async def _request(self, send: Callable[[Client], Awaitable[T]]) -> T:
        from mcp import MCPError
        from pydantic import ValidationError

        session = await self._connected()
        try:
            with anyio.fail_after(self.server.timeout):
                answer = await send(session.client)
        except TimeoutError as error:
            raise self._failed(f"did not answer within {self.server.timeout:g} s", session) from error
        except MCPError as error:
            if not _is_lost(error):
                raise ToolFailed(shortened(str(error), _LONGEST)) from error
            await session.end()
            self._lose(session)
            raise _Lost(
                str(self._failed(f"broke off: {session.log.reason or session.why or error}", session))
            ) from error
        except ValidationError as error:
            raise self._failed("answered with what is no answer of the protocol", session) from error
        self._failures = 0
        return answer

    async def _connected(self) -> _Session:
        refusals = self._refusals
        async with self._connecting:
            session = self._session
            if session is not None and session.over.is_set():
                self._lose(session)
            if self._session is None and self._refusals > refusals:
                raise ServerFailed(self._refusal)  # somebody else's attempt, which this one has waited for
            if self._session is None:
                self._session = await self._connect()
            return self._session

    async def _connect(self) -> _Session:
        if self._failures >= MOST_FAILURES:
            raise ServerFailed(f"MCP server {self.server.label}: it failed {self._failures} times in a row; given up")
        if self._failures:
            await anyio.sleep(_FIRST_DELAY * 2**self._failures)
        session = _Session(self.server)
        self._tasks.start_soon(session.keep, name=f"agentrt mcp {self.server.label}")
        try:
            with anyio.move_on_after(self.server.timeout):
                await session.settled.wait()
        finally:
            if not session.is_ready:
                session.cancel()
        if not session.is_ready:
            self._failures += 1
            self._refusals += 1
            why = session.why or f"did not answer within {self.server.timeout:g} s of its start"
            failure = self._failed(why, session)
            self._refusal = str(failure)
            raise failure
        return session

    def _lose(self, session: _Session) -> None:
        """Note that a session is over, once, however many requests were in flight."""
        if self._session is session:
            self._session = None
            self._failures += 1

    def _failed(self, why: str, session: _Session) -> ServerFailed:
        said = str(session.log)
        return ServerFailed(f"MCP server {self.server.label}: {why}" + (f"; it said last:\n{said}" if said else ""))


class _Lost(Exception):
    """Say that a server broke off while a request was in flight."""


class _Session:
    """Keep one session with a server, in a task of its own: a server's death cancels the task that entered its client.

    `settled` says that the session is ready or will never be, `over` that it has ended, and `why` the reason.
    """

    client: Client

    def __init__(self, server: Server) -> None:
        self.server = server
        self.log = ServerLog()
        self.settled = anyio.Event()
        self.over = anyio.Event()
        self.is_ready = False
        self.why = ""
        self._leaving = anyio.Event()
        self._scope = anyio.CancelScope()

    async def keep(self) -> None:
        """Hold the session until it is left, cancelled or lost."""
        try:
            with self._scope:
                async with self._client() as self.client:
                    self.is_ready = True
                    self.settled.set()
                    await self._leaving.wait()
        except Exception as error:  # noqa: BLE001 - whatever a stranger's server makes of the SDK, its requests tell
            self.why = _reason(error)
        finally:
            self.over.set()
            self.settled.set()

    async def leave(self) -> None:
        """Take leave of the server, and end."""
        self._leaving.set()
        with anyio.move_on_after(_LEAVE):
            await self.over.wait()
        self.cancel()

    async def end(self) -> None:
        """Wait for a session that is lost to end, so that the reason is known."""
        with anyio.move_on_after(_LEAVE):
            await self.over.wait()
        self.cancel()

    def cancel(self) -> None:
        self._scope.cancel()

    def _client(self) -> Client:
        from mcp import Client
        from mcp_types import Implementation

        from agentrt import __version__

        # No callbacks: a server that asks the user, a model or for folders is told that nobody answers.
        information = Implementation(name="agentrt", version=__version__)
        return Client(self._transport(), client_info=information, cache=None)

    def _transport(self) -> AbstractAsyncContextManager[TransportStreams]:
        if self.server.url:
            from agentrt_tools.mcp.http import http_transport

            return http_transport(self.server)
        from agentrt_tools.mcp.process import process_transport

        return process_transport(self.server, self.log)


def _is_lost(error: MCPError) -> bool:
    """Say whether an error means that the session is over, as its transport or the server says."""
    from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST

    return error.code == CONNECTION_CLOSED or (error.code == INVALID_REQUEST and error.message == "Session terminated")


def _reason(error: BaseException) -> str:
    """Return the first reason in what the SDK raised, which may be groups of groups."""
    first = next(errors_in(error))
    return str(first) if isinstance(first, ServerFailed) else shortened(f"{type(first).__name__}: {first}", _LONGEST)
