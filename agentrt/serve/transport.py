"""How a server of the Model Context Protocol meets its clients: over stdin and stdout, or over HTTP."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from mcp.server import Server
    from mcp.server.transport_security import TransportSecuritySettings

_LOCAL: Final = ("127.0.0.1", "localhost", "::1")
_ANY: Final = ("0.0.0.0", "::")
_GRACE: Final = 1
"""Seconds that calls in flight have to end once the server is told to."""


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client over stdin and stdout until it closes them; what others print goes to stderr."""
    from mcp.server.stdio import stdio_server

    with _private_stdin() as stdin:
        async with stdio_server(stdin=stdin) as (read, write):
            with redirect_stdout(sys.stderr):
                await server.run(read, write, server.create_initialization_options())


async def serve_http(server: Server[Any], host: str, port: int, *, listening: Callable[[str], object]) -> None:
    """Serve any number of clients over streamable HTTP; `listening` gets the address once it can be used.

    Port 0 is any that is free. Only requests that name this host are answered, so that no web page can make a browser
    send one; a server that listens everywhere cannot know its names.

    Raises `OSError` where the address cannot be used.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as bound:
        app = server.streamable_http_app(host=host, transport_security=_security(host))
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, ws="none", timeout_graceful_shutdown=_GRACE
        )
        name = f"[{host}]" if ":" in host else host
        listening(f"http://{name}:{bound.getsockname()[1]}/mcp")
        await uvicorn.Server(config).serve(sockets=[bound])


def _security(host: str) -> TransportSecuritySettings | None:
    """Return what the SDK checks of a request; for a local host it knows."""
    from mcp.server.transport_security import TransportSecuritySettings

    if host in _LOCAL or host in _ANY:
        return None
    name = f"[{host}]" if ":" in host else host
    return TransportSecuritySettings(allowed_hosts=[name, f"{name}:*"], allowed_origins=[f"http://{name}:*"])


class _Lines(anyio.AsyncFile[str]):
    """Read in a thread that may be left behind: nothing interrupts a thread that waits for stdin."""

    async def readline(self) -> str:
        return await anyio.to_thread.run_sync(self.wrapped.readline, abandon_on_cancel=True)


@contextmanager
def _private_stdin() -> Iterator[anyio.AsyncFile[str]]:
    """Yield the lines of stdin, and let everybody else find it empty."""
    private = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        # The descriptor stays open: a thread that was left behind may still read from it.
        yield _Lines(os.fdopen(private, encoding="utf-8", errors="replace", closefd=False))
    finally:
        os.dup2(private, 0)
