"""Budgets: what may be spent, and the ledger that makes sure nothing more is.

A leaf effect *reserves* its worst case on every account from its own to the root, at once or not at all; afterwards
it *settles* at what was used and the rest returns. At every account and every moment `spent + reserved <= limit`, as
long as bills stay within their reservations. Rules B1-B10 of docs/design.md; nothing here waits or touches a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from agentrt.errors import BudgetExceeded, DefinitionError
from agentrt.usage import PICO, Usage

DIMENSIONS: Final = ("usd", "tokens", "input_tokens", "output_tokens", "model_calls", "tool_calls", "steps")
USD, TOKENS, INPUT, OUTPUT, MODEL_CALLS, TOOL_CALLS, STEPS = range(7)
_ZERO: Final = (0,) * len(DIMENSIONS)
_SUFFIXES = {"k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Cap what a run, a graph, an agent or a call may spend; None leaves a dimension uncapped.

    `usd` is dollars, `seconds` a deadline from the start of the scope. A budget is a cap, never a grant: a request
    must fit every budget around it. Raises `DefinitionError` for a negative limit.
    """

    usd: float | None = None
    tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits().items():
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                raise DefinitionError(f"Budget({name}={limit!r}): a limit is a number")
            if not 0 <= limit < float("inf"):
                raise DefinitionError(f"Budget({name}={limit:g}): a limit is a number from 0; leave it out for none")

    def limits(self) -> dict[str, float]:
        """Return the dimensions that are capped, with their caps."""
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: limit for name, limit in pairs if limit is not None}

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `usd=0.5,tokens=20k,seconds=60`; raises `DefinitionError` naming the part that is wrong."""
        limits: dict[str, float] = {}
        known = [f.name for f in fields(cls)]
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, value = part.partition("=")
            if name not in known:
                raise DefinitionError(f"--budget {part!r}: unknown dimension; known are {', '.join(known)}")
            limits[name] = _limit(name, value.strip(), part)
        return cls(**limits)  # type: ignore[arg-type]


def _limit(name: str, value: str, part: str) -> float:
    factor = _SUFFIXES.get(value[-1:].lower(), 1)
    digits = value if factor == 1 else value[:-1]
    try:
        number = float(digits) * factor
    except ValueError:
        raise DefinitionError(f"--budget {part!r}: write a number, like {name}=20 or {name}=20k") from None
    if name in ("usd", "seconds"):
        return number
    if number != number // 1:
        raise DefinitionError(f"--budget {part!r}: {name} is counted in whole numbers")
    return int(number)


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for `fixed + n * unit` with floor <= n <= want, one whole number a dimension (`usd` in pico-dollars).

    A request is clamped at once to the room there is if that is at least `enough`, or all that waiting could give.
    """

    fixed: Sequence[int]
    unit: Sequence[int] = _ZERO
    floor: int = 0
    want: int = 0
    enough: int = 0

    def cost(self, n: int) -> list[int]:
        return [f + n * u for f, u in zip(self.fixed, self.unit, strict=True)]


class Account:
    """Hold what one scope may spend, has spent and has reserved, a whole number a dimension."""

    __slots__ = ("bounded", "chain", "claims", "closed", "limits", "reserved", "scope", "spent")

    def __init__(self, scope: str, budget: Budget | None, parent: Account | None) -> None:
        self.scope = scope
        self.chain: tuple[Account, ...] = (self, *(parent.chain if parent else ()))
        caps = budget.limits() if budget else {}
        self.limits = [_whole(name, caps[name]) if name in caps else None for name in DIMENSIONS]
        self.bounded = tuple((d, limit) for d, limit in enumerate(self.limits) if limit is not None)
        self.spent = [0] * len(DIMENSIONS)
        self.reserved = [0] * len(DIMENSIONS)
        self.closed = False
        self.claims = 0

    def __repr__(self) -> str:
        caps = ", ".join(f"{DIMENSIONS[d]} {self.spent[d]}+{self.reserved[d]}/{limit}" for d, limit in self.bounded)
        return f"<Account {self.scope!r} {caps or 'unlimited'}>"


