"""Budgets: what users say may be spent, and what follows when it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal, TypeAlias, TypedDict

from agentrt.errors import DefinitionError
from agentrt.usage import PICO

DIMENSIONS: Final = ("usd", "tokens", "input_tokens", "output_tokens", "model_calls", "tool_calls", "steps")
USD, TOKENS, INPUT, OUTPUT, MODEL_CALLS, TOOL_CALLS, STEPS = range(7)
_SUFFIXES = {"k": 1_000, "m": 1_000_000}


OnExhausted: TypeAlias = Literal["raise", "partial", "wrap_up"]
_LIMITS: Final = (*DIMENSIONS, "seconds")


class _Names(dict[tuple[int, ...], tuple[str, ...]]):
    def __missing__(self, dimensions: tuple[int, ...]) -> tuple[str, ...]:
        names = self[dimensions] = tuple(DIMENSIONS[d] for d in dimensions)
        return names


NAMES: Final = _Names()
"""The names of dimensions that are counted together: looked up for every step, so a dict and no function."""


class Limits(TypedDict, total=False):
    """Name what `Budget` takes."""

    usd: float | None
    tokens: int | None
    input_tokens: int | None
    output_tokens: int | None
    model_calls: int | None
    tool_calls: int | None
    steps: int | None
    seconds: float | None
    calls: int | None
    on_exhausted: OnExhausted
    hold_back: float
    share: Literal["equal"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Cap what a run, a graph, an agent or a call may spend; None leaves a dimension uncapped.

    usd, seconds: dollars; a deadline from the start of the scope. The other dimensions are counts.
    calls: how often one caller may run the node this budget is set on.
    on_exhausted: what happens when it runs out. "raise" raises `BudgetExceeded`, "partial" makes a `Partial` the
        scope's output, "wrap_up" lets an agent answer in one last call without tools, and a graph run its `wrap_up`
        node on the `Partial`, paid from what was held back.
    hold_back: the share of every limit that is kept for wrapping up.
    share: "equal" gives each branch of a fork, or each call of `ctx.map`, an equal part of what is left.

    A budget is a cap, never a grant: a request must fit every budget around it. Raises `DefinitionError` for a
    negative limit.
    """

    usd: float | None = None
    tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    steps: int | None = None
    seconds: float | None = None
    calls: int | None = None
    on_exhausted: OnExhausted = "raise"
    hold_back: float = 0.1
    share: Literal["equal"] | None = None
    caps: Caps = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, limit in (*self.limits().items(), ("calls", self.calls or 0), ("hold_back", self.hold_back)):
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                raise DefinitionError(f"Budget({name}={limit!r}): a limit is a number")
            if name not in ("usd", "seconds", "hold_back") and limit != limit // 1 and limit < float("inf"):
                raise DefinitionError(f"Budget({name}={limit!r}): {name} is counted in whole numbers")
            if not 0 <= limit < float("inf"):
                raise DefinitionError(f"Budget({name}={limit:g}): a limit is a number from 0; leave it out for none")
        if self.hold_back >= 1:
            raise DefinitionError(f"Budget(hold_back={self.hold_back:g}): hold back a share below 1, such as 0.1")
        for name, value, known in (
            ("on_exhausted", self.on_exhausted, ("raise", "partial", "wrap_up")),
            ("share", self.share, (None, "equal")),
        ):
            if value not in known:
                raise DefinitionError(f"Budget({name}={value!r}): use one of {', '.join(map(repr, known))}")
        object.__setattr__(self, "caps", Caps(self))

    def limits(self) -> dict[str, float]:
        """Return the dimensions that are capped, with their caps."""
        pairs = ((name, getattr(self, name)) for name in _LIMITS)
        return {name: limit for name, limit in pairs if limit is not None}

    def divided(self, left: Mapping[str, float], branches: int) -> Budget:
        """Return the cap of one of several equal branches, where so much is left for all of them (rule B11)."""
        if self.share is None:
            return self
        parts = {name: _part(name, amount, branches) for name, amount in left.items() if name != "seconds"}
        own = self.limits()
        return replace(self, share=None, **{n: min(part, own.get(n, part)) for n, part in parts.items()})  # type: ignore[arg-type]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `usd=0.5,tokens=20k,seconds=60`; raises `DefinitionError` naming the part that is wrong."""
        limits: dict[str, float] = {}
        known = [f.name for f in fields(cls) if f.init]
        words: dict[str, str] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, value = part.partition("=")
            if name not in known:
                raise DefinitionError(f"--budget {part!r}: unknown dimension; known are {', '.join(known)}")
            if name in ("on_exhausted", "share"):
                words[name] = value.strip()
            else:
                limits[name] = _limit(name, value.strip(), part)
        return cls(**limits, **words)  # type: ignore[arg-type]


