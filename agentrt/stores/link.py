"""A link to PostgreSQL: one connection, and what to do where it is lost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from agentrt.errors import JournalError

T = TypeVar("T")

_CLOSING_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
_ATTEMPT_SECONDS: Final = 15.0
"""How long a server may take to answer before it is asked again, over another connection."""
_REMEDY: Final = "check that the server runs and lets you in, or choose another place with --store or AGENTRT_STORE"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@]*?):[^/@]*(?=@)")


class Refused(JournalError):
    """Say that the database refused; asking again would not help."""


class Server:
    """Name a database, and tell its errors apart; `known` once it has answered, `where` is its URL without password."""

    def __init__(self, asyncpg: Any, url: str, patience: float) -> None:
        self.asyncpg = asyncpg
        self.url = url
        self.where = shown(url)
        self.patience = patience
        self.known = False
        self.starting = asyncpg.CannotConnectNowError
        self.passing = (
            OSError,
            TimeoutError,
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
            asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError,
            asyncpg.TooManyConnectionsError,
            asyncpg.DeadlockDetectedError,
            asyncpg.SerializationError,
            asyncpg.InternalClientError,  # the server has said that it goes, and the driver not yet that it is gone
            asyncpg.UniqueViolationError,  # another process has made the run since this one looked
        )

    def refuses(self, error: BaseException, *, lost: bool) -> bool:
        """Say whether an error is the database's answer, or the driver's, and no passing trouble."""
        if isinstance(error, self.passing) or (lost and isinstance(error, self.asyncpg.InterfaceError)):
            return False
        return isinstance(error, Exception)


class Link:
    """Keep one connection, made and prepared anew where it was lost; one task uses it at a time."""

    def __init__(self, server: Server, prepare: Callable[[Any], Awaitable[None]]) -> None:
        self._server = server
        self._prepare = prepare
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def do(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Return what work does with the connection; where the server is away, once it is back.

        Raises `Refused` where the database refuses, `JournalError` where the patience ends.
        """
        check_loop()
        async with self._lock:
            ends, pause = time.monotonic() + self._server.patience, _FIRST_PAUSE
            while True:
                try:
                    return await self._attempt(work, ends)
                except self._server.passing as error:
                    waits = self._server.known or isinstance(error, self._server.starting)
                    if not waits or time.monotonic() + pause >= ends:
                        raise self._gone(error) from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=_CLOSING_SECONDS)
            except self._server.passing:
                connection.terminate()

    async def _attempt(self, work: Callable[[Any], Awaitable[T]], ends: float) -> T:
        try:
            async with asyncio.timeout(min(ends - time.monotonic(), _ATTEMPT_SECONDS)):
                if self._connection is None:
                    self._connection = await self._connect()
                return await work(self._connection)
        except JournalError:  # said by us: the connection is as good as before
            raise
        except BaseException as error:
            lost = self._drop()
            if self._server.refuses(error, lost=lost):
                raise Refused(f"{self._server.where}: {error}; {_REMEDY}") from error
            if lost and isinstance(error, self._server.asyncpg.InterfaceError):
                raise ConnectionError(str(error)) from error
            raise

    def _drop(self) -> bool:
        """Let go of the connection, since nobody knows what goes on there; say whether it was lost already."""
        connection, self._connection = self._connection, None
        lost = connection is not None and connection.is_closed()
        if connection is not None:
            connection.terminate()
        return lost

    async def _connect(self) -> Any:
        connection = await self._server.asyncpg.connect(self._server.url)
        try:
            await self._prepare(connection)
        except BaseException:
            connection.terminate()
            raise
        self._server.known = True
        return connection

    def _gone(self, error: BaseException) -> JournalError:
        reason = "no answer" if isinstance(error, TimeoutError) else str(error)
        waited = (
            f" for {self._server.patience:g} s: whether the last that was written is kept is not known"
            if self._server.known
            else ""
        )
        return JournalError(f"{self._server.where} cannot be reached{waited} ({reason}); {_REMEDY}")


def check_loop() -> None:
    """Raise `JournalError` where no event loop of asyncio runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise JournalError("the journal in PostgreSQL needs asyncio: run on it, or choose an SQLite file") from error


def shown(url: str) -> str:
    """Return the URL without its password."""
    return _PASSWORD.sub(r"\1", url)
