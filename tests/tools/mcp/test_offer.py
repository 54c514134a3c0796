"""What servers offer, before it is a tool: names and descriptions that nobody could use."""

from __future__ import annotations

from itertools import permutations

import pytest
from mcp_types import Tool, ToolAnnotations

from agentrt import DefinitionError
from agentrt_tools.mcp.names import own_names
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
    ("stated", "names"),
    [
        (("a b", "a_b"), {"a b": "it.a_b_2", "a_b": "it.a_b"}),
        (("a/b", "a b", "a.b"), {"a b": "it.a_b", "a.b": "it.a_b_2", "a/b": "it.a_b_3"}),
        (("a b", "a_b", "a_b_2"), {"a b": "it.a_b_3", "a_b": "it.a_b", "a_b_2": "it.a_b_2"}),
        (("more", "resources", "x"), {"more": "it.more", "resources": "it.resources", "x": "it.x"}),
        (("n" * 61, "n" * 61 + "/"), {"n" * 61: "it." + "n" * 61, "n" * 61 + "/": "it." + "n" * 59 + "_2"}),
    ],
)
def test_names_that_clash_are_told_apart(stated: tuple[str, ...], names: dict[str, str]) -> None:
    """In the same way whatever the order in which a server lists them; the model is told which is which."""
    for order in permutations(stated):
        found = offers("server", "it", [Tool(name=n, input_schema={}, description="Do it.") for n in order], None, ())
        assert {o.stated_name: o.name for o in found} == names
        assert [o.stated_name for o in found] == list(order)
        for offer in found:
            is_numbered = offer.name.endswith(("_2", "_3")) and offer.stated_name != "a_b_2"
            assert offer.description == (f"{offer.stated_name!r}: Do it." if is_numbered else "Do it.")


def test_nodes_that_are_made_besides_give_way() -> None:
    """To what the server has itself."""
    assert own_names("it", ["it.echo"])["more"] == "it.more"
    own = own_names("it", ["it.more", "it.more_2", "it.prompts"])
    assert (own["more"], own["prompts"], own["resources"]) == ("it.more_3", "it.prompts_2", "it.resources")


def test_a_tool_that_is_listed_twice_is_refused() -> None:
    """Calls could not say which they mean."""
    with pytest.raises(DefinitionError, match=r"tool 'a': it is listed twice, .* \(exclude="):
        offers("server", "it", [Tool(name="a", input_schema={})] * 2, None, ())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "///"}, "MCP server server, tool '///': its name has no letter or digit"),
        ({"name": "n" * 80}, "is longer than 64; give the server a shorter name="),
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
