"""Values: frozen dataclasses, however they are built."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from agentrt.frozen import frozen


@frozen
class Point:
    """Stand for every value."""

    x: int
    y: int = 2


def test_a_value_is_frozen() -> None:
    """Neither set nor deleted, nor given what it does not declare."""
    point = Point(x=1)
    for name in ("x", "z"):
        with pytest.raises((FrozenInstanceError, TypeError)):
            setattr(point, name, 3)
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert point == Point(x=1, y=2)


def test_fields_are_given_by_keyword() -> None:
    """Missing, unknown and positional ones are refused, as by any function."""
    for wrong in (Point, lambda: Point(x=1, z=1), lambda: Point(1)):
        with pytest.raises(TypeError, match="__init__"):
            wrong()


def test_a_value_is_a_dataclass_like_any_other() -> None:
    """It compares, hashes, shows, matches, copies and pickles as one of its own class."""
    point = Point(x=1)
    assert type(point) is Point
    assert {point: 1}[Point(x=1)] == 1
    assert repr(point) == "Point(x=1, y=2)"
    assert asdict(replace(point, y=3)) == {"x": 1, "y": 3}
    for twin in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert twin == point
        assert type(twin) is Point
