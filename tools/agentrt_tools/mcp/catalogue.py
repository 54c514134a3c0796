"""What an MCP server has besides tools, resources and prompts, as tools; and the tool that reads on in long results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentrt import Context, Tool
from agentrt.messages import tool_name
from agentrt_tools.excerpt import excerpt
from agentrt_tools.mcp.connection import Connection, connection
from agentrt_tools.mcp.content import contents_of, listed_prompts, listed_resources, said
from agentrt_tools.mcp.offer import Listing, every
from agentrt_tools.mcp.server import Server

if TYPE_CHECKING:
    from mcp import Client


async def connection_of(ctx: Context, server: Server) -> Connection:
    """Return the run's connection to a server, which is opened for the step that asks first."""
    opened: Connection = await ctx.resource(("mcp", server), lambda: connection(server), scope="run")
    return opened


def more(server: Server, name: str, *, untrusted: bool) -> Tool[..., str]:
    """Return the tool that reads on in results that were cut."""

    async def read_on(result: str, start: int, *, ctx: Context) -> str:
        """Read on in a long result of another tool that was cut.

        Args:
            result: The name of the result, from its last line.
            start: The number to go on from, from the same line.
        """
        opened = await connection_of(ctx, server)
        return opened.results.more(result, start, tool_name(name))

    return Tool(read_on, name=name, effect="read", untrusted=untrusted)


def catalogue(
    server: Server, names: Mapping[str, str], found: Listing, *, untrusted: bool
) -> dict[str, Tool[..., str]]:
    """Return tools that list and read a server's resources and prompts, each with its own of these names."""
    functions = [
        *(_resources(server) if found.has_resources else ()),
        *(_prompts(server) if found.has_prompts else ()),
    ]
    return {f.__name__: Tool(f, name=names[f.__name__], effect="read", untrusted=untrusted) for f in functions}


def _resources(server: Server) -> Sequence[Any]:
    async def resources(start: int = 0, *, ctx: Context) -> str:
        """List the resources that can be read, and templates of their URIs.

        Args:
            start: Where to go on in a long list.
        """
        opened = await connection_of(ctx, server)
        found = await opened.request(_all_resources, again=True)
        return excerpt("\n".join(listed_resources(found)) or "There are none.", start)

    async def read_resource(uri: str, start: int = 0, *, ctx: Context) -> str:
        """Read a resource.

        Args:
            uri: The URI of the resource.
            start: Where to go on in a long text.
        """
        opened = await connection_of(ctx, server)
        read = await opened.request(lambda client: client.read_resource(uri), again=True)
        return excerpt("\n".join(map(contents_of, read.contents)), start)

    return resources, read_resource


def _prompts(server: Server) -> Sequence[Any]:
    async def prompts(start: int = 0, *, ctx: Context) -> str:
        """List the prompts that there are, with what they take; what is in brackets may be left out.

        Args:
            start: Where to go on in a long list.
        """
        opened = await connection_of(ctx, server)
        found = await opened.request(_all_prompts, again=True)
        return excerpt("\n".join(listed_prompts(found)) or "There are none.", start)

    async def get_prompt(name: str, arguments: dict[str, str] | None = None, start: int = 0, *, ctx: Context) -> str:
        """Get a prompt's messages.

        Args:
            name: The name of the prompt.
            arguments: What it takes, by name.
            start: Where to go on in a long text.
        """
        opened = await connection_of(ctx, server)
        got = await opened.request(lambda client: client.get_prompt(name, arguments), again=True)
        return excerpt(said(got.messages), start)

    return prompts, get_prompt


async def _all_resources(client: Client) -> list[Any]:
    """Return resources and templates; a server may have the ones without the others."""
    from mcp import MCPError
    from mcp_types import METHOD_NOT_FOUND

    async def plain(cursor: str | None) -> tuple[Sequence[Any], str | None]:
        page = await client.list_resources(cursor=cursor)
        return page.resources, page.next_cursor

    async def templates(cursor: str | None) -> tuple[Sequence[Any], str | None]:
        page = await client.list_resource_templates(cursor=cursor)
        return page.resource_templates, page.next_cursor

    found = await every(plain)
    try:
        return found + await every(templates)
    except MCPError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
        return found


async def _all_prompts(client: Client) -> list[Any]:
    async def page(cursor: str | None) -> tuple[Sequence[Any], str | None]:
        listed = await client.list_prompts(cursor=cursor)
        return listed.prompts, listed.next_cursor

    return await every(page)
