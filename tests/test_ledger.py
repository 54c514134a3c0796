"""The ledger: rules B1-B10 by cases, and its invariants under random interleavings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from agentrt import Budget, BudgetExceeded, Usage
from agentrt.budget import DIMENSIONS, INPUT, MODEL_CALLS, OUTPUT, STEPS, TOKENS, USD
from agentrt.ledger import Account, Ledger, Request, Ticket
from agentrt.usage import PICO
from tests.cases import cases


def tokens(prompt: int, want: int = 0, *, floor: int = 0, enough: int = 0) -> Request:
    """Ask for a prompt and up to `want` tokens of output."""
    fixed, unit = [0] * 7, [0] * 7
    fixed[TOKENS] = fixed[INPUT] = prompt
    unit[TOKENS] = unit[OUTPUT] = 1
    return Request(fixed, unit, floor=floor, want=want, enough=enough)


def used(prompt: int, output: int = 0, cost: int = 0) -> Usage:
    return Usage(input_tokens=prompt, output_tokens=output, cost=cost)


def ledger(**limits: Any) -> tuple[Ledger, Account]:
    book = Ledger("root", None)
    return book, book.open(book.root, Budget(**limits), "run")


def test_a_request_is_held_on_the_whole_chain_and_settled_at_what_was_used() -> None:
    """B1, B2: reserved at every account from the leaf to the root, then spent; the rest returns."""
    book, run = ledger(tokens=100)
    agent = book.open(run, Budget(tokens=60), "run/agent")
    ticket = book.request(agent, tokens(10, 40), "run/agent/chat")
    assert [a.reserved[TOKENS] for a in agent.chain] == [50, 50, 50]
    assert not book.settle(ticket, used(10, 5))
    assert [(a.reserved[TOKENS], a.spent[TOKENS]) for a in agent.chain] == [(0, 15)] * 3


def test_a_limit_is_a_cap_and_never_a_grant() -> None:
    """B1: an inner account may allow more than an outer one has."""
    book, run = ledger(tokens=20)
    agent = book.open(run, Budget(tokens=1000), "run/agent")
    assert book.request(agent, tokens(10, 100), "p").granted == 10


def test_two_openings_are_two_accounts() -> None:
    """B1: a limit opens an account per activation."""
    book, run = ledger()
    for _ in range(2):
        assert book.request(book.open(run, Budget(tokens=10), "run/agent"), tokens(10), "p").granted == 0


def test_counts_are_spent_at_once_and_on_all_accounts_or_none() -> None:
    """B2: a refused count leaves nothing behind."""
    book, run = ledger(steps=5)
    agent = book.open(run, Budget(model_calls=1), "run/agent")
    book.count(agent, (STEPS, MODEL_CALLS), "p")
    with pytest.raises(BudgetExceeded) as refused:
        book.count(agent, (STEPS, MODEL_CALLS), "run/agent/chat#2")
    assert (refused.value.scope, refused.value.dimension) == ("run/agent", "model_calls")
    assert run.spent[STEPS] == 1


def test_a_request_is_clamped_to_the_room_if_that_is_enough() -> None:
    """B5: at once, without waiting for what is in flight."""
    book, run = ledger(tokens=1000)
    book.request(run, tokens(0, 400), "p")
    assert book.request(run, tokens(0, 4096, enough=512), "q").granted == 600


def test_a_request_waits_if_the_room_is_not_enough() -> None:
    """B5, B7: settling lets it in."""
    book, run = ledger(tokens=1000)
    first = book.request(run, tokens(0, 600), "p")
    second = book.request(run, tokens(0, 4096, enough=512), "q")
    assert second.waiting
    book.settle(first, used(0, 100))
    assert second.granted == 900


def test_a_request_does_not_wait_for_more_than_waiting_could_give() -> None:
    """B5: all that waiting could give is enough, however little that is."""
    book, run = ledger(tokens=100)
    assert book.request(run, tokens(0, 4096, floor=16, enough=512), "p").granted == 100


def test_a_request_below_its_floor_waits_and_is_then_denied() -> None:
    """B4: only when it would not fit even with everything in flight returned."""
    book, run = ledger(tokens=100)
    first = book.request(run, tokens(0, 90, floor=90), "p")
    second = book.request(run, tokens(0, 50, floor=16), "q")
    assert second.waiting
    book.settle(first, used(0, 90))
    assert second.refusal is not None
    assert (second.refusal.spent, second.refusal.needed, second.refusal.limit) == (90, 16, 100)


def test_a_denial_names_the_innermost_account() -> None:
    """B4: of all that refuse, the one nearest to the step."""
    book, run = ledger(tokens=10)
    agent = book.open(run, Budget(tokens=10), "run/agent")
    refusal = book.request(agent, tokens(11), "run/agent/chat").refusal
    assert refusal is not None
    assert (refusal.scope, refusal.path, refusal.dimension) == ("run/agent", "run/agent/chat", "tokens")


def test_money_is_exact_and_told_in_dollars() -> None:
    """B3: whole pico-dollars inside, dollars in the message."""
    book, run = ledger(usd=0.3)
    fixed = [0] * 7
    fixed[USD] = PICO // 10
    for _ in range(3):
        book.settle(book.request(run, Request(fixed), "p"), used(0, 0, PICO // 10))
    refusal = book.request(run, Request(fixed), "p").refusal
    assert refusal is not None
    assert (refusal.spent, refusal.needed, refusal.limit) == (0.3, 0.1, 0.3)
    assert "0.3 of 0.3 usd" in str(refusal)


def test_nobody_passes_who_needs_a_claimed_account() -> None:
    """B6: a small request behind a large one that waits has to wait as well."""
    book, run = ledger(tokens=100)
    held = book.request(run, tokens(60), "a")
    large, small = book.request(run, tokens(80), "b"), book.request(run, tokens(10), "c")
    assert large.waiting
    assert small.waiting
    book.settle(held, used(5))
    assert (large.granted, small.granted) == (0, 0)


def test_who_needs_no_claimed_account_passes() -> None:
    """B6: one agent that waits for itself stops nobody else."""
    book, run = ledger(tokens=1000)
    one, other = (book.open(run, Budget(tokens=100), f"run/{n}") for n in ("one", "other"))
    book.request(one, tokens(60), "a")
    assert book.request(one, tokens(80), "b").waiting
    assert book.request(other, tokens(80), "c").granted == 0


def test_withdrawing_lets_the_next_in() -> None:
    """B7: whether it waited or was granted."""
    book, run = ledger(tokens=100)
    granted, waiting, last = (book.request(run, tokens(n), "p") for n in (60, 80, 30))
    book.withdraw(waiting)
    assert last.granted == 0
    book.withdraw(granted)
    assert run.reserved[TOKENS] == 30


def test_whoever_waits_is_told_once() -> None:
    """A ticket's `notify` is called when it is decided, not before."""
    book, run = ledger(tokens=100)
    held, waiting = book.request(run, tokens(60), "a"), book.request(run, tokens(80), "b")
    told: list[bool] = []
    waiting.notify = lambda: told.append(waiting.waiting)
    book.settle(held, used(10))
    assert told == [False]


