"""An MCP server of the SDK over HTTP, which does what the name of a tool says; as a program it prints its port."""

import os
import socket
import sys

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("served", log_level="ERROR")
noted: list[str] = []
"""What has happened to calls."""


@server.tool()
async def echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool()
async def stall() -> str:
    """Never end."""
    noted.append("called")
    try:
        await anyio.sleep(600)
    finally:
        noted.append("cancelled")
    return ""


@server.tool()
async def die() -> str:
    """End the server."""
    os._exit(3)


@server.tool()
async def huge() -> str:
    """Return more than anybody reads."""
    return "x" * 9_000_000


@server.resource("note://{name}")
def note(name: str) -> str:
    """Read a note."""
    return f"the note {name}"


@server.resource("data://list")
def listed() -> str:
    """Hold a list."""
    return "1, 2, 3"


@server.prompt()
def greet(name: str, tone: str = "kind") -> str:
    """Greet somebody."""
    return f"Greet {name}, {tone}."


def served() -> uvicorn.Server:
    """Return what serves it."""
    return uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="critical", ws="none"))


def main() -> None:
    listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), reuse_port=True)
    print(listening.getsockname()[1], flush=True)
    served().run([listening])


if __name__ == "__main__":
    main()
