"""Signatures: what nodes take and return, written as Python for models that call them in code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

from agentrt import Node

_DEEPEST: Final = 5
_NAMES: Final = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "array": "list",
    "object": "dict",
}


def signature(name: str, node: Node[Any, Any]) -> str:
    """Return how a node is called under a name, like `price(hotel: str, nights: int = 1) -> int`.

    Objects are JSON's: dicts, whose keys are told with their types, those that may be missing with NotRequired.
    """
    returned = _returned(node.output)
    return f"{name}({parameters(node)}){f' -> {returned}' if returned else ''}"


def parameters(node: Node[Any, Any]) -> str:
    """Return what a node takes, each with its type, and its default where it has one."""
    schema = node.arguments.schema
    needed = schema.get("required", ())
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    types = _Types(schema, whole=False)
    return ", ".join(
        f"{name}: {types.write(about)}" + ("" if name in needed else f" = {about.get('default')!r}")
        for name, about in properties.items()
    )


def notes(node: Node[Any, Any]) -> Mapping[str, str]:
    """Return what is said of a node's parameters."""
    properties: Mapping[str, Mapping[str, Any]] = node.arguments.schema.get("properties", {})
    return {name: str(about["description"]) for name, about in properties.items() if about.get("description")}


def _returned(output: Any) -> str:
    """Return the type of an output as code gets it; nothing where that is not known."""
    if output is object or output is Any:
        return ""
    try:
        schema = TypeAdapter(output).json_schema(mode="serialization")
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError):
        return ""
    written = _Types(schema, whole=True).write(schema)
    return "" if written == "object" else written


class _Types:
    """Write the types of one schema. whole: whether no key of an object is missing, as in what a node returns."""

    def __init__(self, schema: Mapping[str, Any], *, whole: bool) -> None:
        self._defs = schema.get("$defs", {})
        self._whole = whole

    def write(self, schema: Any, depth: int = 0) -> str:
        """Return a schema as a type; what is not known, or nested too deeply, as no more than its kind."""
        match schema:
            case {"$ref": str(reference)}:
                written = self.write(self._defs.get(reference.rpartition("/")[2]), depth + 1)
            case {"enum": list(values)}:
                written = f"Literal[{', '.join(map(repr, values))}]"
            case {"const": value}:
                written = f"Literal[{value!r}]"
            case {"anyOf": list(choices)} | {"oneOf": list(choices)}:
                written = " | ".join(dict.fromkeys(self.write(one, depth) for one in choices))
            case {"type": list(kinds)}:
                written = " | ".join(self.write({**schema, "type": kind}, depth) for kind in kinds)
            case {"type": "array", "items": items} if depth < _DEEPEST:
                written = f"list[{self.write(items, depth + 1)}]"
            case {"type": "object", "properties": dict(properties)} if depth < _DEEPEST and properties:
                written = self._keys(properties, schema.get("required", ()), depth + 1)
            case {"type": "object", "additionalProperties": dict(others)} if depth < _DEEPEST:
                written = f"dict[str, {self.write(others, depth + 1)}]"
            case {"type": str(kind)}:
                written = _NAMES.get(kind, "object")
            case _:
                written = "object"
        return written

    def _keys(self, properties: Mapping[str, Any], needed: Collection[str], depth: int) -> str:
        types = {name: self.write(about, depth) for name, about in properties.items()}
        keys = (f"{n!r}: {t if self._whole or n in needed else f'NotRequired[{t}]'}" for n, t in types.items())
        return f"{{{', '.join(keys)}}}"
