"""Drives: one plan and one driver, between the step that waits for the plan and the scheduler that runs its steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import anyio

from agentrt.errors import AgentrtError
from agentrt.events import BranchDied, ErrorInfo
from agentrt.ledger import Limit
from agentrt.plan import Activation, Failure, Fork, GraphPlan, Parked, Plan
from agentrt.remaining import Remaining

if TYPE_CHECKING:
    from agentrt.budget import Budget
    from agentrt.context import StepContext
    from agentrt.ledger import Account
    from agentrt.progress import Past
    from agentrt.scheduler import Worker


class Drive:
    """Drive one plan: give its ready activations to the scheduler and its outcomes back to it.

    While a plan has just one thing to do the driver does it in its own task, so that a chain needs no worker.
    """

    __slots__ = (
        "_closed",
        "_done",
        "_lost",
        "_refused",
        "budget",
        "context",
        "plan",
        "ready",
        "running",
        "scheduler",
    )

    def __init__(self, context: StepContext, plan: Plan, budget: Budget | None = None) -> None:
        self.context = context
        self.scheduler = context.scheduler
        self.plan = plan
        self.budget = budget
        self.ready: deque[tuple[Activation, float]] = deque()
        self.running: dict[Activation, Worker] = {}
        self._closed = False
        self._lost: Activation | None = None
        self._refused: list[str] = []
        self._done: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<Drive {self.plan.path}: {len(self.running)} running, {len(self.ready)} ready>"

    async def run(self) -> Any:
        """Return the plan's output; raises the error of its failure, or the denial that exhausted it."""
        plan = self.plan
        try:
            ready = plan.start()
            self._note()
            if (past := self.context.past) is not None:
                ready = await self._catch_up(past, ready)
            if len(ready) == 1 and self.context.may_run_here:
                ready = await self._chain(ready)
            if ready:
                self.scheduler.push(self, ready)
                self._done = anyio.Event()
                await self.context.slot.wait(self._done.wait)
        finally:
            self._closed = True
            if self.running:
                await self._cancel_running()
            if plan.read:
                self.context.meet(plan.read)
            if not plan.finished:
                self.context.note_not_started([*(a for a, _ in self.ready if not a.given_up), *plan.waiting])
        if self._lost is not None and not plan.finished:
            # Only a driver that is shielded gets here: its own task would have been cancelled as well.
            error = AgentrtError("cancelled with the run around it")
            raise self.context.error_of(Failure(self._lost.path, self._lost.value, error))
        if plan.exhausted is not None:
            self.context.tell(self._refused, plan.exhausted.error)
        if isinstance(plan, GraphPlan):
            self.scheduler.dropped += plan.dropped
        return self._result()

    def _result(self) -> Any:
        """Return what the plan came to; raises the error of its failure, its denial, or that it waits for people."""
        plan = self.plan
        failure = plan.failure or (None if plan.finished else plan.exhausted)
        if failure is not None:
            raise self.context.error_of(failure)
        if not plan.finished and plan.parked is not None:
            raise plan.parked
        return plan.output

    async def _chain(self, ready: Sequence[Activation]) -> Sequence[Activation]:
        """Run one step after another in this task, on the slot of the step around; return what is ready then."""
        context, plan, step, budget = self.context, self.plan, self.scheduler.step, self.budget
        depth = context.depth + 1
        with context.slot:
            while len(ready) == 1 and not plan.finished:
                ready = self._feed(ready[0], await step(ready[0], context, budget, 0.0, depth))
        return ready

    @property
    def is_over(self) -> bool:
        """Say whether nothing more of the plan is to be started."""
        return self._closed or self.plan.finished or self.plan.exhausted is not None or self._lost is not None

    def ended(self, activation: Activation, outcome: Any) -> None:
        """Take the outcome of a step that a worker ran."""
        del self.running[activation]
        if not self._closed:
            ready = self._feed(activation, outcome)
            if ready:
                self.scheduler.push(self, ready)
        if not self.running:
            self._wake()

    def cancelled(self, activation: Activation) -> None:
        """Note that a step in a worker was cancelled: given up by the plan, or with the whole run around it."""
        del self.running[activation]
        if not activation.given_up:
            self._lost = activation
        self._wake()

    def _feed(self, activation: Activation, outcome: Any) -> Sequence[Activation]:
        """Tell the plan how a step ended; a denial by a budget around the plan exhausts it (rule E2)."""
        plan = self.plan
        ready: Sequence[Activation] = ()
        kind = type(outcome)
        if activation.read:
            plan.meet(activation)
        if kind is not Failure and kind is not Parked:
            ready = plan.succeeded(activation, outcome)
        elif kind is Parked:
            ready = plan.waits(activation, outcome)
        elif self.context.is_denied_by(outcome.error):
            plan.refused(activation, outcome)
            self._refused.append(activation.path)
        else:
            ready = plan.failed(activation, outcome)
            if plan.exhausted is None:  # else its error waits with the plan: nobody has gone on from it
                self.context.tell([activation.path], outcome.error)
        if plan.died or plan.cancelling or plan.sharing:
            self._note()
        return ready

    async def _catch_up(self, past: Past, ready: Sequence[Activation]) -> Sequence[Activation]:
        """Bring the plan to where an earlier part of the run left it, step after step in the order they had ended."""
        known: list[tuple[int, str, Activation]] = []
        unknown: list[Activation] = []
        while True:
            for activation in ready:
                place = past.place(activation.path)
                if place is None:
                    unknown.append(activation)
                else:
                    heappush(known, (place, activation.path, activation))
            if not known:
                break
            _, _, earliest = heappop(known)
            ready = () if earliest.given_up else await self._step_here(earliest)
        ready = [a for a in unknown if not a.given_up]
        if self.plan.exhausted is None:
            return ready
        self.context.note_not_started(ready)
        return ()

    async def _step_here(self, activation: Activation) -> Sequence[Activation]:
        """Run one step in this task, or recall it, and feed its outcome to the plan, which says who is told of it."""
        context = self.context
        with context.slot:
            outcome = await self.scheduler.step(activation, context, self.budget, 0.0, context.depth + 1)
        return self._feed(activation, outcome)

    def _note(self) -> None:
        """Carry out what the plan decided besides what is ready: branches that died or share, steps to cancel."""
        plan = self.plan
        if plan.died:
            for path, error in plan.died:
                info = None if error is None else ErrorInfo.of(error)
                self.scheduler.record(BranchDied(path=path, at=self.scheduler.clock(), error=info))
            plan.died.clear()
        if plan.cancelling:
            for activation in plan.cancelling:
                activation.given_up = True
                if (worker := self.running.get(activation)) is not None:
                    worker.cancel()
                self.scheduler.withdraw(activation.path)
            plan.cancelling.clear()
        if plan.sharing:
            for fork in plan.sharing:
                self._open_branches(fork)
            plan.sharing.clear()

    def _open_branches(self, fork: Fork) -> None:
        """Give each branch of a fork an account of its own under the fork's budget (rule B11).

        In a run that goes on the equal parts are cut again, but for a branch whose own limit was raised.
        """
        assert fork.budget is not None
        past, parent, plan_path = self.context.past, fork.branch.account or self.context.account, self.plan.path
        left, n = Remaining(parent).remaining, max(1, len(fork.branches))
        budget = fork.budget.divided(left, n)
        shared = replace(budget, share=fork.budget.share)
        for branch in fork.branches:
            if branch.current is None:
                continue
            path = branch.current.path
            limit = past.branch(path) if past is not None else None
            if limit is None:
                spent = past.spent_on_branch(plan_path, branch.label) if past is not None else ()
                limit = Limit(shared, self.scheduler.ledger.open(parent, budget, path, spent))
            elif limit.budget.share is not None:
                _divide_again(limit.account, fork.budget, left, n)
            branch.account = limit.account
            self.context.note_branch(path, limit)

    def _wake(self) -> None:
        idle = not self.running and (self.is_over or (self.plan.parked is not None and not self.ready))
        if idle and self._done is not None:
            self._done.set()

    async def _cancel_running(self) -> None:
        """Cancel what still runs below a driver that is going away, and wait until it has ended."""
        for worker in self.running.values():
            worker.cancel()
        self._done = anyio.Event()
        await self.context.slot.wait_to_unwind(self._done)


def _divide_again(account: Account, budget: Budget, left: Mapping[str, float], branches: int) -> None:
    """Give a branch that goes on its part of what is left by now, besides what it has spent before."""
    spent = Remaining(account).spent
    account.limit(budget.divided({d: amount + branches * spent.get(d, 0) for d, amount in left.items()}, branches))
