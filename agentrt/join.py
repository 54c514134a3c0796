"""Joins: how the values of a fork's branches become the input of the node behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

from agentrt.errors import DefinitionError, NothingArrived

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Join(Generic[T, U]):
    """Close a fork: `reduce` the arrived values, in branch order, to the input of the target.

    `first` closes at that many arrivals and cancels the rest. With `errors="drop"` a failed branch dies instead of
    failing the fork.
    """

    reduce: Callable[[list[T]], U]
    first: int | None = None
    errors: Literal["raise", "drop"] = "raise"


def collect(values: list[T]) -> list[T]:
    """Join: all values that arrived, in branch order."""
    return values


def vote(values: list[T]) -> T:
    """Join: the value that arrived most often, the earliest branch's on a tie; raises `NothingArrived` on none."""
    if not values:
        raise NothingArrived("vote: every branch died, so there is nothing to vote on")
    try:
        counts: Mapping[T, int] = Counter(values)
    except TypeError:  # unhashable values can only be compared one by one
        return max(values, key=values.count)
    return max(values, key=counts.__getitem__)


def best(key: Callable[[T], Any]) -> Callable[[list[T]], T]:
    """Join: the value with the greatest key, the earliest on a tie; raises `NothingArrived` on none."""

    def best_of(values: list[T]) -> T:
        if not values:
            raise NothingArrived("best: every branch died, so there is nothing to choose from")
        return max(values, key=key)

    return best_of


@overload
def first() -> Join[Any, Any]: ...
@overload
def first(n: Literal[1]) -> Join[Any, Any]: ...
@overload
def first(n: int) -> Join[Any, list[Any]]: ...
def first(n: int = 1) -> Join[Any, Any]:
    """Join: close at the n-th arrival and cancel the other branches; failed ones die (rule G8).

    `first()` sends on the one value and raises `NothingArrived` on none; `first(n)` sends a list of up to n.
    """
    if n < 1:
        raise DefinitionError(f"first({n}): wait for at least one arrival")
    return Join(_only if n == 1 else collect, first=n, errors="drop")


def _only(values: list[T]) -> T:
    if not values:
        raise NothingArrived("first: every branch died before one arrived")
    return values[0]
