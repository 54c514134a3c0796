"""Nodes as tools of an MCP server, met by the SDK's own client in this process."""

from __future__ import annotations

import importlib.util
from typing import Any, cast

import anyio
import mcp
import pytest
from mcp_types import TextContent
from pydantic import BaseModel

from agentrt import END, START, Agent, Budget, Context, DefinitionError, Graph, Tool, tool
from agentrt.serve.mcp import mcp_server
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionModel

pytestmark = pytest.mark.anyio


class Total(BaseModel):
    total: int


@tool(effect="read")
def add(a: int, b: int = 2) -> Total:
    """Add two numbers."""
    return Total(total=a + b)


@tool(effect="idempotent", untrusted=True)
async def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper()


@tool
async def fail(text: str) -> str:
    """Fail."""
    raise ValueError(f"no {text}")


@tool(effect="read")
async def ready() -> list[int]:
    """Take nothing."""
    return [1, 2]


def double(n: int) -> int:
    """Double a number."""
    return n * 2


helper = Agent("helper", model=FunctionModel(lambda request: "so it is"))
steps = Graph("steps", input=str, output=str)
steps.chain(START, helper, END)


async def told(client: mcp.Client, name: str, **arguments: object) -> tuple[bool, str]:
    """Call a tool; return whether it failed, and its text."""
    result = await client.call_tool(name, dict(arguments))
    return result.is_error, "".join(cast("TextContent", part).text for part in result.content)


@pytest.mark.parametrize(
    ("node", "arguments", "text"),
    [
        (add, {"a": 40}, '{"total":42}'),
        (shout, {"text": "a"}, "A"),
        (ready, {}, "[1,2]"),
        (double, {"n": 21}, "42"),
        (helper, {"input": "go"}, "so it is"),
        (steps, {"input": "go"}, "so it is"),
    ],
)
async def test_any_node_is_a_tool(node: Any, arguments: dict[str, object], text: str) -> None:
    """Its arguments are those by which a model would call it."""
    async with mcp.Client(mcp_server([node])) as client:
        (listed,) = (await client.list_tools()).tools
        assert set(listed.input_schema.get("properties", {})) >= set(arguments)
        assert await told(client, listed.name, **arguments) == (False, text)


async def test_effects_are_told_as_hints() -> None:
    """What is not known is not claimed."""
    async with mcp.Client(mcp_server([add, shout, fail, double, steps])) as client:
        hints = [
            t.annotations.model_dump(exclude_none=True) for t in (await client.list_tools()).tools if t.annotations
        ]
    assert hints == [
        {"read_only_hint": True},
        {"idempotent_hint": True, "open_world_hint": True},
        {"destructive_hint": True},
        {"destructive_hint": True},
        {},
    ]


async def test_objects_are_told_with_their_schema() -> None:
    """Clients that know it read them as values."""
    async with mcp.Client(mcp_server([add, shout])) as client:
        schemas = {t.name: t.output_schema for t in (await client.list_tools()).tools}
        assert (schemas["shout"], (schemas["add"] or {})["required"]) == (None, ["total"])
        assert (await client.call_tool("add", {"a": 1})).structured_content == {"total": 3}


@pytest.mark.parametrize(
    ("name", "arguments", "options", "text"),
    [
        ("fail", {"text": "luck"}, {}, "fail: ValueError: no luck"),
        ("add", {"a": "x"}, {}, "a: Input should be a valid integer"),
        ("add", {"a": 1, "c": 1}, {}, "c: Extra inputs are not permitted"),
        ("steps", {"input": "go"}, {"budget": Budget(steps=1)}, "raise Budget(steps=…)"),
    ],
)
async def test_what_goes_wrong_is_an_error_of_the_call(
    name: str, arguments: dict[str, object], options: dict[str, Any], text: str
) -> None:
    """In one message."""
    async with mcp.Client(mcp_server([fail, add, steps], **options)) as client:
        failed, message = await told(client, name, **arguments)
        assert failed
        assert text in message
        with pytest.raises(mcp.MCPError, match="no tool 'none'; there are: fail, add, steps"):
            await client.call_tool("none", {})


async def test_each_call_is_a_run_of_its_own_with_notes_of_progress() -> None:
    """The record has it, and where its node is found."""
    noted: list[tuple[float, str | None]] = []
    journal = MemoryJournal()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        noted.append((progress, message))

    server = mcp_server([steps, add], journal=journal, targets=["flow.py:steps", "flow.py:add"])
    async with mcp.Client(server) as client:
        await client.call_tool("steps", {"input": "go"}, progress_callback=note)
        await client.call_tool("steps", {"input": "go"})
    assert noted == [(1.0, "steps"), (2.0, "steps/helper"), (3.0, "steps/helper/chat")]
    assert [run.status for run in await journal.runs()] == ["done", "done"]


async def test_a_cancelled_call_cancels_its_run() -> None:
    """The server goes on."""
    begun, journal = anyio.Event(), MemoryJournal()

    @tool
    async def wait(ctx: Context) -> str:
        """Wait."""
        begun.set()
        await anyio.sleep(3_600)
        return ""

    async with mcp.Client(mcp_server([wait, ready], journal=journal)) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "wait", {})
            await begun.wait()
            tasks.cancel_scope.cancel()
        assert await told(client, "ready") == (False, "[1,2]")
    assert sorted(run.status for run in await journal.runs()) == ["cancelled", "done"]


async def test_calls_are_narrowed_to_tools_of_whatever_is_served() -> None:
    """A name need not be one of each node; one of none is refused."""
    with pytest.raises(DefinitionError, match=r"allow=\['ad'\]: add, shout has no such tool"):
        mcp_server([add, shout], allow=["ad"])
    async with mcp.Client(mcp_server([add, shout], allow=["add"])) as client:
        assert await told(client, "add", a=1) == (False, '{"total":3}')
        refused = "shout: shout is not among the tools that this run allows: add"
        assert await told(client, "shout", text="a") == (True, refused)


def test_what_cannot_be_served_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of one name; anything without the SDK."""
    with pytest.raises(DefinitionError, match="two nodes of one name cannot be served: add, add"):
        mcp_server([add, Tool(double, name="add")])
    monkeypatch.setattr("agentrt.serve.mcp.find_spec", lambda name: None)
    with pytest.raises(DefinitionError, match=r"pip install 'agentrt\[mcp\]'"):
        mcp_server([add])
    assert importlib.util.find_spec("mcp")
