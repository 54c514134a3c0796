"""What MCP servers answer, as models read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from agentrt.tool import as_text

if TYPE_CHECKING:
    from mcp_types import BlobResourceContents, CallToolResult, Prompt, PromptMessage, TextResourceContents


def value_of(result: CallToolResult, *, structured: bool) -> object:
    """Return a tool's result: the structured content of one that states a schema for it, else all of it as text."""
    if structured and all(part.type == "text" for part in result.content):
        return result.structured_content
    parts = [text_of(part) for part in result.content]
    if result.structured_content is not None and not any(part.type == "text" for part in result.content):
        parts.append(as_text(result.structured_content))
    return "\n".join(parts)


def text_of(part: Any) -> str:
    """Return one part of a result as text; what is no text is told, with its size."""
    match part.type:
        case "text":
            return str(part.text)
        case "image" | "audio":
            return f"[{part.type} {part.mime_type}, {_size(part.data)}]"
        case "resource_link":
            size = "" if part.size is None else f", {part.size:,} bytes"
            return f"[resource {part.uri}: {part.title or part.name}{size}]"
        case "resource":
            return contents_of(part.resource)
        case other:
            return f"[{other}]"


def contents_of(resource: TextResourceContents | BlobResourceContents) -> str:
    """Return what a resource holds as text."""
    text = getattr(resource, "text", None)
    if text is not None:
        return str(text)
    return f"[{resource.mime_type or 'binary'} {resource.uri}, {_size(getattr(resource, 'blob', ''))}]"


def listed_resources(resources: Iterable[Any]) -> Iterator[str]:
    """Yield a line for each resource or template of resources."""
    for one in resources:
        uri = getattr(one, "uri", None) or one.uri_template
        kind = f" ({one.mime_type})" if one.mime_type else ""
        yield f"{uri}{kind}: {' '.join((one.description or one.title or one.name).split())}"


def listed_prompts(prompts: Iterable[Prompt]) -> Iterator[str]:
    """Yield a line for each prompt: what it takes, an optional argument in brackets, and what it is."""
    for one in prompts:
        takes = ", ".join(a.name if a.required else f"[{a.name}]" for a in one.arguments or ())
        yield f"{one.name}({takes}): {' '.join((one.description or one.title or one.name).split())}"


def said(messages: Iterable[PromptMessage]) -> str:
    """Return the messages of a prompt as text."""
    return "\n\n".join(f"{m.role}: {text_of(m.content)}" for m in messages)


def _size(base64: str) -> str:
    return f"{len(base64) * 3 // 4 - base64[-2:].count('='):,} bytes"
