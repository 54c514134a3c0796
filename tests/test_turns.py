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

    def do(self, name: str, a: int, b: int, c: int) -> None:
        getattr(self, name)(a, b, c)

    def open(self, at: int, tokens: int, output: int) -> None:
        budget = Budget(
            tokens=tokens * 4 if tokens else None,
            output_tokens=output * 3 if output % 3 else None,
            on_exhausted="wrap_up" if output % 7 == 1 else "raise",
        )
        around = self.accounts[at % len(self.accounts)]
        wraps = output == 13
        self.accounts.append(
            self.book.wrapping_up(around) if wraps else self.book.open(around, budget, str(len(self.accounts)))
        )

    def request(self, at: int, prompt: int, shape: int) -> None:
        fixed, unit = [0] * 7, [0] * 7
        fixed[TOKENS] = fixed[INPUT] = prompt % 9
        unit[TOKENS] = unit[OUTPUT] = 1 + shape % 2
        floor, more, enough = shape % 5, shape // 2, shape % 11
        asked = Request(fixed, unit, floor=floor, want=floor + more, enough=enough)
        ticket = self.book.request(self.accounts[at % len(self.accounts)], asked, "p")
        number = len(self.tickets)
        ticket.notify = lambda: self.told.append(number)
        self.tickets.append(ticket)

    def settle(self, which: int, share: int, over: int) -> None:
        flying = [t for t in self.tickets if t.granted is not None and not t.ended]
        if flying:
            ticket = flying[which % len(flying)]
            held = ticket.request.cost(ticket.granted or 0)
            used = [amount * max(0, share - 20) // 80 for amount in held]
            extra = held[OUTPUT] + 1 if over == 7 else 0
            self.book.settle(ticket, Usage(input_tokens=used[INPUT], output_tokens=used[OUTPUT] + extra))

    def withdraw(self, which: int, b: int, c: int) -> None:
        if self.tickets:
            self.book.withdraw(self.tickets[which % len(self.tickets)])

    def close(self, at: int, really: int, c: int) -> None:
        if really > 30 and len(self.accounts) > 1:
            self.book.close(self.accounts[1 + at % (len(self.accounts) - 1)])

    def raise_limits(self, at: int, tokens: int, c: int) -> None:
        if len(self.accounts) > 1:
            self.book.raise_limits(self.accounts[1 + at % (len(self.accounts) - 1)], Budget(tokens=tokens * 4))

    def state(self) -> Any:
        return [(t.granted, t.refusal and t.refusal.scope, t.ended) for t in self.tickets]


AMOUNT = st.integers(0, 40)
NAMES = st.sampled_from(
    ["open", "request", "request", "request", "settle", "settle", "withdraw", "close", "raise_limits"]
)


@given(st.lists(st.tuples(NAMES, AMOUNT, AMOUNT, AMOUNT), min_size=30, max_size=80))
def test_the_same_requests_are_granted_as_if_everybody_were_decided_every_time(
    steps: list[tuple[str, int, int, int]],
) -> None:
    """B4-B7: which, how much, to whom denied, and in which order they are told."""
    fast, slow = World(naive=False), World(naive=True)
    for world in (fast, slow):
        for around, tokens in ((0, 12), (1, 7), (1, 6), (2, 4)):
            world.open(around, tokens, 0)
    for name, a, b, c in steps:
        for world in (fast, slow):
            world.told = []
            world.do(name, a, b, c)
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


def _ask(book: Ledger, account: Account, tokens: int) -> Ticket:
    fixed = [0] * 7
    fixed[TOKENS] = fixed[INPUT] = tokens
    return book.request(account, Request(fixed), "p")
