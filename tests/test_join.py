"""Joins: plain functions of the values that arrived."""

from __future__ import annotations

import pytest

from agentrt import DefinitionError, Join, NothingArrived, best, collect, first, vote


def test_collect_is_the_list() -> None:
    """In branch order."""
    assert collect([2, 1]) == [2, 1]


def test_vote_takes_the_most_frequent() -> None:
    """The earliest on a tie, hashable or not."""
    assert vote(["a", "b", "b"]) == "b"
    assert vote(["b", "a"]) == "b"
    assert vote([{"x": 1}, {"x": 2}, {"x": 2}]) == {"x": 2}
    assert vote([1, [2], [2]]) == [2]


def test_vote_is_linear_in_hashable_values() -> None:
    """A hundred thousand different answers are counted once."""
    assert vote([*range(100_000), 99_999]) == 99_999


def test_best_takes_the_greatest_key() -> None:
    """The earliest on a tie."""
    assert best(len)(["a", "bbb", "ccc"]) == "bbb"


def test_first_is_one_value_or_a_list() -> None:
    """And drops what failed."""
    assert first().reduce([7]) == 7
    assert first(2).reduce([7]) == [7]
    assert first() == first(1) == Join(first().reduce, first=1, errors="drop")
    with pytest.raises(DefinitionError, match=r"first\(0\)"):
        first(0)


@pytest.mark.parametrize("reduce", [vote, best(len), first().reduce])
def test_nothing_to_choose_from_is_an_error(reduce: object) -> None:
    """NothingArrived, which says which join."""
    with pytest.raises(NothingArrived, match=r"vote|best|first"):
        reduce([])  # type: ignore[operator]
