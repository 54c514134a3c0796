"""The form of an answer, in words."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

import pytest
from pydantic import BaseModel, TypeAdapter

from agentrt.cli.form import form


class Leaf(BaseModel):
    """Hold others of its kind."""

    name: str
    below: list[Leaf] = []


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (str, "text"),
        (bool, "yes or no"),
        (int | None, "integer or null"),
        (date, "date, like 2026-11-27"),
        (Literal["a", "b"], '"a" or "b"'),
        (Literal[3], "3"),
        (list[float], "list of number"),
        (dict[str, int], "object"),
        (Any, "anything"),
        (Leaf, "{name: text, below?: list of anything}"),
    ],
)
def test_types_are_told_in_words(output: Any, said: str) -> None:
    """Those that hold themselves down to some depth."""
    assert form(TypeAdapter(output).json_schema()) == said


def test_what_a_model_states_is_told_too() -> None:
    """Any JSON schema."""
    assert form({"type": ["string", "null"]}) == "text or null"
    assert form({"type": "number", "exclusiveMinimum": 0}) == "number above 0"
    assert form({"type": "string", "format": "email"}) == "email"
    assert form({"type": "array", "items": True}) == "list of anything"
    assert form({}) == "anything"
