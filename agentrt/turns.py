"""Turns: who waits for a reservation, in order of arrival, and whose turn a change has made it.

To decide everybody again at every settlement would cost as much as there are who wait. Three facts save that:

- An account that is claimed stops everybody behind the claimant who passes through it. So a line is decided again
  from its head, and only until somebody waits for the very account whose line it is.
- An account with room for the largest request in its line refuses nobody there. As long as nobody has claimed it
  either, it matters to none of them, and only lines further in can have changed.
- Whether a request can ever be granted (rule B4) depends on what is spent, not on who waits. The largest floor in a
  line tells whether anybody there can have become hopeless.

Claims are always those of the present moment: a grant that leaves an account short for somebody who waits has the
line decided again (rule B6). `tests/test_turns.py` compares all this with deciding everybody, every time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentrt.ledger import Account, Ticket


class Line:
    """Hold who waits on one account or below it.

    `claiming` are those who claim any account. `least` and `enough` are, in each dimension, no less than what anybody
    in the line needs at least, and needs so as not to wait.
    """

    __slots__ = ("claiming", "enough", "least", "tickets")

    def __init__(self, dimensions: int) -> None:
        self.tickets: OrderedDict[Ticket, None] = (
            OrderedDict()
        )  # a dict is slow to find its first entry, once many have left
        self.claiming: dict[Ticket, None] = {}
        self.least = [0] * dimensions
        self.enough = [0] * dimensions

    def enter(self, ticket: Ticket, least: Sequence[int], enough: Sequence[int]) -> None:
        self.tickets[ticket] = None
        self.least = [*map(max, self.least, least)]
        self.enough = [*map(max, self.enough, enough)]

    def measure(self) -> None:
        """Measure again who is here, since the largest may have left."""
        least, enough = zip(*map(_needs, self.tickets), strict=True)
        self.least, self.enough = [*map(max, *least, least[0])], [*map(max, *enough, enough[0])]


def _needs(ticket: Ticket) -> tuple[list[int], list[int]]:
    """Return what a request needs at least, and what it needs so as not to wait, unless even waiting gave less."""
    request = ticket.request
    return request.cost(request.floor), request.cost(max(request.floor, min(request.enough, request.want)))


class Turns:
    """Keep who waits, and decide again those whom a change can have reached.

    `decide` grants, refuses or leaves waiting, and names the accounts that refuse in `ticket.refused_by`; `deny`
    sets the refusal of a request that can never be granted.
    """

    def __init__(self, decide: Callable[[Ticket], None], deny: Callable[[Ticket], None]) -> None:
        self._decide = decide
        self._deny = deny
        self._arrivals = 0
        self.waiting = 0

    def enter(self, ticket: Ticket) -> None:
        """Let a new request wait behind all others."""
        self._arrivals += 1
        self.waiting += 1
        ticket.turn = self._arrivals
        least, enough = _needs(ticket)
        for account in ticket.account.chain:
            if account.line is None:
                account.line = Line(len(account.spent))
            account.line.enter(ticket, least, enough)
        _claim(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Let somebody go who waits no more."""
        self.waiting -= 1
        _unclaim(ticket)
        for account in ticket.account.chain:
            line = account.line
            assert line is not None, "who leaves has entered"
            del line.tickets[ticket]
            if not line.tickets:
                account.line = None

    def granted(self, ticket: Ticket) -> None:
        """Take note of a new request that was granted at once: it may have left an account short (rule B6)."""
        level = _outermost(ticket.account, short) if self.waiting else None
        if level is not None:
            self._let_in(level)

    def examine(self, account: Account, *, leaving: Ticket | None = None, raised: bool = False) -> None:
        """Decide again after a change to the account and those around it, and tell whom it decided (rule B7).

        `leaving` is somebody who gives up waiting; `raised` says that limits are higher than before. The level is
        found while their claims still stand, and those of whoever is denied.
        """
        if not self.waiting:
            return
        level = _outermost(account, _matters) or (account if raised else None)
        if leaving is not None:
            self.leave(leaving)
        decided = self._turn_away(account)
        if level is not None:
            decided += self._let_in(level)
        for ticket in sorted(decided, key=lambda t: t.turn):
            ticket.notify()

    def _turn_away(self, account: Account) -> list[Ticket]:
        """Deny who can never be granted, and return them.

        An account that makes somebody hopeless is short, too, so that the level found before is no further in; and
        where it is closed instead, it refuses everybody who might have waited behind one of them further in.
        """
        denied: list[Ticket] = []
        for scope in account.chain:
            if (line := scope.line) is None or not _hopeless(scope, line):
                continue
            for ticket in list(line.tickets):
                self._deny(ticket)
                if not ticket.waiting:
                    denied.append(ticket)
                    self.leave(ticket)
            if line.tickets:
                line.measure()
        return denied

    def _let_in(self, level: Account) -> list[Ticket]:
        """Decide a line again from its head, and a wider one as soon as that runs short; return whom it decided."""
        decided: list[Ticket] = []
        again: Account | None = level
        while again is not None and (line := again.line) is not None:
            for ticket in list(line.claiming):
                _unclaim(ticket)
            done, again = self._pass(again, line)
            for ticket in done:
                self.leave(ticket)
            decided += done
        return decided

    def _pass(self, level: Account, line: Line) -> tuple[list[Ticket], Account | None]:
        """Decide one line in order; return whom it decided, and where to begin again if a grant has left it short."""
        done: list[Ticket] = []
        for ticket in line.tickets:
            self._decide(ticket)
            if not ticket.waiting:
                done.append(ticket)
                if (wider := _outermost(ticket.account, short)) is not None:
                    return done, wider if wider in level.chain else level
                continue
            _claim(ticket)
            if level in ticket.refused_by:
                return done, None
        if len(done) < len(line.tickets):
            line.measure()
        return done, None


def _outermost(account: Account, holds: Callable[[Account, Line], bool]) -> Account | None:
    """Return the outermost account around this one that has a line and of which this holds."""
    return next((s for s in reversed(account.chain) if s.line is not None and holds(s, s.line)), None)


def _matters(account: Account, line: Line) -> bool:
    """Say whether somebody in the line can wait for this very account."""
    return account.claims > 0 or short(account, line)


def short(account: Account, line: Line) -> bool:
    """Say whether the account can refuse somebody in its line as things are."""
    spent, reserved, enough = account.spent, account.reserved, line.enough
    return any(spent[d] + reserved[d] + enough[d] > limit for d, limit in account.bounded)


def _hopeless(account: Account, line: Line) -> bool:
    """Say whether somebody in the line can have become hopeless."""
    return account.closed or any(account.spent[d] + line.least[d] > limit for d, limit in account.bounded)


def _claim(ticket: Ticket) -> None:
    if not ticket.refused_by:
        return
    for account in ticket.refused_by:
        account.claims += 1
    for account in ticket.account.chain:
        assert account.line is not None, "who claims has entered"
        account.line.claiming[ticket] = None


def _unclaim(ticket: Ticket) -> None:
    if not ticket.refused_by:
        return
    for account in ticket.refused_by:
        account.claims -= 1
    for account in ticket.account.chain:
        assert account.line is not None, "who claims has entered"
        del account.line.claiming[ticket]
    ticket.refused_by = []
