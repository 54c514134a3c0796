"""Graphs, agents and tools as tools of a server of the Model Context Protocol: each call is a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Unpack

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import to_jsonable_python

from agentrt.errors import AgentrtError, DefinitionError
from agentrt.events import StepStarted
from agentrt.function import FunctionNode
from agentrt.messages import tool_name
from agentrt.node import Node
from agentrt.options import Options
from agentrt.permission import check_allow
from agentrt.runtime import streamed
from agentrt.tool import as_text, as_tool

if TYPE_CHECKING:
    from mcp.server import Server
    from mcp.server.context import ServerRequestContext
    from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, Tool

_BUFFER: Final = 100
"""So many events wait for a client that is slow to take notes of progress; older ones are dropped."""


def mcp_server(
    nodes: Sequence[Node[Any, Any] | Callable[..., Any]],
    *,
    name: str = "agentrt",
    targets: Sequence[str | None] = (),
    **options: Unpack[Options],
) -> Server[Any]:
    """Return a server that has each node as a tool; every call is a run with these options.

    targets: where each node is found, `FILE:NAME`, for the shell to go on with its runs.

    A client that cancels a call, or goes away, cancels its run.

    Raises `DefinitionError` for two nodes of one name, and for names in `allow` that no tool has.
    """
    if find_spec("mcp") is None:
        raise DefinitionError("serving MCP needs a package that is not installed: pip install 'agentrt[mcp]'")
    from mcp.server import Server

    from agentrt import __version__

    found = targets or [options.get("target")] * len(nodes)
    served = [as_tool(node) for node in nodes]
    check_allow(options.get("allow"), *served)
    tools = _Tools([_Served(n, {**options, "target": t}) for n, t in zip(served, found, strict=True)])
    return Server(name, version=__version__, on_list_tools=tools.listed, on_call_tool=tools.called)


class _Tools:
    """Answer what clients ask of the tools of one server."""

    def __init__(self, served: Sequence[_Served]) -> None:
        self._named = {one.name: one for one in served}
        if len(self._named) < len(served):
            raise DefinitionError(f"two nodes of one name cannot be served: {', '.join(one.name for one in served)}")

    async def listed(self, ctx: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        from mcp_types import ListToolsResult

        return ListToolsResult(tools=[one.described() for one in self._named.values()])

    async def called(self, ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        from mcp import MCPError
        from mcp_types import INVALID_PARAMS

        if (one := self._named.get(params.name)) is None:
            raise MCPError(INVALID_PARAMS, f"no tool {params.name!r}; there are: {', '.join(self._named)}")
        return await one.run(params.arguments or {}, ctx.session.report_progress)


class _Served:
    """Be one node as a tool."""

    def __init__(self, node: Node[Any, Any], options: Options) -> None:
        self.name = tool_name(node.name)
        self._node = node
        self._options = options
        self._output = _object_schema(node.output)

    def described(self) -> Tool:
        """Describe the node as clients are told of tools."""
        from mcp_types import Tool, ToolAnnotations

        node = self._node
        hints = ToolAnnotations(
            read_only_hint=True if node.effect == "read" else None,
            idempotent_hint=True if node.effect == "idempotent" else None,
            destructive_hint=True if node.effect == "unsafe" else None,
            open_world_hint=True if node.untrusted else None,
        )
        return Tool(
            name=self.name,
            description=node.description or f"Run the {node.kind} {node.name}.",
            input_schema={**node.arguments.schema, "type": "object"},
            output_schema=self._output,
            annotations=hints,
        )

    async def run(self, arguments: Mapping[str, Any], report: Callable[..., Any]) -> CallToolResult:
        """Run the node and return its output, or what went wrong; `report` gets a note of each step that begins."""
        from mcp_types import CallToolResult, TextContent

        try:
            output = await self._run(arguments, report)
        except AgentrtError as error:
            return CallToolResult(content=[TextContent(text=str(error))], is_error=True)
        structured = to_jsonable_python(output, fallback=str) if self._output is not None else None
        return CallToolResult(content=[TextContent(text=as_text(output))], structured_content=structured)

    async def _run(self, arguments: Mapping[str, Any], report: Callable[..., Any]) -> Any:
        begun = 0
        async with streamed(self._node, self._input(arguments), self._options, _BUFFER) as events:
            async for event in events:
                if isinstance(event, StepStarted):
                    begun += 1
                    await report(begun, message=event.path)
            return events.result.output

    def _input(self, arguments: Mapping[str, Any]) -> Any:
        """Return what the node takes as its input, from the arguments it takes as a tool."""
        given = self._node.arguments.parse(arguments)
        if isinstance(self._node, FunctionNode) and len(self._node.parameters) == 1:
            return next(iter(given.values()))
        return given


def _object_schema(output: Any) -> dict[str, Any] | None:
    """Return the JSON schema of a type whose values are objects; of no other can clients be told."""
    try:
        schema = TypeAdapter(output).json_schema(mode="serialization")
    except PydanticUserError:
        return None
    return schema if schema.get("type") == "object" and "properties" in schema else None
