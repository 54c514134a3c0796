"""Tools: schemas from signatures and docstrings, arguments, time-outs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import anyio
import pytest
from pydantic import BaseModel, Field

import agentrt_tools
from agentrt import (
    Agent,
    Context,
    DefinitionError,
    InvalidArguments,
    ModelRequest,
    Node,
    StepFailed,
    StepTimeout,
    replay,
    run,
    tool,
)
from agentrt.function import FunctionNode, as_node
from agentrt.stores import MemoryJournal
from agentrt.tool import Tool, ToolUse, as_text, as_tool, tool_spec

pytestmark = pytest.mark.anyio


class Place(BaseModel):
    name: str
    country: str = "FR"


@tool
async def search(
    query: str,
    k: Annotated[int, Field(ge=1)] = 5,
    order: Literal["date", "rank"] = "rank",
    near: Place | None = None,
) -> list[str]:
    """Search the wiki.

    Slowly.

    Args:
        query: what to look for
        k: how many passages
    """
    return [query, str(k), order, near.country if near else "-"]


def test_the_schema_comes_from_the_signature() -> None:
    """Literals, annotations, models, defaults."""
    schema = tool_spec(search).parameters
    properties = schema["properties"]
    assert schema["required"] == ["query"]
    assert schema["additionalProperties"] is False
    assert (properties["k"]["minimum"], properties["k"]["default"]) == (1, 5)
    assert properties["order"]["enum"] == ["date", "rank"]
    assert schema["$defs"]["Place"]["required"] == ["name"]


def test_descriptions_come_from_the_docstring() -> None:
    """The tool's from its first paragraph, a parameter's from its own line."""
    spec = tool_spec(search)
    assert (spec.name, spec.description) == ("search", "Search the wiki.")
    assert spec.parameters["properties"]["query"]["description"] == "what to look for"
    assert "description" not in spec.parameters["properties"]["order"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"query": "x"}', ["x", "5", "rank", "-"]),
        ('{"query": "x", "k": 2, "order": "date", "near": {"name": "Paris"}}', ["x", "2", "date", "FR"]),
        ({"query": "x", "k": "3"}, ["x", "3", "rank", "-"]),
    ],
)
async def test_arguments_are_read_from_json(arguments: Any, expected: list[str]) -> None:
    """With defaults, and models built."""
    assert (await run(ToolUse(search, "call-1"), arguments)).output == expected


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        ('{"query": "x", "k": 0}', "k: Input should be greater than or equal to 1"),
        ('{"query": "x", "order": "size"}', "order: Input should be 'date' or 'rank'"),
        ('{"query": "x", "near": {}}', "near.name: Field required"),
        ('{"query": "x", "why": 1}', "why: Extra inputs are not permitted"),
        ("{", "arguments: Invalid JSON"),
        ("{}", "query: Field required"),
    ],
)
def test_mistakes_are_told_one_line_each(arguments: str, mistake: str) -> None:
    """For a model to act on."""
    with pytest.raises(InvalidArguments, match=mistake):
        search.arguments.parse(arguments)


def test_a_parameter_without_a_type_is_told_where_the_tool_is_defined() -> None:
    """Since the model is told the types."""

    def untyped(x) -> str:  # type: ignore[no-untyped-def]
        """Do."""
        return str(x)

    with pytest.raises(DefinitionError, match=r"parameter 'x' of tool 'untyped' has no type: write `def untyped"):
        tool(untyped)


def test_a_parameter_without_a_schema_is_told_too() -> None:
    """A lock cannot be written as JSON."""

    def locked(lock: threading.Thread) -> str:
        """Do."""
        return str(lock)

    with pytest.raises(DefinitionError, match="locked"):
        tool(locked)


def test_a_tool_without_description_cannot_be_offered() -> None:
    """A docstring or `description=`."""

    def mute(x: int) -> int:
        return x

    with pytest.raises(DefinitionError, match="'mute' needs a description"):
        tool_spec(tool(mute))
    assert tool_spec(Tool(mute, description="does")).description == "does"


async def test_a_tool_is_still_the_function() -> None:
    """Called directly, it is called."""
    assert await search("x") == ["x", "5", "rank", "-"]


async def test_the_context_is_no_parameter_of_the_model() -> None:
    """It is passed by the runtime."""

    @tool
    async def where(x: int, ctx: Context) -> str:
        """Tell."""
        return f"{ctx.path} {x}"

    assert set(tool_spec(where).parameters["properties"]) == {"x"}
    assert (await run(ToolUse(where, "call-1"), '{"x": 1}')).output == "where 1"


async def test_a_sync_tool_runs_in_a_thread() -> None:
    """It blocks nobody."""

    @tool
    def thread() -> int:
        """Tell."""
        return threading.get_ident()

    assert (await run(ToolUse(thread, "call-1"), "")).output != threading.get_ident()


async def test_a_tool_has_a_time_out() -> None:
    """In seconds; it is cancelled and named."""

    @tool(timeout=0.01)
    async def slow() -> None:
        """Wait."""
        await anyio.sleep_forever()

    with pytest.raises(StepFailed) as error:
        await run(ToolUse(slow, "call-1"), "{}")
    assert isinstance(error.value.cause, StepTimeout)
    assert "slow took longer than its time-out of 0.01 s" in str(error.value)


async def test_a_sync_tool_that_times_out_is_abandoned() -> None:
    """The run does not wait for its thread."""
    release = threading.Event()

    @tool(timeout=0.01)
    def slow() -> None:
        """Wait."""
        release.wait(20)

    with anyio.fail_after(10), pytest.raises(StepFailed, match="time-out"):
        await run(ToolUse(slow, "call-1"), "{}")
    release.set()


def test_names_are_made_fit_for_models() -> None:
    """Providers take letters, digits, _ and -."""
    assert tool_spec(Tool(search.function, name="look up!")).name == "look_up_"


def test_any_node_serves_as_a_tool() -> None:
    """A plain function becomes one; a node stays what it is."""

    async def plain(x: int) -> int:
        """Do."""
        return x

    assert isinstance(as_tool(plain), Tool)
    assert as_tool(search) is search
    assert type(as_node(plain)) is FunctionNode


def test_values_are_shown_as_a_model_reads_them() -> None:
    """Text as it is, the rest as JSON, what is not JSON as text."""
    assert as_text("a") == "a"
    assert as_text({"a": [1, None]}) == '{"a":[1,null]}'
    assert as_text(Place(name="x")) == '{"name":"x","country":"FR"}'
    assert as_text(ValueError("x")) == '"x"'


def folder_tools(root: str, *, write: bool = False) -> list[Tool[..., str]]:
    """Make the tools of a folder."""
    return []


def one_tool() -> Tool[..., str]:
    """Make a tool."""
    raise AssertionError


def agent_for(model: Callable[[ModelRequest], str]) -> Agent[str, str]:
    """Make an agent, of parameters that no model could write."""
    raise AssertionError


async def server_tools(server: str) -> Sequence[Node[Any, Any]]:
    """Make the tools of a server."""
    return []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (folder_tools, r"folder_tools is no tool, but makes several: write \*folder_tools\(root\)"),
        (server_tools, r"makes several: write \*await server_tools\(server\)"),
        (one_tool, r"one_tool is no tool, but makes one: write one_tool\(\)"),
        (agent_for, r"makes one: write agent_for\(model\)"),
        ([one_tool], r"a list is not a node: write a star before it"),
        (Agent, r"Agent is a class: make a node of it, as in Agent\(…\)"),
    ],
)
def test_what_makes_tools_is_none(given: Any, told: str) -> None:
    """A model could call it as it likes, with any folder; what was meant is said where the agent is made."""
    with pytest.raises(DefinitionError, match=told):
        Agent("clerk", tools=[given])


@pytest.mark.parametrize("name", ["files", "sql", "shell", "notes", "fetcher", "ask_model", "web_search"])
def test_every_function_of_the_catalogue_that_makes_tools_says_so(name: str) -> None:
    """Where it is given as a tool itself."""
    with pytest.raises(DefinitionError, match=rf"{name} is no tool, but makes .*: write \*?{name}\("):
        Agent("clerk", tools=[getattr(agentrt_tools, name)])


def test_a_value_that_holds_itself_is_written_all_the_same() -> None:
    value: list[object] = []
    value.append(value)
    assert as_text(value) == '[["..."]]'


@tool(effect="read")
async def visit(place: Place | None = None) -> str:
    """Visit a place."""
    return "nowhere" if place is None else f"{type(place).__name__} {place.country}"


@tool(effect="read")
async def listed(start: int = 0) -> int:
    """List what there is."""
    return start


@tool(effect="read")
async def keys(table: dict[str, int]) -> str:
    """Return the keys of a table."""
    return " ".join(table)


@tool(effect="read")
async def anything(thing: Any) -> str:
    """Say what it is."""
    return f"{thing}"


@pytest.mark.parametrize(
    ("node", "given", "output"),
    [
        (listed, {}, 0),
        (listed, {"start": 3}, 3),
        (listed, {"start": "3"}, 3),
        (listed, 3, 3),
        (visit, {}, "nowhere"),
        (visit, {"place": {"name": "Dorrel"}}, "Place FR"),
        (visit, Place(name="Dorrel", country="XX"), "Place XX"),
        (keys, {"table": 1}, "table"),
        (keys, {"table": {"a": 1}}, "a"),
        (anything, {"thing": 1}, "{'thing': 1}"),
        (search, {"query": "a", "k": 2}, ["a", "2", "rank", "-"]),
    ],
)
async def test_a_run_of_a_tool_alone_takes_arguments_by_name(node: Tool[..., Any], given: Any, output: Any) -> None:
    """However many parameters it has; what the type of the only one takes is the argument itself."""
    journal = MemoryJournal()
    assert (await run(node, given, journal=journal, run_id="r")).output == output
    assert (await replay(node, "r", journal=journal)).output == output


async def test_arguments_of_a_tool_that_do_not_fit_are_told() -> None:
    """Before anything runs."""
    with pytest.raises(InvalidArguments, match="end: Extra inputs are not permitted"):
        await run(listed, {"end": 3})
    with pytest.raises(InvalidArguments, match="start: Input should be a valid integer"):
        await run(listed, {"start": "soon"})
