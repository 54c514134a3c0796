"""The tools of an MCP server as nodes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import anyio
from pydantic import TypeAdapter
from pydantic_core import from_json

from agentrt import Context, DefinitionError, InvalidArguments, Tool
from agentrt.arguments import Arguments
from agentrt.interval import Interval, Outlook
from agentrt.messages import tool_name
from agentrt.tool import Approval, as_text
from agentrt_tools.mcp.catalogue import catalogue, connection_of, more
from agentrt_tools.mcp.connection import Connection, connection
from agentrt_tools.mcp.content import value_of
from agentrt_tools.mcp.names import MORE, own_names, plain_name
from agentrt_tools.mcp.offer import Listing, Offer, is_wanted, listing, offers
from agentrt_tools.mcp.server import Server, ToolFailed

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult, InputRequiredResult

_MOST_PROGRESS: Final = 100
"""So many notes of progress of one call become events: an event is kept."""
_LONGEST_PREFIX: Final = 32
_CONTEXT: Final = "_agentrt_context"
"""What no schema calls an argument."""


class McpTool(Tool[..., object]):
    """Call a tool of an MCP server, over the connection that its run keeps.

    A tool that states a schema of its output returns what its server returns in that form; any other returns text.

    Raises `InvalidArguments` before anything is sent, `ToolFailed` with the server's words, and `ServerFailed`.
    """

    def __init__(
        self, server: Server, offer: Offer, *, reader: str, untrusted: bool, approval: Approval = False
    ) -> None:
        async def call(_agentrt_context: Context, **arguments: object) -> object:
            return await self._send(_agentrt_context, arguments)

        # The server's schema says what the arguments are; to a function node they are what is left.
        taken = inspect.Parameter(_CONTEXT, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Context)
        call.__signature__ = inspect.Signature([taken])  # type: ignore[attr-defined]
        self.offer = offer
        self._server = server
        self._reader = tool_name(reader)
        super().__init__(
            call,
            name=offer.name,
            description=offer.description,
            effect=offer.effect,
            untrusted=untrusted,
            approval=approval,
        )
        self.output = object

    @cached_property
    def arguments(self) -> Arguments:
        """Describe the arguments as the server does."""
        return Arguments(dict(self.offer.schema.stated), self._read)

    def interval(self, outlook: Outlook) -> Interval:
        return Interval() if self.approval is False else super().interval(outlook)

    async def invoke(self, ctx: Context, value: Any, /) -> object:
        """Take the arguments as a mapping."""
        return await self.call(ctx, (), self._read(value))

    def _read(self, given: str | Mapping[str, Any]) -> Mapping[str, Any]:
        arguments = _as_object(given)
        if mistakes := self.offer.schema.mistakes(arguments):
            raise InvalidArguments("; ".join(mistakes))
        return arguments

    async def _send(self, ctx: Context, arguments: Mapping[str, object]) -> object:
        opened = await connection_of(ctx, self._server)
        progress = _Progress(ctx)
        try:
            result = await opened.request(
                lambda client: _answer(client, self.offer.stated_name, arguments, progress),
                again=self.effect in ("read", "idempotent"),
            )
        finally:
            progress.is_over = True
        return self._value(ctx, opened, result)

    def _value(self, ctx: Context, opened: Connection, result: CallToolResult) -> object:
        value = value_of(result, structured=self.offer.output is not None and not result.is_error)
        text = opened.results.cut(as_text(value), ctx.key, self._reader)
        if result.is_error:
            raise ToolFailed(text or f"{self.offer.stated_name} failed and did not say why")
        if self.offer.output is not None and (mistakes := self.offer.output.mistakes(result.structured_content)):
            raise ToolFailed(f"{self.offer.stated_name} did not return what it declares: {'; '.join(mistakes)}")
        return value if not isinstance(value, str) and len(as_text(value)) == len(text) else text


class _Progress:
    """Publish what a server says of a call's progress, as long as it goes on."""

    def __init__(self, ctx: Context) -> None:
        self.is_over = False
        self._ctx = ctx
        self._left = _MOST_PROGRESS

    async def note(self, progress: float, total: float | None, message: str | None) -> None:
        if not self.is_over and self._left:
            self._left -= 1
            self._ctx.emit({"progress": progress, "total": total, "message": (message or "")[:200]})


