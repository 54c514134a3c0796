"""Intervals: what a node takes at least and at most, told before it runs.

An `Interval` holds a least and a most a dimension, and composing nodes composes intervals: a sequence adds, a choice
takes the least and the greatest, repeating multiplies, a budget caps. An `Amount` remembers whose it is, so that a
bound can name the node it comes from most, or the nodes nothing bounds. Everything here is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import add
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from agentrt.budget import DIMENSIONS, INPUT, MODEL_CALLS, OUTPUT, STEPS, TOKENS, TOOL_CALLS, USD, Budget
from agentrt.errors import number
from agentrt.usage import PICO
from agentrt.value import Value

if TYPE_CHECKING:
    from agentrt.model import Model

UNLIMITED: Final = math.inf


class Amount(Value):
    """Hold how much of one dimension, `shares` of it by path; `unbounded` says of paths why they have no bound."""

    value: float = 0
    shares: Mapping[str, float] = msgspec.field(default_factory=dict)
    unbounded: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __add__(self, other: Amount) -> Amount:
        if not other.value:
            return self
        if not self.value:
            return other
        shares = {**self.shares}
        for path, share in other.shares.items():
            shares[path] = shares.get(path, 0) + share
        return Amount(self.value + other.value, shares, {**other.unbounded, **self.unbounded})

    def times(self, n: float) -> Amount:
        """Return n times this, n finite."""
        if n == 0:
            return NOTHING
        return Amount(self.value * n, {path: share * n for path, share in self.shares.items()}, self.unbounded)

    def endless(self, path: str, reason: str) -> Amount:
        """Return this any number of times."""
        return Amount(UNLIMITED, {}, {path: reason, **self.unbounded}) if self.value else self

    def capped(self, limit: float) -> Amount:
        """Return at most `limit` of it; what nothing bounded may now take all of it."""
        if self.value <= limit:
            return self
        if limit <= 0:
            return NOTHING
        shares = {**self.shares, **dict.fromkeys(self.unbounded, limit)}
        return Amount(limit, {path: min(share, limit) for path, share in shares.items()})

    @property
    def dominant(self) -> str:
        """Return the path with the greatest share, one without a bound before any other; empty if there is none."""
        if self.unbounded:
            return next(iter(self.unbounded))
        return max(self.shares, key=self.shares.__getitem__, default="")


NOTHING: Final = Amount()
Vector: TypeAlias = tuple[Amount, ...]
NONE: Final[Vector] = (NOTHING,) * len(DIMENSIONS)


def added(*vectors: Vector) -> Vector:
    """Return the sum of what happens one after another."""
    total = NONE
    for vector in vectors:
        if total is NONE or vector is NONE:
            total = vector if total is NONE else total
        else:
            total = tuple(map(add, total, vector))
    return total


def greatest(vectors: Iterable[Vector]) -> Vector:
    """Return the most that one of several may take, dimension by dimension; NONE of none."""
    return tuple(_greatest(amounts) for amounts in zip(*vectors, strict=True)) or NONE


def _greatest(amounts: Sequence[Amount]) -> Amount:
    most = max(amounts, key=lambda a: a.value)
    if most.value < UNLIMITED:
        return most
    return Amount(UNLIMITED, {}, {path: why for a in amounts for path, why in a.unbounded.items()})


def endless(vector: Vector, path: str, reason: str) -> Vector:
    """Return what is repeated any number of times."""
    return tuple(a.endless(path, reason) for a in vector)


def repeated(vector: Vector, n: float) -> Vector:
    return tuple(a.times(n) for a in vector)


class Call(Value):
    """Hold the most that one model call may take.

    `rate` is the price of its dearest token, in pico-dollars, infinite where more than tokens is charged; `a_step` is
    how many such calls one step may make.
    """

    usd: float = 0
    tokens: float = 0
    input_tokens: float = 0
    output_tokens: float = 0
    rate: float = 0
    a_step: float = 0

    def __or__(self, other: Call) -> Call:
        return Call(**{n: max(getattr(self, n), getattr(other, n)) for n in Call.__struct_fields__})


UNKNOWN_CALL: Final = Call(**dict.fromkeys(Call.__struct_fields__, UNLIMITED))


class Interval(Value):
    """Hold the least and the most that something takes, an amount a dimension, and its costliest model call."""

    least: Vector = NONE
    most: Vector = NONE
    call: Call = msgspec.field(default_factory=Call)

    def __add__(self, other: Interval) -> Interval:
        return Interval(added(self.least, other.least), added(self.most, other.most), self.call | other.call)

    def within(self, budget: Budget | None, path: str) -> Interval:
        """Return the interval of what happens under a budget of its own.

        A scope that cannot succeed within it is infinitely dear; one that wraps up or stops half-way at exhaustion
        succeeds with whatever it had, so that nothing is sure but its start.
        """
        limits = _limits(budget)
        least = self.least
        if budget is not None and budget.on_exhausted != "raise":
            least = tuple(NOTHING if d != STEPS else Amount(1, {path: 1}) for d in range(len(DIMENSIONS)))
        else:
            least = tuple(_affordable(amount, d, limits.get(d), path) for d, amount in enumerate(least))
        most = [a.capped(limits.get(d, UNLIMITED)) for d, a in enumerate(self.most)]
        return Interval(least, _consistent(most, self.call), self.call)


def _limits(budget: Budget | None) -> dict[int, int]:
    """Return a budget's limits by dimension, in the ledger's units."""
    return {} if budget is None else dict(budget.caps.full)


def _affordable(amount: Amount, d: int, limit: float | None, path: str) -> Amount:
    if limit is None or amount.value <= limit or amount.value == UNLIMITED:
        return amount
    why = f"needs at least {shown(d, amount.value)} {DIMENSIONS[d]}, and its own budget is {shown(d, limit)}"
    return Amount(UNLIMITED, {}, {path: why})


def shown(d: int, value: float) -> str:
    """Return an amount for the eye: dollars with the digits that count, counts whole."""
    return number(value / PICO) if d == USD else f"{value:,.0f}"


def _consistent(most: list[Amount], call: Call) -> Vector:
    """Bound each dimension by what bounds the others: steps make calls, and only calls cost tokens and money."""
    most[TOOL_CALLS] = most[TOOL_CALLS].capped(most[STEPS].value)
    most[MODEL_CALLS] = most[MODEL_CALLS].capped(_product(most[STEPS].value, call.a_step))
    calls = most[MODEL_CALLS].value
    for d, each in ((INPUT, call.input_tokens), (OUTPUT, call.output_tokens), (TOKENS, call.tokens), (USD, call.usd)):
        most[d] = most[d].capped(_product(calls, each))
    most[TOKENS] = most[TOKENS].capped(most[INPUT].value + most[OUTPUT].value)
    for d in (INPUT, OUTPUT):
        most[d] = most[d].capped(most[TOKENS].value)
    most[USD] = most[USD].capped(_product(most[TOKENS].value, call.rate))
    return tuple(most)


def _product(n: float, each: float) -> float:
    return n * each if n and each else 0


def started(path: str, dimensions: Sequence[int]) -> Interval:
    """Return the interval of a start that counts one of each dimension."""
    once = tuple(Amount(1, {path: 1}) if d in dimensions else NOTHING for d in range(len(DIMENSIONS)))
    return Interval(once, once)


def anything(path: str, reason: str) -> Interval:
    """Return the interval of what nobody knows beforehand."""
    return Interval(NONE, (Amount(UNLIMITED, {}, {path: reason}),) * len(DIMENSIONS), UNKNOWN_CALL)


class Outlook(Value):
    """Hold what a node knows of its surroundings before it runs.

    path: of the step, without branches and visits.
    models: finds the model a node will use, None where it leads nowhere.
    widths: how many items the `each` forks into a target have, least and most, by the target's name.
    given: the inputs it may get, None where they are not known.
    tool_calls, steps: the least limits around it.
    wraps: how often it may be asked to wrap up.
    """

    path: str
    models: Callable[[Model | str | None], Model | None]
    widths: Mapping[str, tuple[int, float]] = msgspec.field(default_factory=dict)
    given: tuple[object, ...] | None = None
    tool_calls: float = UNLIMITED
    steps: float = UNLIMITED
    wraps: int = 0

    def below(self, name: str, budget: Budget | None) -> Outlook:
        """Return the outlook of a step below this one."""
        if not self.path:  # the run's own budget asks its root to wrap up
            return replace(self, path=name).under(budget)
        return replace(self, path=f"{self.path}/{name}", wraps=0).under(budget)

    def under(self, budget: Budget | None) -> Outlook:
        """Return the outlook under one more budget."""
        limits = _limits(budget)
        return replace(
            self,
            tool_calls=min(self.tool_calls, limits.get(TOOL_CALLS, UNLIMITED)),
            steps=min(self.steps, limits.get(STEPS, UNLIMITED)),
            wraps=self.wraps + (budget is not None and budget.on_exhausted == "wrap_up"),
        )
