"""The result: how a run stopped, and what there is of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from agentrt.budget import Budget
from agentrt.errors import BudgetExceeded, Waiting
from agentrt.plan import Failure, Parked

if TYPE_CHECKING:
    from agentrt.runs import Run

T = TypeVar("T")


class StopReason(StrEnum):
    """Say why a run stopped."""

    DONE = "done"
    WRAPPED_UP = "wrapped_up"
    PARTIAL = "partial"
    FAILED = "failed"
    BUDGET_EXCEEDED = "budget_exceeded"
    CANCELLED = "cancelled"
    WAITING = "waiting"


class Result(Generic[T]):
    """Hold a stopped run.

    usage: what it spent. stop_reason: why it stopped. dropped: the failures that joins dropped.
    partial: what had been done, if its budget was exhausted.
    """

    def __init__(
        self,
        run: Run,
        output: T | None,
        *,
        stop_reason: StopReason,
        dropped: Sequence[Failure] = (),
        denial: BudgetExceeded | None = None,
        waits: Parked | None = None,
    ) -> None:
        self._waits = waits
        self.run_id = run.run_id
        self.usage = run.ledger.usage()
        self.stop_reason = stop_reason
        self.dropped = tuple(dropped)
        self.partial = None if denial is None else denial.partial
        self._run = run
        self._output = output
        self._denial = denial

    @property
    def output(self) -> T:
        """Return what the node made of the input.

        Raises `BudgetExceeded` if the budget left no output, and `Waiting` while the run waits for people.
        """
        if self._waits is not None:
            raise Waiting(f"run {self.run_id} has no output yet: {self._waits}; `agentrt inbox` shows what is asked")
        if self._denial is not None and self.stop_reason is not StopReason.WRAPPED_UP:
            raise self._denial
        return cast("T", self._output)

    async def resume(self, *, budget: Budget) -> Result[T]:
        """Go on with a run that its budget stopped, with these limits raised; what had finished is not paid again.

        The limits are those of the scope that was exhausted; a dimension left out stays as it was. `seconds` counts
        anew. Only in the process of the run, once. Raises what `run` raises, and `RuntimeError` where the run cannot
        go on: it was not stopped by its budget, went on from here already, had no budget around what was refused, so
        that nothing was kept, or was refused by a limit on `calls`.
        """
        if self._denial is None:
            raise RuntimeError(f"run {self.run_id} was not stopped by its budget: there is nothing to go on with")
        return await self._run.resume(self, self._denial, budget)

    def __repr__(self) -> str:
        return f"<Result {self.stop_reason} of {self.run_id}: {self.usage.tokens:,} tokens, ${self.usage.usd:.4f}>"
