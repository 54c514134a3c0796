"""Tools and output types become a prompt, a schema, and an answer read back."""

import json
from datetime import date

from pydantic import BaseModel, Field

from agentrt.messages import AssistantMessage, SystemMessage, ToolCall, ToolMessage, ToolSpec, UserMessage
from agentrt.model import ModelRequest
from agentrt.models.constraint import (
    ARRAY_LENGTH,
    STRING_LENGTH,
    instructions_of,
    read_answer,
    render_messages,
    schema_of,
)


class Place(BaseModel):
    name: str
    code: str = Field(pattern=r"^\d{3}$")
    loose: str = Field(pattern=r"\d+")
    day: date | None = None
    kind: str = Field(json_schema_extra={"enum": ["inn", "pass"]})


class Trip(BaseModel):
    places: list[Place]


SEARCH = ToolSpec("search", "Search.", {"type": "object", "properties": {"query": {"type": "string"}}})
VISIT = ToolSpec("visit", "Visit.", Trip.model_json_schema())


def request(*tools: ToolSpec, output: type[BaseModel] | None = None) -> ModelRequest:
    schema = None if output is None else output.model_json_schema()
    return ModelRequest(messages=(UserMessage("hi"),), tools=tools, output_schema=schema)


def test_plain_text_needs_no_schema() -> None:
    assert schema_of(request()) is None


def test_strings_and_lists_get_an_end() -> None:
    """Unbounded ones run to max_tokens."""
    schema = schema_of(request(output=Trip))
    assert schema is not None
    assert schema["properties"]["places"]["maxItems"] == ARRAY_LENGTH
    place = schema["$defs"]["Place"]["properties"]
    assert place["name"]["maxLength"] == STRING_LENGTH
    assert "maxLength" not in place["kind"]


def test_patterns_are_ones_the_server_understands() -> None:
    schema = schema_of(request(output=Trip))
    assert schema is not None
    place = schema["$defs"]["Place"]["properties"]
    assert place["code"]["pattern"] == "^[0-9]{3}$"
    assert "pattern" not in place["loose"]
    assert place["loose"]["maxLength"] == STRING_LENGTH


def test_the_request_keeps_its_own_schema() -> None:
    asked = request(VISIT, output=Trip)
    before = json.dumps([asked.output_schema, VISIT.parameters])
    schema_of(asked)
    assert json.dumps([asked.output_schema, VISIT.parameters]) == before


def test_every_tool_and_the_answer_are_a_form_with_references_that_lead_somewhere() -> None:
    schema = schema_of(request(SEARCH, VISIT, output=Trip))
    assert schema is not None
    tools = [form["properties"].get("tool", {}).get("const") for form in schema["anyOf"]]
    assert tools == ["search", "visit", None]
    assert set(schema["$defs"]) == {"visit.Place", "answer.Place"}
    assert '"#/$defs/visit.Place"' in json.dumps(schema)


def test_a_call_is_read_back() -> None:
    said = read_answer('{"tool": "search", "arguments": {"query": "é"}}', request(SEARCH), "id-0")
    assert said == AssistantMessage("", (ToolCall("id-0", "search", '{"query": "é"}'),))


def test_an_answer_is_unwrapped() -> None:
    assert read_answer('{"answer": "blue"}', request(SEARCH), "") == AssistantMessage("blue")
    assert read_answer('{"answer": {"places": []}}', request(SEARCH, output=Trip), "") == AssistantMessage(
        '{"places": []}'
    )


def test_an_answer_cut_short_stays_text() -> None:
    assert read_answer('{"answer": "bl', request(SEARCH), "") == AssistantMessage('{"answer": "bl')


def test_messages_alternate_whatever_was_said() -> None:
    """Chat templates of many models refuse anything but system, then user and assistant in turn."""
    call = AssistantMessage("", (ToolCall("1", "search", '{"query":"x"}'),))
    said = (UserMessage("a"), SystemMessage("s"), call, ToolMessage("1", "search", "r"), UserMessage("b"))
    rendered = render_messages(ModelRequest(messages=said, tools=(SEARCH,)))
    assert [m["role"] for m in rendered] == ["system", "user", "assistant", "user"]
    assert rendered[0]["content"].startswith("s\n\nYou can use these tools:\n- search: Search.")
    assert rendered[2]["content"] == '{"tool": "search", "arguments": {"query":"x"}}'
    assert rendered[3]["content"] == "search returned: r\n\nb"


def test_what_the_server_enforces_needs_no_other_end() -> None:
    """A date is as long as a date is."""
    schema = schema_of(request(output=Trip))
    assert schema is not None
    day = schema["$defs"]["Place"]["properties"]["day"]["anyOf"][0]
    assert day == {"type": "string", "format": "date"}


def test_a_small_model_is_told_arguments_by_type_and_meaning() -> None:
    """With what they may be; a tool with definitions of its own is told by its whole schema."""
    unit = {"enum": ["km", "mi"], "type": "string", "description": "of length"}
    tool = ToolSpec("measure", "Measure.", {"type": "object", "properties": {"unit": unit, "of": {}}})
    told = instructions_of(request(tool, VISIT))
    assert 'Measure. Arguments: {"unit":"one of km, mi, of length","of":"any"}' in told
    assert '"$defs":{"Place":' in told
