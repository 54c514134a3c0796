"""Statistics: what a run is doing at one moment, as frozen values."""

from __future__ import annotations

from agentrt.usage import Usage
from agentrt.value import Value


class LedgerStatistics(Value):
    """Hold what a run has spent, what is reserved for calls in flight, and how many requests wait for a reservation.

    `reserved_usd` is in dollars.
    """

    spent: Usage
    reserved_tokens: int
    reserved_usd: float
    waiting: int


class SchedulerStatistics(Value):
    """Hold how many steps work, wait in the queue for a slot, and wait for one to go on; steps that wait for others
    lend their slot and do not count as running."""

    running: int
    queued: int
    resuming: int


class RunStatistics(Value):
    """Hold what a run is doing now and has done so far.

    running, queued, resuming: steps that work, wait in the queue, and wait for a slot to go on.
    retries, rate_limit_waits, cache_hits, denials: how often each has happened. events: how many were recorded.
    ledger: what is spent, reserved and waited for.
    """

    run_id: str
    running: int
    queued: int
    resuming: int
    retries: int
    rate_limit_waits: int
    cache_hits: int
    denials: int
    events: int
    ledger: LedgerStatistics
