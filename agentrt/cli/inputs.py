"""A run's input, read from what was typed: the INPUT and an option a field."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json

from agentrt.cli.exits import UsageError
from agentrt.edge import START
from agentrt.function import FunctionNode
from agentrt.graph import Graph
from agentrt.node import Node
from agentrt.text import shortened

_UNTYPED: Final = (object, Any)
_MISSING: Final = object()


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """Describe one field of an input; `default` says it as text, None where a value must be given."""

    name: str
    annotation: Any
    default: str | None = None
    description: str = ""

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def type_name(self) -> str:
        return type_name(self.annotation)


def type_name(annotation: Any) -> str:
    """Return a type as a person would say it."""
    if annotation is str or annotation in _UNTYPED:
        return "text"
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", name)  # without modules


def entry(node: Node[Any, Any]) -> Node[Any, Any]:
    """Return the node that says what the input is: a graph that declares no type takes what its first node takes."""
    while isinstance(node, Graph) and node.input in _UNTYPED:
        firsts = [(t, e.each) for e in node.edges if e.source is START for t in e.targets]
        if len(firsts) != 1 or firsts[0][1]:
            return node
        node = firsts[0][0]
    return node


def fields(node: Node[Any, Any]) -> list[Field]:
    """Return the fields of a node's input, none if it is a single value."""
    node = entry(node)
    if isinstance(node, FunctionNode) and len(node.parameters) != 1:
        return [Field(p.name, p.annotation, _default(p.default, p.empty)) for p in node.parameters]
    declared = node.input
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        return [_model_field(name, info) for name, info in declared.model_fields.items()]
    if dataclasses.is_dataclass(declared):
        hints = get_type_hints(declared, include_extras=True)
        return [Field(f.name, hints[f.name], _dataclass_default(f)) for f in dataclasses.fields(declared) if f.init]
    required: frozenset[str] | None = getattr(declared, "__required_keys__", None)
    if required is not None:  # a TypedDict, of `typing` or of `typing_extensions`
        hints = get_type_hints(declared)
        return [Field(name, hint, None if name in required else "none") for name, hint in hints.items()]
    return []


def _model_field(name: str, info: Any) -> Field:
    annotation = info.rebuild_annotation()  # with its constraints
    default = None if info.is_required() else _default(info.get_default(call_default_factory=False), _MISSING)
    alias = info.validation_alias if isinstance(info.validation_alias, str) else name
    return Field(alias, annotation, default, info.description or "")


def _dataclass_default(field: dataclasses.Field[Any]) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        return "made anew"
    return _default(field.default, dataclasses.MISSING)


def _default(value: object, missing: object) -> str | None:
    if value is missing:
        return None
    return "none" if value is None else str(value)


def read_input(node: Node[Any, Any], arguments: Sequence[str], target: str) -> Any:
    """Return a node's input from the words after its FILE; raises `UsageError`, one line a mistake."""
    known = fields(node)
    text, options = _split(arguments, known, target)
    if text == "-":
        text = sys.stdin.read().rstrip("\n")
    declared = entry(node)
    if isinstance(declared, FunctionNode) and len(declared.parameters) != 1:
        return _read_parameters(declared, known, text, options, target)
    if known:
        return _read_fields(declared.input, known, text, options, target)
    if text is None:
        raise UsageError(f'{target} needs an input ({type_name(declared.input)}): agentrt run {target} "INPUT"')
    return _read_value(declared.input, text)


def _split(arguments: Sequence[str], known: Sequence[Field], target: str) -> tuple[str | None, dict[str, list[str]]]:
    """Tell the INPUT from the fields' options."""
    by_option = {f.option: f for f in known} | {f"--{f.name}": f for f in known}
    texts: list[str] = []
    options: dict[str, list[str]] = {}
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if (field := by_option.get(option)) is not None:
            if not equals:
                value = "true" if field.annotation is bool else next(words, "")
            options.setdefault(field.name, []).append(value)
        elif word.startswith("--") and " " not in word:
            raise UsageError(f"no option {option}{_offer(known)}")
        else:
            texts.append(word)
    if len(texts) > 1:
        raise UsageError(f'one INPUT, not {len(texts)}: put it in quotes, agentrt run {target} "{" ".join(texts)}"')
    return (texts[0] if texts else None), options


