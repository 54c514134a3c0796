"""Constraints: tool calls and structured output for a model that was not trained for them.

The tools are described in the prompt, and the server is given a JSON schema that the answer cannot help but fit: one
form for each tool, and one for the answer itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from agentrt.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, ToolSpec
from agentrt.model import ModelRequest

Schema: TypeAlias = dict[str, Any]

STRING_LENGTH: Final = 400
"""Characters of a string with no bound of its own: unbounded ones run to `max_tokens` more often than not."""
ARRAY_LENGTH: Final = 32
_ENFORCED_FORMATS: Final = frozenset({"date", "time", "date-time", "uuid"})
_BY_NAME: Final = ("properties", "$defs", "definitions")


def schema_of(request: ModelRequest) -> Schema | None:
    """Return the schema the whole answer must fit, or None if any text will do."""
    output = request.output_schema
    if not request.tools:
        return None if output is None else _bound(output)
    definitions: Schema = {}
    answer = {"type": "string"} if output is None else _hoisted(output, "answer", definitions)
    forms = [
        _form({"tool": {"const": t.name}, "arguments": _hoisted(t.parameters, t.name, definitions)})
        for t in request.tools
    ]
    forms.append(_form({"answer": answer}))
    return _bound({"anyOf": forms, "$defs": definitions})


def instructions_of(request: ModelRequest) -> str:
    """Return what the model must be told besides its messages; empty if nothing."""
    if not request.tools:
        output = request.output_schema
        return "" if output is None else f"Reply with a JSON object that fits this schema: {_compact(output)}"
    lines = ["You can use these tools:"]
    lines += [f"- {tool.name}: {tool.description} Arguments: {_signature(tool)}" for tool in request.tools]
    lines += [
        'To use a tool, reply {"tool": NAME, "arguments": {...}}.',
        f'To answer, reply {{"answer": {_answer(request)}}}.',
    ]
    return "\n".join(lines)


def read_answer(text: str, request: ModelRequest, call_id: str) -> AssistantMessage:
    """Return what a constrained answer says; one cut off by `max_tokens` stays text."""
    if not request.tools:
        return AssistantMessage(text)
    try:
        said = json.loads(text)
    except json.JSONDecodeError:
        return AssistantMessage(text)
    if "tool" in said:
        call = ToolCall(call_id, said["tool"], json.dumps(said["arguments"], ensure_ascii=False))
        return AssistantMessage("", (call,))
    answer = said["answer"]
    return AssistantMessage(answer if request.output_schema is None else json.dumps(answer, ensure_ascii=False))


def render_messages(request: ModelRequest) -> list[dict[str, str]]:
    """Return the conversation in the roles every chat template knows: system, user and assistant, in turn.

    System messages come first; a tool's answer is told by the user; neighbours of one role become one message.
    """
    system = [m.text for m in request.messages if isinstance(m, SystemMessage)]
    system = [text for text in (*system, instructions_of(request)) if text]
    rendered = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    for role, text in (_told(m) for m in request.messages if not isinstance(m, SystemMessage)):
        if rendered and rendered[-1]["role"] == role:
            rendered[-1]["content"] += f"\n\n{text}"
        else:
            rendered.append({"role": role, "content": text})
    return rendered


def _told(message: Message) -> tuple[str, str]:
    if isinstance(message, AssistantMessage):
        calls = [f'{{"tool": {json.dumps(c.name)}, "arguments": {c.arguments}}}' for c in message.tool_calls]
        return "assistant", "\n".join([*filter(None, [message.text]), *calls])
    if isinstance(message, ToolMessage):
        return "user", f"{message.name} {'failed' if message.failed else 'returned'}: {message.text}"
    return message.role, message.text


def _signature(tool: ToolSpec) -> str:
    """Return a tool's arguments as a small model reads them best: each by name, with its type and what it means."""
    properties: Mapping[str, Schema] = tool.parameters.get("properties", {})
    if "$defs" in tool.parameters:
        return _compact(tool.parameters)
    return _compact({name: _type_of(schema) for name, schema in properties.items()})


def _type_of(schema: Schema) -> str:
    kind = schema.get("type") or "|".join(s.get("type", "any") for s in schema.get("anyOf", [])) or "any"
    if "enum" in schema:
        kind = "one of " + ", ".join(map(str, schema["enum"]))
    return f"{kind}, {schema['description']}" if "description" in schema else str(kind)


def _answer(request: ModelRequest) -> str:
    return "TEXT" if request.output_schema is None else f"OBJECT}}, its schema {_compact(request.output_schema)}"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _form(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _hoisted(schema: Schema, owner: str, definitions: Schema) -> Schema:
    """Move a schema's definitions to the top of the whole one, where references are looked up, under its own names."""
    own: Schema = schema.get("$defs", {})
    definitions |= {f"{owner}.{name}": _renamed(inner, owner) for name, inner in own.items()}
    moved: Schema = _renamed({k: v for k, v in schema.items() if k != "$defs"}, owner)
    return moved


def _renamed(node: Any, owner: str) -> Any:
    if isinstance(node, list):
        return [_renamed(item, owner) for item in node]
    if not isinstance(node, dict):
        return node
    renamed = {key: _renamed(value, owner) for key, value in node.items()}
    if isinstance(reference := node.get("$ref"), str):
        renamed["$ref"] = reference.replace("#/$defs/", f"#/$defs/{owner}.", 1)
    return renamed


def _bound(schema: Schema) -> Schema:
    """Return the schema with an end to every string and list, in the regular expressions the server understands."""
    bounded: Schema = _bounded(schema)
    return bounded


def _bounded(node: Any) -> Any:
    if isinstance(node, list):
        return [_bounded(item) for item in node]
    if not isinstance(node, dict):
        return node
    bounded: Schema = {
        key: {name: _bounded(s) for name, s in value.items()} if key in _BY_NAME and isinstance(value, dict)
        else value if key in ("enum", "const", "default", "examples")
        else _bounded(value)
        for key, value in node.items()
    }  # fmt: skip
    if node.get("type") == "string" and "enum" not in node and "const" not in node:
        _bound_string(bounded)
    if node.get("type") == "array":
        bounded.setdefault("maxItems", max(ARRAY_LENGTH, bounded.get("minItems", 0)))
    return bounded


def _bound_string(schema: Schema) -> None:
    pattern = schema.pop("pattern", None)
    if pattern is not None and pattern.startswith("^") and pattern.endswith("$"):
        schema["pattern"] = pattern.replace(r"\d", "[0-9]")  # the server drops \d without a word
    elif schema.get("format") not in _ENFORCED_FORMATS:  # it refuses unanchored patterns; validation comes afterwards
        schema.setdefault("maxLength", max(STRING_LENGTH, schema.get("minLength", 0)))