async def _answer(client: Client, name: str, arguments: Mapping[str, object], progress: _Progress) -> CallToolResult:
    """Call a tool; the SDK's own check of its result may take any time, so it is not used."""
    from mcp_types import CallToolRequest, CallToolRequestParams, InputRequiredResult

    request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=dict(arguments)))
    result = await client.session.send_request(request, _results(), progress_callback=progress.note)
    if isinstance(result, InputRequiredResult):
        raise ToolFailed(f"{name} asks its user or a model for more, and nobody answers here")
    return result


@cache
def _results() -> TypeAdapter[CallToolResult | InputRequiredResult]:
    from mcp_types import CallToolResult, InputRequiredResult

    return TypeAdapter(CallToolResult | InputRequiredResult)


def _as_object(given: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    try:
        arguments = from_json(given or "{}")
    except ValueError as error:
        raise InvalidArguments(f"no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise InvalidArguments(f"write an object, not {type(arguments).__name__}")
    return arguments


class McpOptions(TypedDict, total=False):
    """Say how to use an MCP server.

    name: what its nodes' names begin with; without it, what the server calls itself.
    env: variables for the command, besides the few that it inherits. headers: for the URL, such as a key.
    timeout: seconds for connecting, for listing and for each call; 30 without it.
    include, exclude: which of its tools, by the names they have there. `resources`, `read_resource`, `prompts` and
        `get_prompt` are nodes that are made for a server that has resources or prompts.
    trusted: whether its results are as good as your own words; without it they are marked as untrusted.
    hints: whether it is believed what it says of its tools' effects; False takes each tool to write, and once.
    approval: whether a person has to approve each call of its tools, or a function of the arguments that says so.
    """

    name: str | None
    env: Mapping[str, str] | None
    headers: Mapping[str, str] | None
    timeout: float
    include: Collection[str] | None
    exclude: Collection[str]
    trusted: bool
    hints: bool
    approval: Approval


def mcp_tools(server: str | Sequence[str], **options: Unpack[McpOptions]) -> list[Tool[..., Any]]:
    """Return the tools of an MCP server as nodes named `NAME.tool`; it is asked now for what it has.

    server: the command line that starts it, or its http(s) URL.

    Raises `ServerFailed` if it cannot be reached, `DefinitionError` for tools that cannot be offered to a model.
    """
    work = partial(list_mcp_tools, server, **options)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(work)
    with ThreadPoolExecutor(1) as threads:  # a loop runs here, and this function is not to be awaited
        return threads.submit(anyio.run, work).result()


async def list_mcp_tools(server: str | Sequence[str], **options: Unpack[McpOptions]) -> list[Tool[..., Any]]:
    """Return what `mcp_tools` returns, without blocking."""
    name, include, exclude = options.get("name"), options.get("include"), options.get("exclude", ())
    reached = Server.of(
        server,
        name=name,
        env=options.get("env"),
        headers=options.get("headers"),
        timeout=options.get("timeout", 30.0),
    )
    found = await _listed(reached)
    prefix = plain_name(name or found.name)[:_LONGEST_PREFIX] or "mcp"
    chosen = offers(reached.label, prefix, found.tools, include, exclude)
    untrusted = not options.get("trusted", False)
    if not options.get("hints", True):
        chosen = [replace(offer, effect="unsafe") for offer in chosen]
    approval = options.get("approval", False)
    own = own_names(prefix, {offer.name for offer in chosen})
    made = [McpTool(reached, offer, reader=own[MORE], untrusted=untrusted, approval=approval) for offer in chosen]
    besides = catalogue(reached, own, found, untrusted=untrusted)
    return [
        *made,
        *([more(reached, own[MORE], untrusted=untrusted)] if made else []),
        *(t for n, t in besides.items() if is_wanted(n, include, exclude)),
    ]


async def _listed(server: Server) -> Listing:
    _need_sdk()
    async with connection(server) as opened:
        return await opened.request(listing, again=True)


def _need_sdk() -> None:
    if find_spec("mcp") is None:
        raise DefinitionError("MCP servers need a package that is not installed: pip install 'agentrt[mcp]'")
