"""Budgets: what may be spent, and the ledger that makes sure nothing more is.

A leaf effect *reserves* its worst case on every account from its own to the root, at once or not at all; afterwards
it *settles* at what was used and the rest returns. At every account and every moment `spent + reserved <= limit`, as
long as bills stay within their reservations. Rules B1-B10 of docs/design.md; nothing here waits or touches a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal, TypeAlias, TypedDict

from agentrt.errors import BudgetExceeded, DefinitionError
from agentrt.statistics import LedgerStatistics
from agentrt.turns import Line, Turns
from agentrt.usage import PICO, Usage

DIMENSIONS: Final = ("usd", "tokens", "input_tokens", "output_tokens", "model_calls", "tool_calls", "steps")
USD, TOKENS, INPUT, OUTPUT, MODEL_CALLS, TOOL_CALLS, STEPS = range(7)
_ZERO: Final = (0,) * len(DIMENSIONS)
_SUFFIXES = {"k": 1_000, "m": 1_000_000}


OnExhausted: TypeAlias = Literal["raise", "partial", "wrap_up"]
_LIMITS: Final = (*DIMENSIONS, "seconds")


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

    `full` are all of them, `bounded` and `most` leave out what is held back for wrapping up.
    """

    __slots__ = ("bounded", "full", "limits", "most", "share")

    def __init__(self, budget: Budget | None = None) -> None:
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


_UNCAPPED: Final = Caps()
_NOTHING: Final = (-1,) * len(DIMENSIONS)


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
    """Hold what one scope may spend, has spent and has reserved, a whole number a dimension.

    `bounded` are the caps that ordinary requests meet, `full` those with what is held back for wrapping up; `wraps`
    is the account that requests on this one may use to the full (rule B8). `is_capped` says whether there is a
    budget here or around. `most` are the ordinary caps by dimension, for a count to look at and no more.
    """

    __slots__ = (
        "bounded", "chain", "claims", "closed", "full", "is_capped", "limits", "line", "most", "reserved", "scope",
        "spent", "wraps",
    )  # fmt: skip

    def __init__(self, scope: str, budget: Budget | None, parent: Account | None, wraps: Account | None = None) -> None:
        self.scope = scope
        self.chain: tuple[Account, ...] = (self, *(parent.chain if parent else ()))
        self.spent = [0] * len(DIMENSIONS)
        self.reserved = [0] * len(DIMENSIONS)
        self.wraps = wraps
        self.is_capped: bool = budget is not None or (parent is not None and parent.is_capped)
        self.closed = False
        self.claims = 0
        self.line: Line | None = None
        caps = _UNCAPPED if budget is None else budget.caps
        self.full, self.bounded, self.limits, self.most = caps.full, caps.bounded, caps.limits, caps.most

    def limit(self, budget: Budget) -> None:
        """Set the caps, never below what is spent and reserved, and open the account."""
        caps = budget.caps
        used = [spent + reserved for spent, reserved in zip(self.spent, self.reserved, strict=True)]
        if any(used):
            caps = caps.at_least(used)
        self.full, self.bounded, self.limits, self.most = caps.full, caps.bounded, caps.limits, caps.most
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.most = _NOTHING

    def caps(self, asking: Account) -> tuple[tuple[int, int], ...]:
        """Return the caps that a request on the account `asking` meets here."""
        return self.full if asking.wraps is self else self.bounded

    def refuses(self, asking: Account) -> bool:
        return self.closed and asking.wraps is not self

    def __repr__(self) -> str:
        caps = ", ".join(f"{DIMENSIONS[d]} {self.spent[d]}+{self.reserved[d]}/{limit}" for d, limit in self.full)
        return f"<Account {self.scope!r} {caps or 'unlimited'}>"


class Limit:
    """Hold the budget and the account of one scope that runs; `until` is its deadline, on the event loop's clock."""

    __slots__ = ("account", "budget", "until")

    def __init__(self, budget: Budget, account: Account) -> None:
        self.budget = budget
        self.account = account
        self.until = float("inf")

    def begin(self, now: float) -> None:
        """Set the deadline; an account that an earlier part of the run has closed is open again."""
        if self.account.closed:
            self.account.limit(self.budget)
        if self.budget.seconds is not None:
            self.until = now + self.budget.seconds

    @property
    def deadline(self) -> float:
        """Return when work must end, so that what is held back of the time is left for wrapping up."""
        if self.budget.seconds is None or self.budget.on_exhausted != "wrap_up":
            return self.until
        return self.until - self.budget.seconds * self.budget.hold_back

    def __repr__(self) -> str:
        return f"<Limit {self.account!r} {self.budget.on_exhausted}>"


