"""Values: frozen, compared by their fields, and known to pydantic."""

from __future__ import annotations

import copy
import pickle

import pytest
from pydantic import BaseModel, ValidationError

from agentrt.value import Value


class Point(Value):
    """Stand for every value."""

    x: int
    y: int = 2


class Line(BaseModel):
    """Hold values, as the answers kept by a store do."""

    ends: tuple[Point, Point]


def test_a_value_is_frozen() -> None:
    """Neither set nor deleted, nor given what it does not declare."""
    point = Point(x=1)
    for name in ("x", "z"):
        with pytest.raises(AttributeError):
            setattr(point, name, 3)
    with pytest.raises(AttributeError):
        del point.x
    assert point == Point(x=1, y=2)


def test_missing_and_unknown_fields_are_refused() -> None:
    """As by any function."""
    for wrong in (Point, lambda: Point(x=1, z=1)):
        with pytest.raises(TypeError):
            wrong()


def test_a_value_is_known_by_its_fields() -> None:
    """It compares, hashes, shows, matches, copies and pickles as one of its own class."""
    point = Point(x=1)
    assert {point: 1}[Point(x=1)] == 1
    assert repr(point) == "Point(x=1, y=2)"
    match point:
        case Point(x=x, y=y):
            assert (x, y) == (1, 2)
    for twin in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert twin == point
        assert type(twin) is Point


def test_pydantic_writes_and_reads_a_value() -> None:
    """As an object of its fields; what does not fit is an error that names the field."""
    line = Line(ends=(Point(x=1), Point(x=3, y=4)))
    assert line.model_dump_json() == '{"ends":[{"x":1,"y":2},{"x":3,"y":4}]}'
    assert Line.model_validate_json(line.model_dump_json()) == line
    with pytest.raises(ValidationError, match=r"Expected `int`, got `str` - at `\$.x`"):
        Line.model_validate({"ends": [{"x": "a"}, {"x": 1}]})
