"""The form of an answer: a JSON schema in the words of one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentrt.cli.console import as_json

_DEEPEST: Final = 3
_WORDS: Final = {"string": "text", "boolean": "yes or no", "array": "list"}
_FORMATS: Final = {"date": "date, like 2026-11-27", "date-time": "date and time, like 2026-11-27T09:34:00Z"}


def form(schema: Mapping[str, Any]) -> str:
    """Say what fits a schema: types, fields, choices."""
    return _form(schema, schema.get("$defs", {}), 0)


def _form(schema: object, named: Mapping[str, Any], depth: int) -> str:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return "anything"
    if isinstance(name := schema.get("$ref"), str):
        return _form(named.get(name.rpartition("/")[2]), named, depth + 1)
    if isinstance(choices := schema.get("enum", [schema["const"]] if "const" in schema else None), Sequence):
        return " or ".join(map(as_json, choices))
    if isinstance(others := schema.get("anyOf", schema.get("oneOf")), Sequence):
        return " or ".join(dict.fromkeys(_form(other, named, depth) for other in others))
    types = schema.get("type", "anything")
    if not isinstance(types, str):
        return " or ".join(_form({**schema, "type": one}, named, depth) for one in types)
    return _of_type(types, schema, named, depth) + _between(schema)


def _of_type(type_: str, schema: Mapping[str, Any], named: Mapping[str, Any], depth: int) -> str:
    if type_ == "object" and (fields := schema.get("properties")):
        required = schema.get("required", ())
        told = (f"{n}{'' if n in required else '?'}: {_form(s, named, depth + 1)}" for n, s in fields.items())
        return f"{{{', '.join(told)}}}"
    if type_ == "array" and "items" in schema:
        return f"list of {_form(schema['items'], named, depth + 1)}"
    if type_ == "string" and isinstance(format_ := schema.get("format"), str):
        return _FORMATS.get(format_, format_)
    return _WORDS.get(type_, type_)


def _between(schema: Mapping[str, Any]) -> str:
    """Say between which numbers a value is to be."""
    bounds = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"))
    told = [f"{words} {schema[name]}" for name, words in (*bounds, ("exclusiveMaximum", "below")) if name in schema]
    return f" {' and '.join(told)}" if told else ""
