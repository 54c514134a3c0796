"""The ledger: what is spent and reserved, and the decision on every request.

A leaf effect *reserves* its worst case on every account from its own to the root, at once or not at all; afterwards
it *settles* at what was used and the rest returns. At every account and every moment `spent + reserved <= limit`, as
long as bills stay within their reservations. Rules B1-B11 of docs/design.md; nothing here waits or touches a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from agentrt.budget import DIMENSIONS, INPUT, MODEL_CALLS, OUTPUT, STEPS, TOKENS, TOOL_CALLS, USD, Budget, Caps
from agentrt.errors import BudgetExceeded
from agentrt.statistics import LedgerStatistics
from agentrt.turns import Line, Turns
from agentrt.usage import PICO, Usage
from agentrt.value import Value

_ZERO: Final = (0,) * len(DIMENSIONS)
_UNCAPPED: Final = Caps()
_NOTHING: Final = (-1,) * len(DIMENSIONS)


class Request(Value):
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
    are the accounts that requests on this one may use to the full (rule B8). `is_capped` says whether there is a
    budget here or around, `is_limit` whether the one here limits anything, be it only the time. `most` are the ordinary
    caps by dimension, for a count to look at and no more; `counts` are `spent` and `most` of the whole chain.
    """

    __slots__ = (
        "bounded", "chain", "claims", "closed", "counts", "full", "is_capped", "is_limit", "limits", "line", "most",
        "reserved", "scope", "spent", "wraps",
    )  # fmt: skip

    def __init__(self, scope: str, budget: Budget | None, parent: Account | None, wraps: Account | None = None) -> None:
        self.scope = scope
        self.chain: tuple[Account, ...] = (self, *(parent.chain if parent else ()))
        self.spent = [0] * len(DIMENSIONS)
        self.reserved = [0] * len(DIMENSIONS)
        around = parent.wraps if parent is not None else ()
        self.wraps: tuple[Account, ...] = around if wraps is None else (*around, wraps)
        self.is_capped: bool = budget is not None or (parent is not None and parent.is_capped)
        self.closed = False
        self.claims = 0
        self.line: Line | None = None
        caps = _UNCAPPED if budget is None else budget.caps
        self.is_limit = caps.is_limit
        self.full, self.bounded, self.limits, self.most = caps.full, caps.bounded, caps.limits, [*caps.most]
        self.counts: tuple[tuple[list[int], list[float]], ...] = (
            (self.spent, self.most),
            *(parent.counts if parent else ()),
        )

    def limit(self, budget: Budget) -> None:
        """Set the caps, never below what is spent and reserved, and open the account."""
        caps = budget.caps
        used = [spent + reserved for spent, reserved in zip(self.spent, self.reserved, strict=True)]
        if any(used):
            caps = caps.at_least(used)
        self.is_limit = caps.is_limit
        self.full, self.bounded, self.limits, self.most[:] = caps.full, caps.bounded, caps.limits, caps.most
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.most[:] = _NOTHING

    def caps(self, asking: Account) -> tuple[tuple[int, int], ...]:
        """Return the caps that a request on the account `asking` meets here."""
        return self.full if self in asking.wraps else self.bounded

    def refuses(self, asking: Account) -> bool:
        return self.closed and self not in asking.wraps

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
        self._is_open = budget is not None
        self._turns = Turns(self._decide, _deny)
        self._cached = self._cache_writes = self._reasoning = self._uncertain = 0

    def open(self, parent: Account, budget: Budget, scope: str, spent: Sequence[int] = ()) -> Account:
        """Open an account for one activation of a scope that has a budget of its own (rule B1).

        `spent` is what the scope had spent in an earlier process, which the accounts around know of already. The
        outermost budget of a run takes the root itself: nothing is spent outside of it.
        """
        if parent is self.root and scope == parent.scope and not self._is_open:
            account, self._is_open = parent, True
            account.limit(budget)
        else:
            account = Account(scope, budget, parent)
        if spent:
            account.spent[:] = spent
        return account

    def restore(self, spent: Sequence[int], usage: Usage) -> None:
        """Take over what the run has spent in an earlier process."""
        self.root.spent[:] = spent
        self._cached, self._cache_writes = usage.cached_tokens, usage.cache_write_tokens
        self._reasoning, self._uncertain = usage.reasoning_tokens, usage.uncertain

    def count(self, account: Account, dimensions: Sequence[int], path: str) -> None:
        """Spend one of each dimension on the whole chain at once (rule B2), or raise `BudgetExceeded`."""
        is_over = False
        for d in dimensions:
            for spent, most in account.counts:
                n = spent[d] = spent[d] + 1
                if n > most[d]:
                    is_over = True
        if is_over:
            _check_counted(account, dimensions, path)

    def request(self, account: Account, request: Request, path: str) -> Ticket:
        """Grant, queue or refuse a request; the ticket says which."""
        ticket = Ticket(account, request, path)
        self._decide(ticket)
        if ticket.waiting:
            self._turns.enter(ticket)
        elif ticket.granted is not None:
            self._turns.granted(ticket)
        return ticket

    def forfeit(self, ticket: Ticket) -> None:
        """Charge a granted reservation whole (rule B9), in the dimensions, too, that no usage tells of."""
        self._settle(ticket, self.worst_case(ticket), ticket.request.cost(ticket.granted or 0))

    def settle(self, ticket: Ticket, usage: Usage) -> bool:
        """Replace a granted reservation by what was used; return whether the bill was above it (rule B10).

        A bill above its reservation is charged in full and closes the accounts that cap what it overran.
        """
        return self._settle(ticket, usage, vector(usage))

    def _settle(self, ticket: Ticket, usage: Usage, used: Sequence[int]) -> bool:
        assert ticket.granted is not None, "only a granted reservation can be settled"
        assert not ticket.ended, "a reservation is settled once"
        held = ticket.request.cost(ticket.granted)
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
        """Open the account for wrapping up: it, and what is opened below it, may use what `account` holds back (B8)."""
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
        if _fits(request, asking):
            ticket.refused_by, ticket.granted = [], request.want
            _add(asking, request.cost(request.want), 1)
            return
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


