"""MCP servers at a URL: what holds of processes holds of them."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import anyio
import pytest

from agentrt import run
from agentrt_tools.mcp import ServerFailed, list_mcp_tools
from agentrt_tools.mcp.connection import connection
from agentrt_tools.mcp.offer import listing
from agentrt_tools.mcp.server import Server
from tests.tools.mcp.served import noted, served

BOMB = gzip.compress(b" " * 10_000_000, 1)
pytestmark = pytest.mark.anyio


class Mortal:
    """Be a server of the SDK in a process of its own, at a port that another may have after it."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, str(Path(__file__).with_name("served.py")), str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert int(self.process.stdout.readline()) == port
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return the address of a server in a thread, for tests that leave it as it was."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = served()
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    server.should_exit = server.force_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def mortal() -> Iterator[list[Mortal]]:
    """Return a list of servers that end with the test; their port is kept from everybody else meanwhile."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", 0))
        servers = [Mortal(kept.getsockname()[1])]
        yield servers
        for server in servers:
            server.end()


async def test_a_server_at_a_url_is_a_server(url: str) -> None:
    """Tools, resources and prompts are nodes."""
    made = {t.name: t for t in await list_mcp_tools(url, name="s", exclude=["prompts"])}
    assert set(made) == {
        *(f"s.{tool}" for tool in ("echo", "stall", "die", "huge", "more")),
        *("s.resources", "s.read_resource", "s.get_prompt"),
    }
    assert (await run(made["s.echo"], {"text": "hi"})).output == {"result": "hi"}
    assert (await run(made["s.resources"], 0)).output == (
        "data://list (text/plain): Hold a list.\nnote://{name} (text/plain): Read a note."
    )
    assert (await run(made["s.read_resource"], {"uri": "note://x"})).output == "the note x"
    prompt = {"name": "greet", "arguments": {"name": "Ada"}}
    assert (await run(made["s.get_prompt"], prompt)).output == "user: Greet Ada, kind."
    prompts = await list_mcp_tools(url, name="s", include=["prompts"])
    assert (await run(prompts[0], 0)).output == "greet(name, [tone]): Greet somebody."


async def happened(*what: str) -> None:
    """Wait until that has happened to a call."""
    with anyio.fail_after(20):
        while noted != [*what]:  # noqa: ASYNC110 - a thread notes it
            await anyio.sleep(0.01)


async def test_who_is_cancelled_cancels_the_call_there(url: str) -> None:
    """The connection is as good as before."""
    noted.clear()
    async with connection(Server.of(url, timeout=20)) as opened:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(opened.request, lambda client: client.call_tool("stall", {}))
            await happened("called")
            tasks.cancel_scope.cancel()
        await happened("called", "cancelled")
        assert (await opened.request(listing)).name == "served"


async def test_what_is_given_up_is_cancelled_there(url: str) -> None:
    """When the time is over; a call that has not even begun by then is tried once more, with more time."""
    async with connection(Server.of(url, timeout=20)) as opened:
        for seconds in (0.3, 3, 20):
            noted.clear()
            opened.server = replace(opened.server, timeout=seconds)
            with pytest.raises(ServerFailed, match=rf"did not answer within {seconds} s"):
                await opened.request(lambda client: client.call_tool("stall", {}))
            if noted:
                break
        await happened("called", "cancelled")


@pytest.mark.slow
async def test_a_server_that_dies_cancels_nobody(mortal: list[Mortal]) -> None:
    """The call in flight fails; once the server is there again the next one succeeds."""
    async with connection(Server.of(mortal[0].url, timeout=10)) as opened:
        with pytest.raises(ServerFailed, match="whether the call has had its effect is not known"):
            await opened.request(lambda client: client.call_tool("die", {}))
        with pytest.raises(ServerFailed, match="All connection attempts failed"):
            await opened.request(listing)
        mortal.append(await anyio.to_thread.run_sync(Mortal, mortal[0].port))
        assert (await opened.request(listing)).name == "served"


@pytest.mark.slow
async def test_a_server_that_has_forgotten_its_session_is_connected_again(mortal: list[Mortal]) -> None:
    """Restarted between two calls, it is not even noticed where the call does no harm."""
    async with connection(Server.of(mortal[0].url, timeout=10)) as opened:
        await opened.request(listing)
        await anyio.to_thread.run_sync(mortal[0].end)
        mortal.append(await anyio.to_thread.run_sync(Mortal, mortal[0].port))
        assert (await opened.request(listing, again=True)).name == "served"


async def test_an_answer_that_is_too_long_is_broken_off(url: str) -> None:
    """It does not fill the memory."""
    async with connection(Server.of(url, timeout=10)) as opened:
        with pytest.raises(ServerFailed, match="broke off"):
            await opened.request(lambda client: client.call_tool("huge", {}))
        assert (await opened.request(listing, again=True)).name == "served"


class Odd(BaseHTTPRequestHandler):
    """Answer whatever is asked in the way the path says."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[Message]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.asked.append(self.headers)
        body, headers, status = b"", {}, 200
        match self.path:
            case "/stall":
                time.sleep(2)
            case "/bomb":
                body, headers = BOMB, {"content-encoding": "gzip"}
            case "/endless":
                body = b'"' + b"x" * 20_000_000
            case "/page":
                body, headers = b"<html>Not here.</html>", {"content-type": "text/html"}
            case "/elsewhere":
                headers, status = {"location": "http://127.0.0.1:1/mcp"}, 307
            case "/denied":
                status = 401
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    """Return the URL of a server that answers oddly."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    server = Quiet(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("stall", "did not answer within 0.5 s of its start"),
        ("bomb", "answered in 'gzip', which nobody asked for"),
        ("endless", "answered with more than 8,000,000 bytes"),
        ("page", "Unexpected content type: text/html"),
        ("elsewhere", "not followed"),
        ("denied", "error response"),
    ],
)
async def test_an_address_where_no_server_is_tells_so(odd: str, path: str, told: str) -> None:
    """Whatever is there instead: nothing is followed, unpacked or read without end."""
    with pytest.raises(ServerFailed, match=told):
        async with connection(Server.of(f"{odd}/{path}", timeout=0.5 if path == "stall" else 20)) as opened:
            await opened.request(listing)


async def test_headers_are_sent_and_shown_nowhere(odd: str) -> None:
    """They may hold a key, as may the user and the query of a URL."""
    server = Server.of(f"{odd.replace('//', '//me:secret@')}/denied?key=secret", headers={"X-Key": "secret"}, timeout=5)
    with pytest.raises(ServerFailed) as failed:
        async with connection(server) as opened:
            await opened.request(listing)
    assert Odd.asked[-1]["X-Key"] == "secret"
    assert "secret" not in f"{failed.value} {server!r}"
