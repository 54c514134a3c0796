"""Turns: whose turn it is, found without deciding everybody, every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentrt import Budget, Usage
from agentrt.budget import INPUT, OUTPUT, TOKENS
from agentrt.ledger import Account, Ledger, Request, Ticket, _deny
from agentrt.turns import Turns
from tests.cases import cases


class Everybody(Turns):
    """Decide everybody anew after every change and every grant: slow, and obviously rule B6."""

    def __init__(self, decide: Callable[[Ticket], None]) -> None:
        super().__init__(decide, _deny)
        self.queue: list[Ticket] = []

    def enter(self, ticket: Ticket) -> None:
        self.queue.append(ticket)
        self._again()

    def granted(self, ticket: Ticket) -> None:
        self._again()

    def examine(self, account: Account, *, leaving: Ticket | None = None, raised: bool = False) -> None:
        self._again()

    def _again(self) -> None:
        """Drop every claim and decide in order of arrival, from the first again after each grant."""
        while any(self._decided(t) for t in self._unclaimed()):
            pass

    def _unclaimed(self) -> list[Ticket]:
        for ticket in self.queue:
            for account in ticket.refused_by:
                account.claims = 0
            ticket.refused_by = []
        self.queue = [t for t in self.queue if t.waiting]
        return self.queue

    def _decided(self, ticket: Ticket) -> bool:
        self._decide(ticket)
        if not ticket.waiting:
            ticket.notify()
        for account in ticket.refused_by:
            account.claims += 1
        return ticket.granted is not None


class World:
    """Hold one ledger and what was done with it."""

    def __init__(self, naive: bool) -> None:
        self.book = Ledger("root", None)
        if naive:
            self.book._turns = Everybody(self.book._decide)
        self.accounts = [self.book.root]
        self.tickets: list[Ticket] = []
        self.told: list[int] = []
        for around, tokens in ((0, 12), (1, 7), (1, 6), (2, 4)):
            self.open(around, tokens, 0)

    def do(self, what: int, a: int, b: int, c: int) -> None:
        self.told = []
        ACTIONS[what % len(ACTIONS)](self, a, b, c)

    def open(self, at: int, tokens: int, output: int) -> None:
        budget = Budget(
            tokens=tokens % 16 * 4 or None,
            output_tokens=output % 40 * 3 if output % 3 else None,
            on_exhausted="wrap_up" if output % 7 == 1 else "raise",
        )
        around = self.accounts[at % len(self.accounts)]
        wraps = output % 41 == 13
        self.accounts.append(
            self.book.wrapping_up(around) if wraps else self.book.open(around, budget, str(len(self.accounts)))
        )

    def request(self, at: int, prompt: int, shape: int) -> None:
        fixed, unit = [0] * 7, [0] * 7
        fixed[TOKENS] = fixed[INPUT] = prompt % 9
        unit[TOKENS] = unit[OUTPUT] = 1 + shape % 2
        floor, more, enough = shape % 5, shape // 2 % 20, shape % 11
        asked = Request(fixed, unit, floor=floor, want=floor + more, enough=enough)
        ticket = self.book.request(self.accounts[at % len(self.accounts)], asked, "p")
        number = len(self.tickets)
        ticket.notify = lambda: self.told.append(number)
        self.tickets.append(ticket)

    def settle(self, which: int, share: int, over: int) -> None:
        """Bill nothing every other time, so that what is left is fought for and not just gone."""
        flying = [t for t in self.tickets if t.granted is not None and not t.ended]
        if flying:
            ticket = flying[which % len(flying)]
            held = ticket.request.cost(ticket.granted or 0)
            used = [amount * (share % 4) // 3 if share < 128 else 0 for amount in held]
            extra = held[OUTPUT] + 1 if over % 41 == 7 else 0
            self.book.settle(ticket, Usage(input_tokens=used[INPUT], output_tokens=used[OUTPUT] + extra))

    def withdraw(self, which: int, b: int, c: int) -> None:
        if self.tickets:
            self.book.withdraw(self.tickets[which % len(self.tickets)])

    def close(self, at: int, really: int, c: int) -> None:
        if really % 5 == 0:
            self.book.close(self._limited(at))

    def raise_limits(self, at: int, more: int, c: int) -> None:
        account = self._limited(at)
        self.book.raise_limits(account, Budget(tokens=account.spent[TOKENS] + more % 50))

    def _limited(self, at: int) -> Account:
        return self.accounts[1 + at % (len(self.accounts) - 1)]

    def state(self) -> Any:
        return [(t.granted, t.refusal and t.refusal.scope, t.ended) for t in self.tickets]


ACTIONS = [
    *[World.request] * 7,
    *[World.settle] * 4,
    World.open,
    World.withdraw,
    World.close,
    World.raise_limits,
]


@cases(50)
@given(st.binary(min_size=120, max_size=480))
def test_the_same_requests_are_granted_as_if_everybody_were_decided_every_time(script: bytes) -> None:
    """B4-B7: which, how much, to whom denied, and in which order they are told.

    Four bytes are one step: lists of tuples take five times as long to draw.
    """
    fast, slow = World(naive=False), World(naive=True)
    for what, a, b, c in zip(*[iter(script)] * 4, strict=False):
        fast.do(what, a, b, c)
        slow.do(what, a, b, c)
        assert fast.state() == slow.state()
        assert fast.told == slow.told


def test_a_grant_that_leaves_an_outer_account_short_counts_for_who_waits_elsewhere() -> None:
    """B6: whoever waits for an account of its own now claims the run's, too, and nobody later passes."""
    book = Ledger("root", None)
    run = book.open(book.root, Budget(tokens=85), "run")
    one, other = (book.open(run, Budget(tokens=limit), str(limit)) for limit in (20, 60))
    _, flying = _ask(book, one, 15), _ask(book, other, 10)
    first, second = _ask(book, one, 20), _ask(book, other, 58)
    book.settle(flying, Usage())
    assert (first.waiting, second.granted) == (True, 0)
    assert _ask(book, run, 5).waiting


def test_who_can_never_be_granted_is_denied_at_once_even_behind_somebody_who_waits() -> None:
    """B7: nobody waits for a turn that will not help."""
    book = Ledger("root", None)
    run = book.open(book.root, Budget(tokens=100), "run")
    spender, _ = _ask(book, run, 30), _ask(book, run, 60)
    first, hopeless = _ask(book, run, 50), _ask(book, run, 75)
    book.settle(spender, Usage(input_tokens=30))
    assert first.waiting
    assert hopeless.refusal is not None


def test_who_waited_behind_a_denied_claimant_is_let_in() -> None:
    """B7: where the claim was, though that is not where the money went."""
    book = Ledger("root", None)
    run = book.open(book.root, Budget(tokens=100), "run")
    one, other = (book.open(run, Budget(tokens=80), name) for name in ("one", "other"))
    _, spender = _ask(book, one, 20), _ask(book, other, 40)
    claimant, behind = _ask(book, one, 70), _ask(book, one, 10)
    assert behind.waiting
    book.settle(spender, Usage(input_tokens=40))
    assert claimant.refusal is not None
    assert behind.granted == 0


def _ask(book: Ledger, account: Account, tokens: int) -> Ticket:
    fixed = [0] * 7
    fixed[TOKENS] = fixed[INPUT] = tokens
    return book.request(account, Request(fixed), "p")