def _fits(request: Request, asking: Account) -> bool:
    """Say whether there is room for all that a request wants, and nobody in front: true of most, and quick to see."""
    held = request.cost(request.want)
    for scope in asking.chain:
        if scope.claims or scope.closed:
            return False
        spent, reserved = scope.spent, scope.reserved
        for d, limit in scope.caps(asking):
            if spent[d] + reserved[d] + held[d] > limit:
                return False
    return True


def _add(account: Account, held: Sequence[int], sign: int) -> None:
    """Add to what is reserved on the whole chain, or take off."""
    amounts = [(d, sign * amount) for d, amount in enumerate(held) if amount]
    for scope in account.chain:
        reserved = scope.reserved
        for d, amount in amounts:
            reserved[d] += amount


def _check_counted(account: Account, dimensions: Sequence[int], path: str) -> None:
    """Take back what was counted and raise `BudgetExceeded`, unless the account may use what is held back (rule B8)."""
    for scope in account.chain:
        for d in dimensions:
            limit = dict(scope.caps(account)).get(d)
            if scope.refuses(account) or (limit is not None and scope.spent[d] > limit):
                _uncount(account, dimensions)
                raise _exceeded(scope, _overspent(scope, d) if scope.refuses(account) else d, 1, path)


def _uncount(account: Account, dimensions: Sequence[int]) -> None:
    for d in dimensions:
        for spent, _ in account.counts:
            spent[d] -= 1


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


def vector(usage: Usage) -> tuple[int, ...]:
    """Return a bill by dimension; a provider cannot give anything back."""
    read, written = max(0, usage.input_tokens), max(0, usage.output_tokens)
    return (max(0, usage.cost), read + written, read, written, 0, 0, 0)
