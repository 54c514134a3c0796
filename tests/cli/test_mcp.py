"""`agentrt mcp`: what a file defines, served to the SDK's own client over stdin and stdout and over HTTP."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import mcp  # takes a second, which would be the first test's
import pytest
from mcp.client.stdio import StdioServerParameters, stdio_client

from agentrt import run
from agentrt.stores import open_store
from agentrt_tools.mcp import list_mcp_tools
from tests.cli.conftest import Shell, Write

pytestmark = pytest.mark.anyio
TOOLS = """
import os, subprocess, sys
import anyio
from pydantic import BaseModel

print("loaded")

class Total(BaseModel):
    total: int

@tool(effect="read")
def add(a: int, b: int = 2) -> Total:
    '''Add two numbers.

    Args:
        a: The first.
    '''
    print("noise")
    os.write(1, b"raw noise")
    subprocess.run([sys.executable, "-c", "import sys; print('child noise', sys.stdin.read())"])
    return Total(total=a + b)

@tool(effect="idempotent", untrusted=True)
async def wait(x: str, ctx: Context) -> str:
    '''Wait.'''
    ctx.emit("waiting")
    open("begun", "w").close()
    await anyio.sleep(600)
    return x

@tool
async def fail(x: str) -> str:
    '''Fail.'''
    raise ValueError("no " + x)