def _offer(known: Sequence[Field]) -> str:
    if not known:
        return "; see agentrt run --help (an INPUT that begins with -- goes after a bare --)"
    return f"; the input's fields are {', '.join(f.option for f in known)}, and agentrt run --help lists the rest"


def _read_parameters(
    node: FunctionNode[Any], known: Sequence[Field], text: str | None, options: dict[str, list[str]], target: str
) -> Any:
    if not known:
        if text is not None:
            raise UsageError(f"{node.name} takes no input: agentrt run {target}")
        return None
    given = _given(known, text, options)
    _require(known, given, target)
    return {f.name: _validated(TypeAdapter(f.annotation), given[f.name], f.name) for f in known if f.name in given}


def _read_fields(
    declared: Any, known: Sequence[Field], text: str | None, options: dict[str, list[str]], target: str
) -> Any:
    given = _given(known, text, options)
    _require(known, given, target)
    return _validated(_adapter(declared), given)


def _given(known: Sequence[Field], text: str | None, options: dict[str, list[str]]) -> dict[str, Any]:
    """Collect the fields: an INPUT that begins with { is all of them as JSON, any other is the first field."""
    given: dict[str, Any] = {}
    if text is not None and text.lstrip().startswith("{"):
        try:
            given = from_json(text)
        except ValueError as error:
            raise UsageError(f"INPUT begins with {{ but is not JSON: {error}") from error
    elif text is not None:
        given[known[0].name] = _loosely(known[0].annotation, text)
    by_name = {f.name: f for f in known}
    for name, values in options.items():
        annotation = by_name[name].annotation
        given[name] = _loosely(annotation, values[0]) if len(values) == 1 else list(values)
    return given


def _require(known: Sequence[Field], given: Mapping[str, Any], target: str) -> None:
    missing = [f for f in known if f.default is None and f.name not in given]
    if missing:
        first = ' "INPUT"' if missing[0] is known[0] else ""
        rest = "".join(f" {f.option} {f.type_name.upper()}" for f in missing if f is not known[0])
        raise UsageError(f"{target} needs {', '.join(f.name for f in missing)}: agentrt run {target}{first}{rest}")


def _read_value(declared: Any, text: str) -> Any:
    if declared in _UNTYPED and text.lstrip()[:1] not in ("{", "["):
        return text
    return _validated(_adapter(declared), _loosely(declared, text))


def _loosely(annotation: Any, text: str) -> Any:
    """Return the text as the JSON it is where the type takes that, else as text."""
    if annotation is str:
        return text
    try:
        value = from_json(text)
    except ValueError:
        return text
    adapter = _adapter(annotation)
    return value if _fits(adapter, value) or not _fits(adapter, text) else text


def _fits(adapter: TypeAdapter[Any], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except PydanticUserError as error:
        reason = error.message.splitlines()[0]
        raise UsageError(
            f"input of type {type_name(annotation)} cannot be read from a command line: {reason}"
        ) from error


def _validated(adapter: TypeAdapter[Any], value: object, label: str = "") -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        lines = [_mistake(label, e["loc"], e["msg"], e["input"]) for e in error.errors()]
        raise UsageError("the input does not fit: " + "\n       ".join(lines)) from error


def _mistake(label: str, place: tuple[int | str, ...], message: str, value: object) -> str:
    name = ".".join(str(p) for p in (*([label] if label else []), *place)) or "INPUT"
    return f"{name}: {message}, not {shortened(repr(value), 60)}"
