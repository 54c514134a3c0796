"""Reservations: what a leaf was granted, until it says what it used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrt.events import BudgetOverrun, UsageRecorded, UsageReserved
from agentrt.node import Reservation
from agentrt.usage import Usage

if TYPE_CHECKING:
    from agentrt.ledger import Ticket
    from agentrt.scheduler import Scheduler


class StepReservation(Reservation):
    """Hold a granted ticket of the ledger."""

    def __init__(self, scheduler: Scheduler, ticket: Ticket) -> None:
        assert ticket.granted is not None
        self.granted = ticket.granted
        self._scheduler = scheduler
        self._ticket = ticket

    @property
    def held(self) -> bool:
        """Say whether the reservation still waits to be ended."""
        return not self._ticket.ended

    def settle(self, usage: Usage) -> None:
        scheduler, ticket = self._scheduler, self._ticket
        if scheduler.ledger.settle(ticket, usage):
            reserved = scheduler.ledger.worst_case(ticket).tokens
            scheduler.record(
                BudgetOverrun(path=ticket.path, at=scheduler.clock(), reserved=reserved, billed=usage.tokens)
            )
        scheduler.record(UsageRecorded(path=ticket.path, at=scheduler.clock(), usage=usage))

    async def make_durable(self, counts: tuple[str, ...]) -> None:
        """Record what may be spent, and wait until that is kept: once it is spent, nobody may be there to tell."""
        scheduler, path = self._scheduler, self._ticket.path
        scheduler.record(
            UsageReserved(
                path=path, at=scheduler.clock(), usage=scheduler.ledger.worst_case(self._ticket), counts=counts
            )
        )
        try:
            if scheduler.flush is not None:
                await scheduler.flush()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        scheduler, ticket = self._scheduler, self._ticket
        scheduler.ledger.withdraw(ticket)
        if scheduler.is_recorded:
            scheduler.record(UsageRecorded(path=ticket.path, at=scheduler.clock(), usage=Usage()))

    def forfeit(self) -> None:
        scheduler, ticket = self._scheduler, self._ticket
        scheduler.ledger.forfeit(ticket)
        usage = scheduler.ledger.worst_case(ticket)
        scheduler.record(UsageRecorded(path=ticket.path, at=scheduler.clock(), usage=usage))