def _whole(name: str, limit: float) -> int:
    return round(limit * PICO) if name == "usd" else int(limit)


class Ticket:
    """Hold the place of one request: waiting, granted `n` units, refused, or ended.

    While `granted` and `refusal` are None it waits; `notify` is called once when that changes.
    """

    __slots__ = ("account", "ended", "granted", "notify", "path", "refusal", "refused_by", "request")

    def __init__(self, account: Account, request: Request, path: str) -> None:
        self.account = account
        self.request = request
        self.path = path
        self.granted: int | None = None
        self.refusal: BudgetExceeded | None = None
        self.refused_by: list[Account] = []
        self.notify: Callable[[], None] = _nobody
        self.ended = False

    @property
    def waiting(self) -> bool:
        return self.granted is None and self.refusal is None and not self.ended


def _nobody() -> None:
    """Notify nobody: the request was decided before anyone could wait for it."""


class Ledger:
    """Decide every request of one run, in the order they came."""

    def __init__(self, scope: str, budget: Budget | None) -> None:
        self.root = Account(scope, budget, None)
        self._queue: list[Ticket] = []
        self._details = Usage()

    def open(self, parent: Account, budget: Budget, scope: str) -> Account:
        """Open an account for one activation of a scope that has a budget of its own (rule B1)."""
        return Account(scope, budget, parent)

    def count(self, account: Account, dimensions: Sequence[int], path: str) -> None:
        """Spend one of each dimension on the whole chain at once (rule B2), or raise `BudgetExceeded`."""
        for scope in account.chain:
            if not scope.bounded and not scope.closed:
                continue
            for d in dimensions:
                limit = scope.limits[d]
                if scope.closed or (limit is not None and scope.spent[d] >= limit):
                    raise _exceeded(scope, _overspent(scope, d), 1, path)
        for scope in account.chain:
            spent = scope.spent
            for d in dimensions:
                spent[d] += 1

    def request(self, account: Account, request: Request, path: str) -> Ticket:
        """Grant, queue or refuse a request; the ticket says which."""
        ticket = Ticket(account, request, path)
        self._decide(ticket)
        if ticket.waiting:
            self._queue.append(ticket)
        return ticket

    def settle(self, ticket: Ticket, usage: Usage) -> bool:
        """Replace a granted reservation by what was used; return whether the bill was above it (rule B10).

        A bill above its reservation is charged in full and closes the accounts that cap what it overran.
        """
        assert ticket.granted is not None, "only a granted reservation can be settled"
        assert not ticket.ended, "a reservation is settled once"
        held = ticket.request.cost(ticket.granted)
        used = _vector(usage)
        over = [d for d in range(len(held)) if used[d] > held[d]]
        for scope in ticket.account.chain:
            for d in range(len(held)):
                scope.reserved[d] -= held[d]
                scope.spent[d] += used[d]
            if any(scope.limits[d] is not None for d in over):
                scope.closed = True
        self._details += usage
        ticket.ended = True
        self._examine()
        return bool(over)

    def withdraw(self, ticket: Ticket) -> None:
        """Give up a request whose effect never started: it leaves the queue, or its reservation returns whole."""
        if ticket.ended:
            return
        if ticket.granted is not None:
            held = ticket.request.cost(ticket.granted)
            for scope in ticket.account.chain:
                for d in range(len(held)):
                    scope.reserved[d] -= held[d]
        elif ticket.waiting:
            self._unclaim(ticket)
            self._queue.remove(ticket)
        ticket.ended = True
        self._examine()

    def close(self, account: Account) -> None:
        """Refuse everything that an account is asked for from now on (rule B7)."""
        account.closed = True
        self._examine()

    def worst_case(self, ticket: Ticket) -> Usage:
        """Return the whole reservation as usage, marked uncertain: the charge where nobody knows the bill (B9)."""
        held = ticket.request.cost(ticket.granted or 0)
        return Usage(
            input_tokens=held[INPUT], output_tokens=held[OUTPUT], cost=held[USD], uncertain=held[INPUT] + held[OUTPUT]
        )

    def usage(self) -> Usage:
        """Return what the run has spent."""
        spent = self.root.spent
        return Usage(
            input_tokens=spent[INPUT],
            output_tokens=spent[OUTPUT],
            cached_tokens=self._details.cached_tokens,
            reasoning_tokens=self._details.reasoning_tokens,
            cost=spent[USD],
            model_calls=spent[MODEL_CALLS],
            tool_calls=spent[TOOL_CALLS],
            steps=spent[STEPS],
            uncertain=self._details.uncertain,
        )

    def statistics(self) -> Mapping[str, int]:
        """Return how many requests wait and how many tokens are reserved."""
        return {"waiting": len(self._queue), "reserved_tokens": self.root.reserved[TOKENS]}

    def _examine(self) -> None:
        """Decide again every request in the queue, in order of arrival (rules B6, B7)."""
        if not self._queue:
            return
        queue, self._queue = self._queue, []
        for ticket in queue:
            self._unclaim(ticket)
        for ticket in queue:
            self._decide(ticket)
            if ticket.waiting:
                self._queue.append(ticket)
        for ticket in queue:
            if not ticket.waiting:
                ticket.notify()

    def _decide(self, ticket: Ticket) -> None:
        """Grant, refuse or leave waiting by rules B3-B6; a request that waits claims the accounts that refuse it."""
        request, chain = ticket.request, ticket.account.chain
        if (refusal := _refusal(ticket)) is not None:
            ticket.refusal = refusal
            return
        ever = min((_room(scope, request, ()) for scope in chain), default=request.want)
        enough = max(request.floor, min(request.enough, request.want, ever))
        now = request.want
        for scope in chain:
            room = _room(scope, request, scope.reserved)
            now = min(now, room)
            if room < enough or (room < 0):
                ticket.refused_by.append(scope)
        if ticket.refused_by or any(scope.claims for scope in chain):
            for scope in ticket.refused_by:
                scope.claims += 1
            return
        ticket.granted = now
        held = request.cost(now)
        for scope in chain:
            for d in range(len(held)):
                scope.reserved[d] += held[d]

    def _unclaim(self, ticket: Ticket) -> None:
        for scope in ticket.refused_by:
            scope.claims -= 1
        ticket.refused_by = []


