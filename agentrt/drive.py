"""Drives: one plan and one driver, between the step that waits for the plan and the scheduler that runs its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio

from agentrt.errors import AgentrtError
from agentrt.events import BranchDied, ErrorInfo
from agentrt.plan import Activation, Failure, GraphPlan, Plan

if TYPE_CHECKING:
    from agentrt.budget import Budget
    from agentrt.context import StepContext


class Drive:
    """Drive one plan: give its ready activations to the scheduler and its outcomes back to it.

    While a plan has just one thing to do the driver does it in its own task, so that a chain needs no worker.
    """

    __slots__ = (
        "_cancelled",
        "_closed",
        "_done",
        "_lost",
        "budget",
        "context",
        "plan",
        "running",
        "scheduler",
    )

    def __init__(self, context: StepContext, plan: Plan, budget: Budget | None = None) -> None:
        self.context = context
        self.scheduler = context.scheduler
        self.plan = plan
        self.budget = budget
        self.running: dict[Activation, anyio.CancelScope] = {}
        self._cancelled: set[Activation] = set()
        self._closed = False
        self._lost: Activation | None = None
        self._done: anyio.Event | None = None

    async def run(self) -> Any:
        """Return the plan's output, or its `Failure`."""
        plan = self.plan
        try:
            ready = plan.start()
            self._note()
            while len(ready) == 1 and not plan.finished and self.context.may_run_here:
                ready = self._feed(ready[0], await self.context.run_here(ready[0], self.budget))
            if ready:
                self.scheduler.push(self, ready)
                self._done = anyio.Event()
                await self.context.wait(self._done)
        finally:
            self._closed = True
            if self.running:
                await self._cancel_running()
        if self._lost is not None and not plan.finished:
            # Only a driver that is shielded gets here: its own task would have been cancelled as well.
            return Failure(self._lost.path, self._lost.value, AgentrtError("cancelled with the run around it"))
        if isinstance(plan, GraphPlan):
            self.scheduler.dropped += plan.dropped
        return plan.failure or (plan.output if plan.finished else plan.exhausted)

    def skips(self, activation: Activation) -> bool:
        """Say whether a queued activation is not to be started any more."""
        return (
            self._closed or self.plan.exhausted is not None or self._lost is not None or activation in self._cancelled
        )

    def ended(self, activation: Activation, outcome: Any) -> None:
        """Take the outcome of a step that a worker ran."""
        del self.running[activation]
        if not self._closed:
            ready = self._feed(activation, outcome)
            if ready:
                self.scheduler.push(self, ready)
        self._wake()

    def cancelled(self, activation: Activation) -> None:
        """Note that a step in a worker was cancelled: given up by the plan, or with the whole run around it."""
        del self.running[activation]
        if activation not in self._cancelled:
            self._lost = activation
        self._wake()

    def _feed(self, activation: Activation, outcome: Any) -> Sequence[Activation]:
        failed = isinstance(outcome, Failure)
        ready = self.plan.failed(activation, outcome) if failed else self.plan.succeeded(activation, outcome)
        self._note()
        return ready

    def _note(self) -> None:
        """Carry out what the plan decided besides what is ready: branches that died, steps to cancel."""
        plan = self.plan
        if plan.died:
            for path, error in plan.died:
                info = None if error is None else ErrorInfo.of(error)
                self.scheduler.record(BranchDied(path=path, at=self.scheduler.clock(), error=info))
            plan.died.clear()
        if plan.cancelling:
            for activation in plan.cancelling:
                self._cancelled.add(activation)
                if (scope := self.running.get(activation)) is not None:
                    scope.cancel()
            plan.cancelling.clear()

    def _wake(self) -> None:
        over = self._closed or self.plan.finished or self.plan.exhausted is not None or self._lost is not None
        if over and not self.running and self._done is not None:
            self._done.set()

    async def _cancel_running(self) -> None:
        """Cancel what still runs below a driver that is going away, and wait until it has ended."""
        for scope in self.running.values():
            scope.cancel()
        self._done = anyio.Event()
        await self.context.wait_to_unwind(self._done)