class Ticket:
    """Hold the place of one request: waiting, granted `n` units, refused, or ended.

    While `granted` and `refusal` are None it waits; `notify` is called once when that changes.
    """

    __slots__ = ("account", "ended", "granted", "notify", "path", "refusal", "refused_by", "request", "turn")

    def __init__(self, account: Account, request: Request, path: str) -> None:
        self.account = account
        self.request = request
        self.path = path
        self.granted: int | None = None
        self.refusal: BudgetExceeded | None = None
        self.refused_by: list[Account] = []
        self.notify: Callable[[], None] = _nobody
        self.ended = False
        self.turn = 0

    @property
    def waiting(self) -> bool:
        return self.granted is None and self.refusal is None and not self.ended


def _nobody() -> None:
    """Notify nobody: the request was decided before anyone could wait for it."""


class Ledger:
    """Decide every request of one run, in the order they came."""

    def __init__(self, scope: str, budget: Budget | None) -> None:
        self.root = Account(scope, budget, None)
        self._turns = Turns(self._decide, _deny)
        self._cached = self._cache_writes = self._reasoning = self._uncertain = 0

    def open(self, parent: Account, budget: Budget, scope: str) -> Account:
        """Open an account for one activation of a scope that has a budget of its own (rule B1)."""
        return Account(scope, budget, parent)

    def count(self, account: Account, dimensions: Sequence[int], path: str) -> None:
        """Spend one of each dimension on the whole chain at once (rule B2), or raise `BudgetExceeded`."""
        chain = account.chain
        for scope in chain:
            spent, most = scope.spent, scope.most
            for d in dimensions:
                if spent[d] >= most[d]:
                    _check_count(scope, account, d, path)
        for scope in chain:
            spent = scope.spent
            for d in dimensions:
                spent[d] += 1

    def request(self, account: Account, request: Request, path: str) -> Ticket:
        """Grant, queue or refuse a request; the ticket says which."""
        ticket = Ticket(account, request, path)
        self._decide(ticket)
        if ticket.waiting:
            self._turns.enter(ticket)
        elif ticket.granted is not None:
            self._turns.granted(ticket)
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
        _add(ticket.account, held, -1)
        amounts = [(d, amount) for d, amount in enumerate(used) if amount]
        for scope in ticket.account.chain:
            spent = scope.spent
            for d, amount in amounts:
                spent[d] += amount
            if over and any(scope.limits[d] is not None for d in over):
                scope.close()
        self._cached += usage.cached_tokens
        self._cache_writes += usage.cache_write_tokens
        self._reasoning += usage.reasoning_tokens
        self._uncertain += usage.uncertain
        ticket.ended = True
        self._turns.examine(ticket.account)
        return bool(over)

    def withdraw(self, ticket: Ticket) -> None:
        """Give up a request whose effect never started: it leaves the queue, or its reservation returns whole."""
        if ticket.ended:
            return
        leaving = ticket if ticket.waiting else None
        if ticket.granted is not None:
            _add(ticket.account, ticket.request.cost(ticket.granted), -1)
        ticket.ended = True
        self._turns.examine(ticket.account, leaving=leaving)

    def wrapping_up(self, account: Account) -> Account:
        """Open the account for the one call that may use what `account` holds back (rule B8)."""
        return Account(account.scope, None, account, wraps=account)

    def raise_limits(self, account: Account, budget: Budget) -> None:
        """Set other limits, never below what is spent and reserved, and open the account again (rules B11, E5)."""
        account.limit(budget)
        self._turns.examine(account, raised=True)

    def close(self, account: Account) -> None:
        """Refuse everything that an account is asked for from now on (rule B7)."""
        account.close()
        self._turns.examine(account)

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
            cached_tokens=self._cached,
            reasoning_tokens=self._reasoning,
            cost=spent[USD],
            model_calls=spent[MODEL_CALLS],
            tool_calls=spent[TOOL_CALLS],
            steps=spent[STEPS],
            uncertain=self._uncertain,
            cache_write_tokens=self._cache_writes,
        )

    def __repr__(self) -> str:
        return f"<Ledger {self.root!r}: {self._turns.waiting} waiting>"

    def statistics(self) -> LedgerStatistics:
        """Return what is spent and reserved, and how many requests wait."""
        reserved = self.root.reserved
        return LedgerStatistics(
            spent=self.usage(),
            reserved_tokens=reserved[TOKENS],
            reserved_usd=reserved[USD] / PICO,
            waiting=self._turns.waiting,
        )

    def _decide(self, ticket: Ticket) -> None:
        """Grant, refuse or leave waiting by rules B3-B6, and name the accounts that refuse now in `refused_by`."""
        request, asking = ticket.request, ticket.account
        _deny(ticket)
        if ticket.refusal is not None:
            return
        rooms = [(scope, *_rooms(scope, asking, request)) for scope in asking.chain if scope.full]
        ever = min([request.want, *(ever for _, _, ever in rooms)])
        enough = max(request.floor, min(request.enough, ever))
        ticket.refused_by = [scope for scope, now, _ in rooms if now < enough]
        if ticket.refused_by or any(scope.claims for scope in asking.chain):
            return
        ticket.granted = min([request.want, *(now for _, now, _ in rooms)])
        _add(asking, request.cost(ticket.granted), 1)