def tightest(*budgets: Budget | None) -> dict[str, float]:
    """Return the least limit of each dimension that any of the budgets caps: they hold together."""
    limits: dict[str, float] = {}
    for budget in filter(None, budgets):
        for name, limit in budget.limits().items():
            limits[name] = min(limit, limits.get(name, limit))
    return limits


def _part(name: str, amount: float, branches: int) -> float:
    return amount / branches if name == "usd" else int(amount) // branches


def _limit(name: str, value: str, part: str) -> float:
    factor = _SUFFIXES.get(value[-1:].lower(), 1)
    digits = value if factor == 1 else value[:-1]
    try:
        number = float(digits) * factor
    except ValueError:
        raise DefinitionError(f"--budget {part!r}: write a number, like {name}=20 or {name}=20k") from None
    if name in ("usd", "seconds", "hold_back"):
        return number
    if number != number // 1:
        raise DefinitionError(f"--budget {part!r}: {name} is counted in whole numbers")
    return int(number)


class Caps:
    """Hold a budget's caps in whole numbers: as pairs of dimension and cap, and by dimension.

    `full` are all of them, `bounded` and `most` leave out what is held back for wrapping up. `is_limit` says whether
    the budget limits anything, be it only the time.
    """

    __slots__ = ("bounded", "full", "is_limit", "limits", "most", "share")

    def __init__(self, budget: Budget | None = None) -> None:
        self.is_limit = budget is not None and bool(budget.limits())
        self.share = budget.hold_back if budget is not None and budget.on_exhausted == "wrap_up" else None
        amounts = [(d, getattr(budget, name, None)) for d, name in enumerate(DIMENSIONS)]
        self._set(tuple((d, _whole(d, amount)) for d, amount in amounts if amount is not None))

    def _set(self, full: tuple[tuple[int, int], ...]) -> None:
        self.full = self.bounded = full
        if self.share is not None:
            self.bounded = tuple((d, cap - _held_back(d, cap, self.share)) for d, cap in full)
        limits, most = dict(full), dict(self.bounded)
        self.limits: tuple[int | None, ...] = tuple(limits.get(d) for d in range(len(DIMENSIONS)))
        self.most: tuple[float, ...] = tuple(most.get(d, float("inf")) for d in range(len(DIMENSIONS)))

    def at_least(self, used: Sequence[int]) -> Caps:
        """Return caps of which none is below what is used."""
        raised = copy(self)
        raised._set(tuple((d, max(cap, used[d])) for d, cap in self.full))  # noqa: SLF001 - its own kind
        return raised


def _whole(d: int, limit: float) -> int:
    return round(limit * PICO) if d == USD else int(limit)


def _held_back(d: int, limit: int, share: float) -> int:
    """Return how much of a limit is kept for the one call that wraps up: a call, its step and a share of the rest."""
    if d == TOOL_CALLS:
        return 0
    least = {MODEL_CALLS: 1, STEPS: 2}.get(d, 0)
    return min(limit, max(least, int(limit * share)))
