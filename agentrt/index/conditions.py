"""Conditions: what metadata may be, and what may be asked of it, alike wherever an index is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final

from agentrt.errors import DefinitionError
from agentrt.passage import Fact
from agentrt.retrieval import Between, Condition, Where

_LARGEST: Final = 2**63 - 1


def storable(text: str) -> str:
    """Replace what databases cannot hold in text: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def stored_facts(source: str, metadata: Mapping[str, Fact]) -> dict[str, Fact]:
    """Return metadata as databases hold it; numbers that they cannot hold become text.

    Raises `DefinitionError` for what is neither a text nor a number nor true or false.
    """
    facts: dict[str, Fact] = {}
    for name, value in metadata.items():
        if not isinstance(value, str | int | float):
            raise DefinitionError(f"{source}: metadata {name!r}: {value!r:.100} is no text, number, true or false")
        facts[storable(name)] = value if _is_number(value) else storable(str(value))
    return facts


def _is_number(value: object) -> bool:
    """Say whether databases hold a value as a number: finite, and of 64 bits where it is whole."""
    return isinstance(value, int | float) and isfinite(value) and (isinstance(value, float) or abs(value) <= _LARGEST)


def checked_where(where: Where) -> Where:
    """Return conditions as databases can look them up; raises `DefinitionError` for what is none."""
    if not isinstance(where, Mapping):
        raise DefinitionError(f"where={where!r:.100}: write where={{'year': 2024}}")
    return {storable(str(name)): _checked(name, condition) for name, condition in where.items()}


def _checked(name: str, condition: Condition) -> Condition:
    if isinstance(condition, Between):
        least, most = (None if b is None else _fact(name, b) for b in (condition.least, condition.most))
        return Between(least=least, most=most)
    if isinstance(condition, Sequence) and not isinstance(condition, str):
        return [_fact(name, one) for one in condition]
    return _fact(name, condition)


def _fact(name: str, value: object) -> Fact:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, int | float) and _is_number(value):
        return value
    raise DefinitionError(
        f"where: {name!r} cannot be {value!r:.100}: a text, a number, true, false, a list, or Between"
    )
