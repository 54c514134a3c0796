"""JSON schemas: checked themselves where strangers wrote them, and values checked against them in bounded time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agentrt.text import shortened

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MOST_CHARACTERS: Final = 64_000
"""A schema may be so long, written as JSON."""
_MOST_LEVELS: Final = 64
_MOST_WORK: Final = 500_000
"""About half a second, whatever the schema."""
_KEYWORD: Final = 10
_REFERENCE: Final = 60
_MOST_UNIQUE: Final = 1_000
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_PATTERNED: Final = ("patternProperties", "additionalProperties", "unevaluatedProperties")
_DRAFTS: Final = {
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
}
_Keyword: TypeAlias = Callable[[Any, Any, Any, Any], Any]
_work: ContextVar[int] = ContextVar("work")


class SchemaRefused(ValueError):
    """Say what is wrong with a schema."""


class _TooMuchWork(Exception):
    """Say that a value takes too long to be checked."""


class Schema:
    """Check values against a JSON schema; nothing is fetched, and no regular expression can hold up the process.

    Patterns that no linear engine reads, and names of properties by pattern, are not checked, which `unchecked` tells.
    formats: whether formats are, such as that of dates.
    """

    def __init__(self, stated: Mapping[str, Any], *, formats: bool = False) -> None:
        self.stated = stated
        self._formats = formats
        self._draft = _draft(stated)

    def check(self) -> None:
        """Check the schema itself.

        Raises `SchemaRefused` for what is no schema, is too long or too deep, refers to anything outside itself, or
        refers to itself in a loop that no value would end.
        """
        from jsonschema import SchemaError

        if _depth(self.stated, _MOST_LEVELS) > _MOST_LEVELS:
            raise SchemaRefused(f"it is more than {_MOST_LEVELS} levels deep")
        if (length := len(json.dumps(self.stated))) > MOST_CHARACTERS:
            raise SchemaRefused(f"it has {length:,} characters, and {MOST_CHARACTERS:,} are the most")
        try:
            self._draft.check_schema(self.stated, format_checker=None)  # JavaScript's expressions are not Python's
        except SchemaError as error:
            raise SchemaRefused(f"{error.json_path}: {_short(error.message)}") from error
        _References(self.stated).check()

    def unchecked(self) -> list[str]:
        """Return the regular expressions that no value is checked against."""
        found = []
        for part in parts_of(self.stated):
            pattern, names = part.get("pattern"), part.get("patternProperties")
            found += [pattern] if isinstance(pattern, str) and _linear(pattern) is None else []
            found += list(names) if isinstance(names, Mapping) else []
        return found

    def mistakes(self, value: Any) -> list[str]:
        """Return what is wrong with a value, one line a mistake, at most five."""
        token = _work.set(_MOST_WORK)
        try:
            return [f"{e.json_path}: {_short(e.message)}" for e in islice(self._validator.iter_errors(value), 5)]
        except (_TooMuchWork, RecursionError):
            return ["$: takes too long to check"]
        except OverflowError as error:
            return [f"$: {error}"]
        finally:
            _work.reset(token)

    @cached_property
    def _validator(self) -> Validator:
        from referencing import Registry

        checker = self._draft.FORMAT_CHECKER if self._formats else None
        stated = _without_patterns(self.stated)
        validator: Validator = _bounded(self._draft)(stated, registry=Registry(), format_checker=checker)
        return validator


class _References:
    """Follow a schema's references within it."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._done: set[int] = set()
        self._open: set[int] = set()

    def check(self) -> None:
        """Raise `SchemaRefused` for a reference that leads outside, nowhere, or back to itself."""
        for part in parts_of(self._root):
            for keyword in _REFERENCES:
                if isinstance(target := part.get(keyword), str) and not target.startswith("#"):
                    raise SchemaRefused(f"it refers to {_short(target)}, outside itself, and nothing is fetched")
            self._visit(part)

    def _visit(self, schema: Any) -> None:
        if not isinstance(schema, Mapping) or id(schema) in self._done:
            return
        if id(schema) in self._open:
            raise SchemaRefused("its $ref leads back to itself")
        self._open.add(id(schema))
        for inner in self._in_place(schema):
            self._visit(inner)
        self._open.discard(id(schema))
        self._done.add(id(schema))

    def _in_place(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the schemas that a value is checked against together with this one."""
        if isinstance(target := schema.get("$ref"), str):
            yield self._target(target)
        for keyword in _IN_PLACE:
            inner = schema.get(keyword)
            yield from inner if isinstance(inner, list) else [inner]

    def _target(self, reference: str) -> Any:
        from urllib.parse import unquote

        if reference not in ("#", "") and not reference.startswith("#/"):
            return None  # an anchor
        found: Any = self._root
        for step in unquote(reference).lstrip("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise SchemaRefused(f"its $ref {_short(reference)} leads nowhere") from error
        return found


def parts_of(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a JSON value, those around others first."""
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from parts_of(part)


def _depth(value: object, most: int) -> int:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    if most < 0:
        return 0
    return 1 + max((_depth(part, most - 1) for part in inner), default=0)


def _without_patterns(value: Any) -> Any:
    """Leave out what Python's regular expressions would have to check: one of a stranger may never end."""
    if isinstance(value, list):
        return [_without_patterns(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    dropped = _PATTERNED if "patternProperties" in value else ()
    return {name: _without_patterns(part) for name, part in value.items() if name not in dropped}


def _draft(stated: Mapping[str, Any]) -> Any:
    import jsonschema

    stated_draft = str(stated.get("$schema", "")).rstrip("#")
    return getattr(jsonschema, _DRAFTS.get(stated_draft, "Draft202012Validator"))


@cache
def _bounded(draft: Any) -> Any:
    """Return a validator of a draft that counts its work and raises `_TooMuchWork`."""
    from jsonschema import validators

    own: Mapping[str, _Keyword] = {"pattern": _pattern, "uniqueItems": _unique(draft.VALIDATORS["uniqueItems"])}
    checks: Mapping[str, _Keyword] = {**draft.VALIDATORS, **own}
    keywords = {
        name: _counted(check, _REFERENCE if name in _REFERENCES else _KEYWORD) for name, check in checks.items()
    }
    return validators.extend(draft, keywords)  # type: ignore[no-untyped-call]


def _counted(check: _Keyword, cost: int) -> _Keyword:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        left = _work.get() - cost - _size(value) - _size(instance) // _KEYWORD
        if left < 0:
            raise _TooMuchWork
        _work.set(left)
        return check(validator, value, instance, schema)

    return counted


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | list | Mapping) else 0


def _unique(check: _Keyword) -> _Keyword:
    def unique(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        return () if _size(instance) > _MOST_UNIQUE else check(validator, value, instance, schema)

    return unique


def _pattern(_validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not _matches(value, instance):
        yield ValidationError(f"{_short(instance)!r} does not match {_short(value)!r}")


def _matches(pattern: str, text: str) -> bool:
    from pydantic_core import ValidationError

    validator = _linear(pattern)
    if validator is None:
        return True
    try:
        validator.validate_python(text)
    except ValidationError:
        return False
    return True


@lru_cache(maxsize=256)
def _linear(pattern: str) -> Any:
    """Return what checks a pattern in linear time, or None for one that cannot be."""
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        return None


def _short(text: object) -> str:
    return shortened(str(text), 200)
