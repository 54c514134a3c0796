"""What servers offer, before it is a tool: names and descriptions that nobody could use."""

from __future__ import annotations

import pytest
from mcp_types import Tool, ToolAnnotations

from agentrt import DefinitionError
from agentrt_tools.mcp.offer import MOST_DESCRIPTION, Offer, offers


def offered(name: str = "echo", **options: object) -> Offer:
    stated = Tool.model_validate({"name": name, "inputSchema": {}, **options})
    (one,) = offers("server", "it", [stated], None, ())
    return one


def test_descriptions_are_cut_and_cleaned() -> None:
    """Megabytes of text and what would colour a terminal help no model."""
    assert len(offered(description="x" * 5_000_000).description) == MOST_DESCRIPTION
    assert offered(description="a\x1b[31m\x00b\n c").description == "a[31mb\n c"
    assert offered(title="Echo").description == "Echo"
    assert offered(description="\x00").description == "A tool that says nothing of itself."


@pytest.mark.parametrize(
    ("name", "node"), [("a.b/c d", "it.a_b_c_d"), ("größe", "it.gr_e"), ("-x-", "it.-x-"), ("#[0]", "it.0")]
)
def test_odd_names_become_plain(name: str, node: str) -> None:
    """As providers take them; the server is called by its own."""
    assert (offered(name).name, offered(name).stated_name) == (node, name)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "///"}, "MCP server server, tool '///': its name has no letter or digit"),
        ({"name": "n" * 80}, "is longer than 64; give the server a shorter name="),
        ({"name": "more"}, "its name would be it.more, as that of the node 'more' that is made for each server"),
        ({"inputSchema": {"type": "string"}}, "its input schema is not that of an object"),
        ({"inputSchema": {"type": "object", "required": 3}}, "its input schema is refused"),
        ({"outputSchema": {"$ref": "https://example.org"}}, "its output schema is refused: it refers to"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(options: dict[str, object], told: str) -> None:
    """With the server, the tool and what to do."""
    with pytest.raises(DefinitionError, match=told) as refused:
        offered(**options)  # type: ignore[arg-type]
    assert "exclude=[…] leaves it out" in str(refused.value)


@pytest.mark.parametrize(
    ("hints", "effect"),
    [
        (None, "unsafe"),
        (ToolAnnotations(), "unsafe"),
        (ToolAnnotations(idempotent_hint=True), "idempotent"),
        (ToolAnnotations(read_only_hint=True, destructive_hint=True), "read"),
        (ToolAnnotations(destructive_hint=False), "unsafe"),
    ],
)
def test_hints_are_effects(hints: ToolAnnotations | None, effect: str) -> None:
    """What is not said is unsafe."""
    assert offered(annotations=hints).effect == effect