def _room(scope: Account, request: Request, reserved: Sequence[int]) -> int:
    """Return the greatest n <= want that fits beside what is reserved, or -1 if not even `fixed` fits."""
    room = request.want
    for d, limit in scope.bounded:
        left = limit - scope.spent[d] - (reserved[d] if reserved else 0) - request.fixed[d]
        if left < 0:
            return -1
        if request.unit[d]:
            room = min(room, left // request.unit[d])
    return room


def _refusal(ticket: Ticket) -> BudgetExceeded | None:
    """Return why a request can never be granted, naming the innermost such account (rule B4), or None."""
    least = ticket.request.cost(ticket.request.floor)
    for scope in ticket.account.chain:
        for d, limit in scope.bounded:
            if (scope.closed and least[d]) or scope.spent[d] + least[d] > limit:
                return _exceeded(scope, d, least[d], ticket.path)
        if scope.closed:
            d = next((d for d, amount in enumerate(least) if amount), TOKENS)
            return _exceeded(scope, d, least[d], ticket.path)
    return None


def _overspent(scope: Account, d: int) -> int:
    """Return the dimension whose overrun closed the account, else the one that was asked for."""
    return next((over for over, limit in scope.bounded if scope.spent[over] > limit), d)


def _exceeded(scope: Account, d: int, needed: int, path: str) -> BudgetExceeded:
    limit = scope.limits[d] or 0
    unit = PICO if d == USD else 1
    return BudgetExceeded(
        scope=scope.scope,
        dimension=DIMENSIONS[d],
        needed=needed / unit if d == USD else needed,
        spent=scope.spent[d] / unit if d == USD else scope.spent[d],
        limit=limit / unit if d == USD else limit,
        path=path,
    )


def _vector(usage: Usage) -> tuple[int, ...]:
    """Return a bill by dimension; a provider cannot give anything back."""
    read, written = max(0, usage.input_tokens), max(0, usage.output_tokens)
    return (max(0, usage.cost), read + written, read, written, 0, 0, 0)