def test_an_unknown_bill_costs_the_whole_reservation() -> None:
    """B9: marked uncertain."""
    book, run = ledger(tokens=100)
    ticket = book.request(run, tokens(10, 40), "p")
    book.settle(ticket, book.worst_case(ticket))
    assert (book.usage().tokens, book.usage().uncertain) == (50, 50)


def test_an_overrun_is_charged_in_full_and_closes_the_account() -> None:
    """B10: and whoever waits there is refused."""
    book, run = ledger(tokens=100)
    ticket, waiting = book.request(run, tokens(50), "p"), book.request(run, tokens(60), "q")
    assert book.settle(ticket, used(51))
    assert run.spent[TOKENS] == 51
    assert waiting.refusal is not None
    with pytest.raises(BudgetExceeded):
        book.count(run, (STEPS,), "r")


@pytest.mark.parametrize("budget", [Budget(), Budget(tokens=100)])
def test_a_closed_account_refuses_everything(budget: Budget) -> None:
    """B7: with or without limits, requests and counts alike."""
    book = Ledger("root", None)
    run = book.open(book.root, budget, "run")
    book.close(run)
    assert book.request(run, tokens(1), "p").refusal is not None
    with pytest.raises(BudgetExceeded):
        book.count(run, (STEPS,), "p")


def test_closing_refuses_whoever_waits() -> None:
    """B7: at once, and it is told."""
    book, run = ledger(tokens=100)
    held, waiting = book.request(run, tokens(60), "a"), book.request(run, tokens(80), "b")
    book.close(run)
    assert waiting.refusal is not None
    assert not book.settle(held, used(60))


