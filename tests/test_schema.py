"""Schemas that strangers wrote: whatever they say, a check ends soon."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agentrt.schema import MOST_CHARACTERS, Schema, SchemaRefused

TREE: dict[str, Any] = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}}},
    "$ref": "#/$defs/node",
}
DOUBLING: dict[str, Any] = {
    "$defs": {
        "node": {
            "anyOf": [
                {"properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["missing"]},
                {"properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["missing"]},
            ]
        }
    },
    "$ref": "#/$defs/node",
}
LAUGHS: dict[str, Any] = {
    "$defs": {
        **{f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 3} for i in range(40)},
        "d40": {"type": "object"},
    },
    "$ref": "#/$defs/d0",
}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"n": 1}
    for _ in range(depth):
        value = {"next": value}
    return value


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"type": "thing"}, "'thing' is not valid under any of the given schemas"),
        ({"properties": []}, r"\$.properties: \[\] is not of type 'object'"),
        ({"properties": {"a": {"$ref": "https://example.org/s"}}}, "refers to https://example.org/s, outside itself"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "outside itself, and nothing is fetched"),
        ({"items": {"$dynamicRef": "http://x/#y"}}, "outside itself"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}]}}}, "leads back to itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}}, "leads back to itself"),
        ({"$ref": "#/$defs/none"}, "'?#/\\$defs/none'? leads nowhere"),
        ({"description": "x" * MOST_CHARACTERS}, "characters, and 64,000 are the most"),
        ({"enum": [nested(100)]}, "more than 64 levels deep"),
        ({"pattern": 3}, "3 is not of type 'string'"),
    ],
)
def test_what_is_no_schema_is_refused(stated: dict[str, Any], told: str) -> None:
    """The reason says where."""
    with pytest.raises(SchemaRefused, match=told):
        Schema(stated).check()


@pytest.mark.parametrize(
    ("stated", "value", "mistakes"),
    [
        (TREE, nested(10), []),
        (TREE, {"next": {"n": "x"}}, ["$.next.n: 'x' is not of type 'integer'"]),
        ({"required": ["a"]}, {}, ["$: 'a' is a required property"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "additionalProperties": False}, {"a": 1}, 1),
        ({"$schema": "urn:nobody-knows", "type": "object"}, {}, []),
        ({"pattern": "^a+$"}, "aab", ["$: 'aab' does not match '^a+$'"]),
        ({"pattern": "^a+$"}, "aaa", []),
        ({"pattern": r"^\p{L}+$"}, "é", []),
        ({"pattern": "(?<!x)y"}, "xy", []),
        ({"patternProperties": {"(a+)+$": {"type": "null"}}, "additionalProperties": False}, {"a" * 50: 1}, []),
        ({"uniqueItems": True}, [1, 1], 1),
    ],
)
def test_values_are_checked(stated: dict[str, Any], value: object, mistakes: list[str] | int) -> None:
    """Patterns that are not linear, and names by pattern, are the server's to check."""
    found = Schema(stated).mistakes(value)
    assert found == mistakes if isinstance(mistakes, list) else len(found) == mistakes


@pytest.mark.parametrize(
    ("stated", "value"),
    [
        (DOUBLING, nested(200)),
        (LAUGHS, {}),
        ({"pattern": "(a+)+$"}, "a" * 5_000 + "!"),
        ({"pattern": "(a{900}){900}"}, "a"),
        ({"uniqueItems": True}, [{"a": i} for i in range(20_000)]),
        ({"items": {"enum": [{"a": i} for i in range(2_000)]}}, [{"a": -1}] * 20_000),
        ({"multipleOf": 0.1}, 10**400),
        (TREE, nested(5_000)),
    ],
    ids=["doubling", "laughs", "pattern", "counted", "unique", "enum", "overflow", "deep"],
)
def test_no_schema_and_no_value_hold_up_the_process(stated: dict[str, Any], value: object) -> None:
    """What would take too long does not fit."""
    schema = Schema(stated)
    began = time.thread_time()
    assert len(schema.mistakes(value)) <= 5
    assert time.thread_time() - began < 4


def test_what_is_not_checked_is_told() -> None:
    """Patterns that no linear engine reads, and names of properties by pattern, wherever they are."""
    stated = {"items": {"pattern": "("}, "properties": {"a": {"patternProperties": {"^b": {"pattern": "^c$"}}}}}
    assert sorted(Schema(stated).unchecked()) == ["(", "^b"]
    assert Schema({"pattern": "^(a+)+$", "properties": {"pattern": {"type": "string"}}}).unchecked() == []