helper = Agent("helper", model=model, instructions="Help.", tools=[add])
steps = Graph("steps", input=str, output=str)
steps.chain(START, helper, END)
"""


@pytest.fixture
def anyio_backend() -> str:
    """Use real time: there are processes and sockets."""
    return "asyncio"


def command(*words: str) -> list[str]:
    return ["-m", "agentrt", "mcp", *words]


@asynccontextmanager
async def client(*words: str, errors: Path = Path("errors")) -> AsyncIterator[mcp.Client]:
    parameters = StdioServerParameters(command=sys.executable, args=command(*words), env=dict(os.environ))
    with errors.open("w") as file:
        async with mcp.Client(stdio_client(parameters, errlog=file)) as connected:
            yield connected


def start(*words: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a server by hand: the SDK's client would end it."""
    arguments = [sys.executable, *command(*words)]
    return subprocess.Popen(arguments, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Http:
    """Serve a file over HTTP in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = start(*words, "--http", "0", stdin=subprocess.DEVNULL)
        assert self.process.stderr is not None
        line = ""
        while "serving" not in line:
            line = self.process.stderr.readline()
            assert line
        self.url = line.split()[-1]

    def end(self) -> tuple[str, str]:
        return self.process.communicate(timeout=20)


@pytest.fixture
def http() -> Iterator[Callable[..., Http]]:
    """Start servers that end with the test."""
    started: list[Http] = []

    def start(*words: str) -> Http:
        started.append(Http(*words))
        return started[-1]

    yield start
    for server in started:
        if server.process.returncode is None:
            server.process.kill()
            server.process.communicate()


async def runs(shell: Shell) -> list[str]:
    """Return how the runs went, from a thread: the shell runs a loop of its own."""
    told = await anyio.to_thread.run_sync(lambda: shell("runs", "--json"))
    return sorted(r["status"] for r in json.loads(told.stdout))


async def ended(connected: mcp.Client) -> None:
    """Call what never ends, and mind no end."""
    with suppress(mcp.MCPError):
        await connected.call_tool("wait", {"x": "a"})


async def begun() -> None:
    """Wait until a call has begun."""
    with anyio.fail_after(20):
        while not await anyio.Path("begun").exists():  # noqa: ASYNC110 - another process tells, by a file
            await anyio.sleep(0.02)


async def recorded(shell: Shell, *wanted: str) -> None:
    """Wait until the runs are as they should be."""
    with anyio.fail_after(20):
        while await runs(shell) != sorted(wanted):  # noqa: ASYNC110 - another process tells, by its record
            await anyio.sleep(0.02)


@pytest.mark.slow
async def test_tools_are_served_as_they_are_defined(write: Write, shell: Shell) -> None:
    """Schema, description and effect; what anybody prints stays off stdout; each call is a run."""
    async with client(f"{write(TOOLS)}:add", "wait", "fail") as connected:
        listed = {t.name: t for t in (await connected.list_tools()).tools}
        add = listed["add"]
        assert (add.description, add.input_schema["required"]) == ("Add two numbers.", ["a"])
        assert add.input_schema["properties"]["a"]["description"] == "The first."
        assert add.output_schema is not None
        assert [listed[n].annotations.model_dump(exclude_none=True) for n in ("add", "wait", "fail")] == [
            {"read_only_hint": True},
            {"idempotent_hint": True, "open_world_hint": True},
            {"destructive_hint": True},
        ]
        told = await connected.call_tool("add", {"a": 40})
        assert (told.structured_content, told.content[0].text) == ({"total": 42}, '{"total":42}')
        misfit = await connected.call_tool("add", {"a": "x"})
        assert (misfit.is_error, misfit.content[0].text[:18]) == (True, "a: Input should be")
        failed = await connected.call_tool("fail", {"x": "luck"})
        assert (failed.is_error, failed.content[0].text) == (True, "fail: ValueError: no luck")
        with pytest.raises(mcp.MCPError, match="no tool 'none'; there are: add, wait, fail"):
            await connected.call_tool("none", {})
    assert (await anyio.Path("errors").read_text()).count("noise") == 3
    assert await runs(shell) == ["done", "failed"]


@pytest.mark.slow
async def test_a_graph_is_one_tool_under_a_budget_with_notes_of_progress(write: Write, shell: Shell) -> None:
    """Without a name it is what `agentrt run` would run; an exhausted budget is an error of the call."""
    noted: list[tuple[float, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        noted.append((progress, message))

    async with client(write(TOOLS), "--budget", "model_calls=1") as connected:
        (tool,) = (await connected.list_tools()).tools
        assert (tool.name, tool.input_schema["required"]) == ("steps", ["input"])
        told = await connected.call_tool("steps", {"input": "go"}, progress_callback=note)
        assert told.content[0].text == "so it is"
        assert noted == [(1.0, "steps"), (2.0, "steps/helper"), (3.0, "steps/helper/chat")]
    async with client(write(TOOLS), "--budget", "steps=1", "--no-store") as connected:
        told = await connected.call_tool("steps", {"input": "go"})
        assert told.is_error
        assert "raise Budget(steps=…)" in told.content[0].text
    assert await runs(shell) == ["done"]


@pytest.mark.slow
async def test_whoever_cancels_a_call_cancels_its_run(write: Write, shell: Shell) -> None:
    """The server goes on."""
    async with client(f"{write(TOOLS)}:wait") as connected:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ended, connected)
            await begun()
            tasks.cancel_scope.cancel()
        await recorded(shell, "cancelled")
        assert len((await connected.list_tools()).tools) == 1


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "wait", "arguments": {"x": "a"}}}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["client", "server"])
async def test_a_death_cancels_the_runs_and_leaves_no_process(write: Write, shell: Shell, how: str) -> None:
    """Whether the client goes without a word or the server is told to end, while its client stays."""
    process = await anyio.to_thread.run_sync(start, f"{write(TOOLS)}:wait")
    with process:
        assert process.stdin is not None
        process.stdin.write("".join(f"{json.dumps(message)}\n" for message in (HELLO, READY, CALL)))
        process.stdin.flush()
        await begun()
        if how == "client":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        with anyio.fail_after(20):
            assert await anyio.to_thread.run_sync(process.wait) == (0 if how == "client" else 130)
        assert process.stdout is not None
        assert [json.loads(line)["id"] for line in process.stdout][:1] == [1]
    assert await runs(shell) == ["cancelled"]


@pytest.mark.slow
async def test_what_is_served_can_be_used_here(write: Write, shell: Shell) -> None:
    """Both ways at once: effects, marks and values come through."""
    served = [sys.executable, *command(f"{write(TOOLS)}:add", "wait")]
    environment = {"AGENTRT_STORE": os.environ["AGENTRT_STORE"], "PYTHONPATH": os.pathsep.join(sys.path)}
    add, wait, *_ = await list_mcp_tools(served, name="there", env=environment)
    assert (add.effect, wait.effect, add.untrusted) == ("read", "idempotent", True)
    assert (await run(add, {"a": 40})).output == {"total": 42}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, wait, {"x": "a"})
        await begun()
        tasks.cancel_scope.cancel()
    await recorded(shell, "cancelled", "done")


@pytest.mark.slow
async def test_over_http_it_is_the_same(write: Write, shell: Shell, http: Callable[..., Http]) -> None:
    """Several clients may come and go; one that goes cancels what it asked for."""
    server = await anyio.to_thread.run_sync(http, f"{write(TOOLS)}:add", "wait")
    async with mcp.Client(server.url) as one, mcp.Client(server.url) as other:
        assert (await one.call_tool("add", {"a": 1})).structured_content == {"total": 3}
        assert (await other.call_tool("add", {"a": 2})).structured_content == {"total": 4}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ended, one)
            await begun()
            tasks.cancel_scope.cancel()
        await recorded(shell, "cancelled", "done", "done")
    server.process.send_signal(signal.SIGTERM)
    out, _ = await anyio.to_thread.run_sync(server.end)
    assert (server.process.returncode, out) == (130, "")


@pytest.mark.slow
async def test_no_web_page_can_make_a_browser_call(write: Write, http: Callable[..., Http]) -> None:
    """Neither under a name that leads to this machine nor from another origin."""
    server = await anyio.to_thread.run_sync(http, f"{write(TOOLS)}:add")
    headers = {"accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(headers=headers) as browser:
        told = [
            (await browser.post(server.url, json=HELLO, headers=more)).status_code
            for more in ({}, {"host": "evil.example"}, {"origin": "http://evil.example"})
        ]
    assert told == [200, 421, 403]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.py"], "no file 'none.py'"),
        (["flow.py:nothing"], "no 'nothing' in flow.py: pick one"),
        (["flow.py", "--http", "localhost"], "--http localhost: write a port, or HOST:PORT"),
        (["flow.py", "--budget", "pence=3"], "pence"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(write: Write, shell: Shell, words: list[str], told: str) -> None:
    """In one line, with the status of wrong usage."""
    write(TOOLS)
    result = shell("mcp", *words)
    assert result.exit_code in (1, 2)
    assert told in result.stderr


def test_a_store_that_cannot_be_used_is_told_at_once(write: Write, shell: Shell, tmp_path: Path) -> None:
    """As `agentrt run` tells it, and before a client is told of tools that could not run."""
    write(TOOLS)
    store = f"sqlite:///{tmp_path / 'old.db'}"
    anyio.run(open_store(store).aclose)
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN due")
    for words in (["mcp", "flow.py:add"], ["run", "flow.py:add", "1"]):
        result = shell(*words, "--store", store)
        assert result.exit_code in (1, 2)
        assert "between two versions (due is missing)" in result.stderr