def test_what_is_held_back_is_for_the_own_wrap_up_alone() -> None:
    """B8: to accounts around, what wraps up a scope within is an ordinary request."""
    book = Ledger("root", None)
    halves = Budget(tokens=100, on_exhausted="wrap_up", hold_back=0.5)
    run = book.open(book.root, halves, "run")
    agent = book.open(run, halves, "run/agent")
    assert book.request(agent, tokens(51), "p").refusal is not None
    refused = book.request(book.wrapping_up(agent), tokens(51), "p").refusal
    assert refused is not None
    assert refused.scope == "run"
    assert book.request(book.wrapping_up(run), tokens(51), "p").granted is not None


def test_statistics_tell_what_waits_and_is_reserved() -> None:
    """For people who wonder why nothing moves."""
    book, run = ledger(tokens=100)
    book.request(run, tokens(60), "a")
    book.request(run, tokens(80), "b")
    now = book.statistics()
    assert (now.waiting, now.reserved_tokens, now.reserved_usd, now.spent) == (1, 60, 0.0, Usage())
    assert repr(run) == "<Account 'run' tokens 0+60/100>"


def _limit(byte: int) -> int | None:
    return byte % 100 if byte % 3 else None


def _claimed(waiting: Sequence[Ticket], free: Sequence[Ticket] = ()) -> set[Account]:
    """Return the accounts that refuse somebody who waits (B5, B6), while what `free` were granted is still free."""
    return {account for ticket in waiting for account in _refusing(ticket, free)}


