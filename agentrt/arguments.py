"""Arguments: how the JSON that a model writes becomes a node's input."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError

from agentrt.errors import DefinitionError, InvalidArguments


class Arguments:
    """Turn JSON arguments into a node's input: the one rule by which any node is a tool.

    A function takes its own parameters. Any other node whose input type is an object (a pydantic model, a dataclass,
    a typed dict) takes that object's fields, and every other input is a single field, `input` unless the node names it.
    """

    def __init__(self, schema: dict[str, Any], read: Callable[[str | Mapping[str, Any]], Any]) -> None:
        self.schema = schema
        self._read = read

    def parse(self, arguments: str | Mapping[str, Any]) -> Any:
        """Return the input; raises `InvalidArguments` with one line a mistake, for a model to act on."""
        try:
            return self._read(arguments)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()]
            raise InvalidArguments("; ".join(lines)) from error

    @classmethod
    def of_type(cls, name: str, annotation: Any) -> Arguments:
        annotation = str if annotation in (object, Any, inspect.Parameter.empty) else annotation
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            schema = adapter.json_schema()
        except PydanticSchemaGenerationError as error:
            raise DefinitionError(f"{name!r} cannot be a tool: no JSON schema for its input {annotation!r}") from error
        if schema.get("type") == "object":
            return cls(schema, partial(_read_json, adapter.validate_json, adapter.validate_python))
        return cls.of_field(name, "input", annotation)

    @classmethod
    def of_field(cls, name: str, field: str, annotation: Any, description: str | None = None) -> Arguments:
        """Take the input as a single field."""
        from pydantic import Field

        fields: dict[str, Any] = {field: (annotation, Field(description=description))}
        model = create_model(name, **fields)
        return cls(_schema(model), lambda data: getattr(_read_model(model, data), field))

    @classmethod
    def of_function(cls, name: str, parameters: Sequence[inspect.Parameter], notes: Mapping[str, str]) -> Arguments:
        from pydantic import Field

        fields: dict[str, Any] = {}
        for p in parameters:
            if p.annotation is inspect.Parameter.empty:
                raise DefinitionError(
                    f"parameter {p.name!r} of tool {name!r} has no type: write `def {name}({p.name}: str)`, "
                    "since the model is told the types"
                )
            default = ... if p.default is inspect.Parameter.empty else p.default
            fields[p.name] = (p.annotation, Field(default, description=notes.get(p.name)))
        try:
            model = create_model(name, __config__={"extra": "forbid", "arbitrary_types_allowed": False}, **fields)
            schema = _schema(model)
        except PydanticSchemaGenerationError as error:
            raise DefinitionError(f"tool {name!r}: {error.message}") from error
        names = [p.name for p in parameters]

        def read(data: str | Mapping[str, Any]) -> dict[str, Any]:
            parsed = _read_model(model, data)
            return {n: getattr(parsed, n) for n in names}

        return cls(schema, read)


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("title", None)
    return schema


def _read_json(from_json: Callable[..., Any], from_python: Callable[..., Any], data: str | Mapping[str, Any]) -> Any:
    return from_json(data or "{}") if isinstance(data, str) else from_python(data)


def _read_model(model: type[BaseModel], data: str | Mapping[str, Any]) -> BaseModel:
    parsed: BaseModel = _read_json(model.model_validate_json, model.model_validate, data)
    return parsed
