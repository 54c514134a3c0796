"""What an MCP server offers, checked before anything is made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentrt import DefinitionError
from agentrt.schema import Schema, SchemaRefused
from agentrt.text import shortened
from agentrt_tools.mcp.names import LONGEST_NAME, READY_MADE, distinct_names, plain_name
from agentrt_tools.mcp.server import ServerFailed

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import Tool as Stated
    from mcp_types import ToolAnnotations

    from agentrt.node import Effect

MOST_TOOLS: Final = 128
"""So many tools one list may give: more than models choose from, or providers take."""
MOST_DESCRIPTION: Final = 4_000
_MOST_QUOTED: Final = 80
_MOST_LISTED: Final = 2_000
_MOST_PAGES: Final = 100


@dataclass(frozen=True, slots=True)
class Offer:
    """Hold a server's tool: its name there and here, what models read of it, its schemas, and its effect."""

    stated_name: str
    name: str
    description: str
    schema: Schema
    output: Schema | None
    effect: Effect


@dataclass(frozen=True, slots=True)
class Listing:
    """Hold what a server says of itself, as it says it."""

    name: str
    tools: Sequence[Stated]
    has_resources: bool
    has_prompts: bool


async def listing(client: Client) -> Listing:
    """Ask a server for what it has, page by page; raises `ServerFailed` for a list that does not end."""
    has = client.server_capabilities
    information = client.server_info
    return Listing(
        name=information.name if information is not None else "",
        tools=await _all_tools(client) if has.tools is not None else (),
        has_resources=has.resources is not None,
        has_prompts=has.prompts is not None,
    )


async def _all_tools(client: Client) -> list[Stated]:
    async def page(cursor: str | None) -> tuple[Sequence[Stated], str | None]:
        listed = await client.list_tools(cursor=cursor)
        return listed.tools, listed.next_cursor

    return await every(page)


async def every(page: Callable[[str | None], Awaitable[tuple[Sequence[Any], str | None]]]) -> list[Any]:
    """Return what all pages of a list hold; raises `ServerFailed` for one that does not end."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        items, cursor = await page(cursor)
        found += items
        if cursor is None:
            return found
        if len(found) > _MOST_LISTED:
            break
    raise ServerFailed(f"its list has more than {_MOST_LISTED:,} entries, or does not end")


def offers(
    label: str, prefix: str, tools: Sequence[Stated], include: Collection[str] | None, exclude: Collection[str]
) -> list[Offer]:
    """Return the tools that are wanted, under distinct names.

    Raises `DefinitionError`, naming server and tool, for what cannot be one.
    """
    wanted = [t for t in tools if is_wanted(t.name, include, exclude)]
    known = {t.name for t in tools} | set(READY_MADE)
    if missing := sorted({*(include or ()), *exclude} - known):
        raise DefinitionError(f"MCP server {label} has no {', '.join(missing)}; it has {_names(known)}")
    if len(wanted) > MOST_TOOLS:
        raise DefinitionError(
            f"MCP server {label} has {len(wanted):,} tools, and {MOST_TOOLS} are the most: name those you want with "
            "include="
        )
    for stated in wanted:
        _check_name(label, stated)
    if twice := [t for t in wanted if Counter(t.name for t in wanted)[t.name] > 1]:
        raise _refused(label, twice[0], "it is listed twice, and which of the two is meant nobody could say")
    names = distinct_names(prefix, [t.name for t in wanted])
    return [_offer(label, stated, names[stated.name], prefix) for stated in wanted]


def is_wanted(name: str, include: Collection[str] | None, exclude: Collection[str]) -> bool:
    """Say whether a tool is among those to be used."""
    return (include is None or name in include) and name not in exclude


def _check_name(label: str, stated: Stated) -> None:
    if not plain_name(stated.name):
        raise _refused(label, stated, "its name has no letter or digit")


def _offer(label: str, stated: Stated, name: str, prefix: str) -> Offer:
    if len(name) > LONGEST_NAME:
        raise _refused(
            label, stated, f"its name {name[:80]} is longer than {LONGEST_NAME}; give the server a shorter name="
        )
    if stated.input_schema.get("type", "object") != "object":
        raise _refused(label, stated, "its input schema is not that of an object")
    return Offer(
        stated_name=stated.name,
        name=name,
        description=_described(stated, is_numbered=name != f"{prefix}.{plain_name(stated.name)}"),
        schema=_schema(label, stated, {**stated.input_schema, "type": "object"}, "input"),
        output=None if stated.output_schema is None else _schema(label, stated, stated.output_schema, "output"),
        effect=_effect(stated.annotations),
    )


def _schema(label: str, stated: Stated, schema: dict[str, Any], what: str) -> Schema:
    made = Schema(schema)
    try:
        made.check()
    except SchemaRefused as error:
        raise _refused(label, stated, f"its {what} schema is refused: {error}") from error
    return made


def _described(stated: Stated, *, is_numbered: bool) -> str:
    """Return what a model reads of a tool; one whose name does not tell it from another, its own name first."""
    text = (stated.description or stated.title or stated.name)[: 2 * MOST_DESCRIPTION]
    if is_numbered:
        text = f"{(stated.title or stated.name)[:_MOST_QUOTED]!r}: {text}"
    text = "".join(c for c in text if c.isprintable() or c in "\n\t").strip() or "A tool that says nothing of itself."
    return shortened(text, MOST_DESCRIPTION)


def _effect(hints: ToolAnnotations | None) -> Effect:
    """Return the effect that a server states; it may lie, as it may about anything."""
    if hints is not None and hints.read_only_hint:
        return "read"
    return "idempotent" if hints is not None and hints.idempotent_hint else "unsafe"


def _refused(label: str, stated: Stated, why: str) -> DefinitionError:
    return DefinitionError(f"MCP server {label}, tool {stated.name[:80]!r}: {why} (exclude=[…] leaves it out)")


def _names(known: Collection[str]) -> str:
    return ", ".join(name[:80] for name in sorted(known)[:MOST_TOOLS])