def _refusing(ticket: Ticket, free: Sequence[Ticket]) -> set[Account]:
    request = ticket.request
    caps = [(account, d, cap) for account in ticket.account.chain for d, cap in account.caps(ticket.account)]
    ever = [(cap - a.spent[d] - request.fixed[d]) // request.unit[d] for a, d, cap in caps if request.unit[d]]
    enough = request.cost(max(request.floor, min(request.enough, request.want, *ever)))
    held = [(t.account.chain, t.request.cost(t.granted or 0)) for t in free]
    return {
        a
        for a, d, cap in caps
        if a.spent[d] + a.reserved[d] - sum(cost[d] for chain, cost in held if a in chain) + enough[d] > cap
    }


class World:
    """Hold a ledger with nested accounts, what was done with it, and what must be true of it at every moment."""

    def __init__(self) -> None:
        self.book = Ledger("root", None)
        run = self.book.open(self.book.root, Budget(tokens=100), "run")
        agents = [self.book.open(run, Budget(tokens=most), f"run/{most}") for most in (80, 60)]
        self.accounts = [self.book.root, run, *agents]
        self.tickets: list[Ticket] = []  # in order of arrival
        self.bills: dict[Account, list[int]] = {a: [0] * 7 for a in self.accounts}
        self.overrun: set[Account] = set()
        self.closed: set[Account] = set()
        self.order: list[Ticket] = []

    @property
    def flying(self) -> list[Ticket]:
        return [t for t in self.tickets if t.granted is not None and not t.ended]

    @property
    def waiting(self) -> list[Ticket]:
        return [t for t in self.tickets if t.waiting]

    def open(self, at: int, total: int, output: int, usd: int, steps: int, kept: int) -> None:
        money = _limit(usd)
        budget = Budget(
            tokens=_limit(total),
            output_tokens=_limit(output),
            usd=None if money is None else money / PICO,
            steps=None if steps % 2 else steps % 5,
        )
        if kept % 2:
            budget = replace(budget, on_exhausted="wrap_up", hold_back=kept / 256)
        parent = self.accounts[at % len(self.accounts)]
        self._add(self.book.open(parent, budget, f"{parent.scope}/{len(self.accounts)}"))

    def wrap_up(self, at: int) -> None:
        """B8: an account of its own may use what another holds back."""
        self._add(self.book.wrapping_up(self.accounts[at % len(self.accounts)]))

    def _add(self, account: Account) -> None:
        self.accounts.append(account)
        self.bills[account] = [0] * 7

    def raise_limits(self, at: int, tokens: int, other: int) -> None:
        """B11, E5: limits change, the account opens again, and whoever waits is looked at again."""
        account = self._limited(at)
        more = {TOKENS: tokens % 80 - 20}
        caps = {d: max(0, limit + more.get(d, other % 60)) for d, limit in account.full}
        raised = {DIMENSIONS[d]: limit / PICO if d == USD else limit for d, limit in caps.items()}
        self.closed.discard(account)
        self.overrun.discard(account)
        waiting = self._observed()
        self.book.raise_limits(account, Budget(**raised))  # type: ignore[arg-type]
        self._check_order(waiting)

    def request(self, at: int, prompt: int, floor: int, more: int, enough: int, rate: int) -> None:
        floor, rate = floor % 10, rate % 3
        base = tokens(prompt % 16, floor + more % 20, floor=floor, enough=enough % 20)
        fixed, unit = list(base.fixed), list(base.unit)
        fixed[USD], unit[USD] = fixed[TOKENS] * rate, rate
        request = Request(fixed, unit, floor=base.floor, want=base.want, enough=base.enough)
        account = self.accounts[at % len(self.accounts)]
        claimed = _claimed(self.waiting)
        ticket = self.book.request(account, request, "p")
        if ticket.granted is not None:
            assert not claimed & set(account.chain), "overtook somebody (5)"
            assert not self._closed_to(account)
            assert floor <= ticket.granted <= request.want
        self._check_denial(ticket)
        self.tickets.append(ticket)

    def settle(self, which: int, share: int) -> None:
        """Bill nothing every other time, so that what is left is waited for and not just gone."""
        if self.flying:
            ticket = self.flying[which % len(self.flying)]
            granted = ticket.granted or 0
            self._end(ticket, ticket.request.cost(granted * (share % 4) // 3) if share % 2 else [0] * 7)

    def overrun_by(self, which: int, extra: int) -> None:
        if self.flying and extra % 4 == 1:
            ticket = self.flying[which % len(self.flying)]
            cost = ticket.request.cost(ticket.granted or 0)
            for d in (TOKENS, OUTPUT):
                cost[d] += extra
                self.overrun |= {a for a in ticket.account.chain if a.limits[d] is not None}
            self._end(ticket, cost, overrun=True)

    def withdraw(self, which: int) -> None:
        if self.tickets:
            waiting = self._observed()
            self.book.withdraw(self.tickets[which % len(self.tickets)])
            self._check_order(waiting)

    def count(self, at: int, dimension: int) -> None:
        account, dimension = self.accounts[at % len(self.accounts)], (STEPS, MODEL_CALLS)[dimension % 2]
        before = [list(a.spent) for a in self.accounts]
        try:
            self.book.count(account, (dimension,), "p")
        except BudgetExceeded:
            assert before == [a.spent for a in self.accounts]
            full = any(d == dimension and a.spent[d] >= cap for a in account.chain for d, cap in a.caps(account))
            assert full or self._closed_to(account)
        else:
            assert not self._closed_to(account)
            self._bill(account, [int(d == dimension) for d in range(7)])

    def close(self, at: int, really: int) -> None:
        if really % 4 == 1:
            account = self._limited(at)
            self.closed.add(account)
            waiting = self._observed()
            self.book.close(account)
            self._check_order(waiting)

    def rest(self) -> None:
        """(6): at rest nothing is reserved and nobody waits."""
        while self.flying:
            self._end(self.flying[0], [0] * 7)
        assert not self.waiting
        assert all(a.reserved == [0] * 7 for a in self.accounts)

    def _limited(self, at: int) -> Account:
        return self.accounts[1 + at % (len(self.accounts) - 1)]

    def _end(self, ticket: Ticket, cost: Sequence[int], *, overrun: bool = False) -> None:
        waiting = self._observed()
        usage = Usage(input_tokens=cost[INPUT], output_tokens=cost[OUTPUT], cost=cost[USD])
        self._bill(ticket.account, cost)
        assert self.book.settle(ticket, usage) == overrun
        self._check_order(waiting)

    def _bill(self, account: Account, cost: Sequence[int]) -> None:
        for scope in account.chain:
            self.bills[scope] = [a + b for a, b in zip(self.bills[scope], cost, strict=True)]

    def _observed(self) -> list[Ticket]:
        """Return who waits, and note whom the ledger tells of a decision."""
        self.order = []
        waiting = self.waiting
        for ticket in waiting:
            ticket.notify = lambda t=ticket: self.order.append(t)  # type: ignore[misc]
        return waiting

    def _check_order(self, waiting: list[Ticket]) -> None:
        """(5): whoever was let in passed nobody who then waited for an account of its chain; all are told once.

        While who waits is decided, nothing is spent and more and more is reserved, so whoever is refused stays
        refused, and whoever is let in comes in order of arrival. So at each one's turn, what it and those after it
        hold was still free; what those before it hold was taken, and may have made somebody in front claim more.
        """
        assert self.order == [t for t in waiting if not t.waiting and not t.ended]
        for ticket in waiting:
            self._check_denial(ticket)
        let_in = [t for t in waiting if t.granted is not None and not t.ended]
        for i, ticket in enumerate(let_in):
            in_front = [t for t in waiting[: waiting.index(ticket)] if t.waiting]
            assert not _claimed(in_front, free=let_in[i:]) & set(ticket.account.chain), "overtook somebody (5)"

    def _closed(self) -> set[Account]:
        return self.overrun | self.closed

    def _closed_to(self, asking: Account) -> set[Account]:
        return self._closed() & set(asking.chain) - set(asking.wraps)

    def _check_denial(self, ticket: Ticket) -> None:
        """(4): B4 holds, or an account is closed."""
        if ticket.refusal is None:
            return
        least = ticket.request.cost(ticket.request.floor)
        chain = ticket.account.chain
        never = any(a.spent[d] + least[d] > cap for a in chain for d, cap in a.caps(ticket.account))
        assert never or self._closed_to(ticket.account)

    def never_above_a_limit(self) -> None:
        """(1), as long as bills stay within their reservations."""
        for account in set(self.accounts) - self.overrun:
            for d, limit in enumerate(account.limits):
                assert limit is None or account.spent[d] + account.reserved[d] <= limit, DIMENSIONS[d]

    def what_is_held_back_is_for_wrapping_up(self) -> None:
        """(1): requests that do not wrap up an account leave what it holds back alone."""
        for account in set(self.accounts) - self.overrun:
            wrapping = [a for a in self.accounts if account in a.wraps and a.chain[1] is account]
            for d, cap in account.bounded:
                used = account.spent[d] + account.reserved[d]
                assert used - sum(a.spent[d] + a.reserved[d] for a in wrapping) <= cap

    def reserved_is_in_flight_and_spent_is_the_bill(self) -> None:
        """(2)"""
        for account in self.accounts:
            held = [t.request.cost(t.granted or 0) for t in self.flying if account in t.account.chain]
            assert account.reserved == [sum(column) for column in zip([0] * 7, *held, strict=True)]
            assert account.spent == self.bills[account]

    def who_waits_waits_for_something(self) -> None:
        """(3): an account refuses, or somebody in front claims one; something is in flight on each that refuses."""
        waiting = self.waiting
        for i, ticket in enumerate(waiting):
            refusing = _claimed([ticket])
            assert refusing or _claimed(waiting[:i]) & set(ticket.account.chain)
            for account in refusing:
                assert any(account in t.account.chain for t in self.flying)

    def claims_are_those_of_who_waits(self) -> None:
        """B6: every waiting request claims the accounts that refuse it, and nothing else is claimed."""
        for account in self.accounts:
            assert account.claims == sum(account in t.refused_by for t in self.waiting)

    def nobody_waits_at_a_closed_account(self) -> None:
        """B7, B10: closing, by hand or by an overrun, refuses whoever waits there."""
        assert {a for a in self.accounts if a.closed} == self._closed()
        assert not any(self._closed_to(ticket.account) for ticket in self.waiting)


RULES = [
    *[World.request] * 6,
    *[World.settle] * 4,
    World.open,
    World.wrap_up,
    World.withdraw,
    World.count,
    World.raise_limits,
    World.overrun_by,
    World.close,
]
INVARIANTS = [
    World.never_above_a_limit,
    World.what_is_held_back_is_for_wrapping_up,
    World.reserved_is_in_flight_and_spent_is_the_bill,
    World.who_waits_waits_for_something,
    World.claims_are_those_of_who_waits,
    World.nobody_waits_at_a_closed_account,
]


@cases(50)
@given(st.binary(min_size=140, max_size=560))
def test_the_invariants_hold_whatever_is_asked_for_in_whatever_order(script: bytes) -> None:
    """Seven bytes are one rule: hypothesis draws them many times as fast as the arguments one by one."""
    world = World()
    for what, *drawn in zip(*[iter(script)] * 7, strict=False):
        rule = RULES[what % len(RULES)]
        arguments = drawn[: rule.__code__.co_argcount - 1]
        note(f"{rule.__name__}{tuple(arguments)}")
        rule(world, *arguments)
        for holds in INVARIANTS:
            holds(world)
    world.rest()