def _add(account: Account, held: Sequence[int], sign: int) -> None:
    """Add to what is reserved on the whole chain, or take off."""
    amounts = [(d, sign * amount) for d, amount in enumerate(held) if amount]
    for scope in account.chain:
        reserved = scope.reserved
        for d, amount in amounts:
            reserved[d] += amount


def _check_count(scope: Account, asking: Account, d: int, path: str) -> None:
    """Raise `BudgetExceeded` unless what stops others here does not stop the account that asks (rule B8)."""
    if scope.refuses(asking):
        raise _exceeded(scope, _overspent(scope, d), 1, path)
    limit = dict(scope.caps(asking)).get(d)
    if limit is not None and scope.spent[d] >= limit:
        raise _exceeded(scope, d, 1, path)


def _rooms(scope: Account, asking: Account, request: Request) -> tuple[int, int]:
    """Return the greatest n <= want that fits now, and once all that is reserved has returned; -1 if none does."""
    now = ever = request.want
    for d, limit in scope.caps(asking):
        left = limit - scope.spent[d] - request.fixed[d]
        free = left - scope.reserved[d]
        if unit := request.unit[d]:
            left, free = left // unit, free // unit
            now, ever = min(now, free), min(ever, left)
        elif free < 0:
            now, ever = -1, ever if left >= 0 else -1
    return max(now, -1), max(ever, -1)


def _deny(ticket: Ticket) -> None:
    """Refuse a request that can never be granted."""
    ticket.refusal = _refusal(ticket)


def _refusal(ticket: Ticket) -> BudgetExceeded | None:
    """Return why a request can never be granted, naming the innermost such account (rule B4), or None."""
    least = ticket.request.cost(ticket.request.floor)
    for scope in ticket.account.chain:
        if scope.refuses(ticket.account):
            d = next((d for d, amount in enumerate(least) if amount), TOKENS)
            return _exceeded(scope, _overspent(scope, d), least[d], ticket.path)
        for d, limit in scope.caps(ticket.account):
            if scope.spent[d] + least[d] > limit:
                return _exceeded(scope, d, least[d], ticket.path)
    return None


def _overspent(scope: Account, d: int) -> int:
    """Return the dimension whose overrun closed the account, else the one that was asked for."""
    return next((over for over, limit in scope.full if scope.spent[over] > limit), d)


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
        account=scope,
    )


def _vector(usage: Usage) -> tuple[int, ...]:
    """Return a bill by dimension; a provider cannot give anything back."""
    read, written = max(0, usage.input_tokens), max(0, usage.output_tokens)
    return (max(0, usage.cost), read + written, read, written, 0, 0, 0)
