"""Bounds: what users are told of a run before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from agentrt.budget import DIMENSIONS, USD
from agentrt.errors import BudgetTooSmall
from agentrt.interval import UNLIMITED, Interval
from agentrt.usage import PICO
from agentrt.value import Value


class Bound(Value):
    """Hold what a run takes of one dimension, from `least` to `greatest`; infinity where nothing bounds it.

    uncapped: the greatest without the run's own budget.
    limit: what the run's budget allows; None if it does not say.
    dominant: the path of the node that most of the greatest comes from; `needing` that of the least.
    unbounded: why, by path, there is no bound but perhaps the run's budget.
    impossible: why, by path, no run can succeed: the least is infinite then.
    """

    least: float
    greatest: float
    uncapped: float
    limit: float | None = None
    dominant: str = ""
    needing: str = ""
    unbounded: Mapping[str, str] = msgspec.field(default_factory=dict)
    impossible: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Say whether some run may succeed within the limit."""
        return self.least < UNLIMITED and (self.limit is None or self.least <= self.limit)


class Bounds(Value):
    """Hold what a run of `name` takes in each dimension (`usd` in dollars), told before it runs.

    Every run that succeeds uses at least the least, and none more than the greatest, as long as providers bill within
    what was reserved.
    """

    name: str
    usd: Bound
    tokens: Bound
    input_tokens: Bound
    output_tokens: Bound
    model_calls: Bound
    tool_calls: Bound
    steps: Bound

    def items(self) -> Iterator[tuple[str, Bound]]:
        """Yield each dimension's name and bound."""
        return ((name, getattr(self, name)) for name in DIMENSIONS)

    @property
    def fits(self) -> bool:
        """Say whether some run may succeed within the budget; `check` raises what is wrong."""
        return all(bound.fits for _, bound in self.items())

    @property
    def dominant(self) -> str:
        """Return the path of the node that dominates the cost: in dollars, else in tokens, else in steps."""
        return self.usd.dominant or self.tokens.dominant or self.steps.dominant

    def check(self) -> None:
        """Raise `BudgetTooSmall` if not even the least that a run takes fits its budget."""
        for dimension, bound in self.items():
            if not bound.fits:
                raise BudgetTooSmall(
                    scope=self.name,
                    dimension=dimension,
                    needed=bound.least,
                    limit=UNLIMITED if bound.limit is None else bound.limit,
                    path=bound.needing,
                    reason=next((f"{path} {why}" for path, why in bound.impossible.items()), ""),
                )


def bounds_of(name: str, interval: Interval, free: Interval, limits: Mapping[str, float]) -> Bounds:
    """Return what users see of a run's interval, and of the interval it would have without the run's budget."""
    seen: dict[str, Bound] = {}
    for d, dimension in enumerate(DIMENSIONS):
        unit = PICO if d == USD else 1
        least, most, uncapped = free.least[d], interval.most[d], free.most[d]
        seen[dimension] = Bound(
            least=_in_units(least.value, unit),
            greatest=_in_units(most.value, unit),
            uncapped=_in_units(uncapped.value, unit),
            limit=limits.get(dimension),
            dominant=uncapped.dominant,
            needing=least.dominant,
            unbounded=uncapped.unbounded,
            impossible=least.unbounded,
        )
    return Bounds(name=name, **seen)


def _in_units(value: float, unit: int) -> float:
    return value / unit if unit > 1 else value
