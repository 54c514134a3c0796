"""Execution: what is declared around a node's work: attempts, time-outs, deadlines, and what follows exhaustion."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import anyio

from agentrt.errors import BudgetExceeded, StepTimeout
from agentrt.events import BudgetExhausted
from agentrt.progress import Progress
from agentrt.question import never, permitted
from agentrt.retry import persist

if TYPE_CHECKING:
    from agentrt.context import StepContext
    from agentrt.ledger import Account, Limit
    from agentrt.node import Node


class Execution:
    """Run a node under the limits of its step, its retries and its time-out."""

    def __init__(self, context: StepContext, node: Node[Any, Any], value: Any) -> None:
        self._context = context
        self._scheduler = context.scheduler
        self._node = node
        self._value = value
        past = context.past
        self._is_again = past is not None and past.awaits_attempt(context.path)

    async def run(self) -> Any:
        """Return the node's output, or what the policy of its budget makes of there being none (rules E3, E4)."""
        try:
            if (refusal := self._context.denial) is not None:  # its very start was refused
                self._context.record_denial(refusal)
                raise refusal
            if self._scheduler.permissions is not None:
                self._value = await self._permitted()
            # Only what is declared stands around the node: each layer would cost something at every switch of tasks.
            limit = self._soonest()
            if limit is not None:
                return await self._before_deadline(limit)
            if self._node.retry is not None or self._node.timeout is not None:
                return await self._attempts()
            return await self._node.invoke(self._context, self._value)
        except Exception as error:
            denial = self._context.failure_of(error, self._value).error
            limit = self._own_limit(denial)
            if limit is None:
                raise
            assert isinstance(denial, BudgetExceeded)
            self._context.settle(error)
            return await self._exhausted(limit, denial)

    async def _permitted(self) -> Any:
        """Return the input as the run's permissions let it pass; tools ask themselves, with their arguments."""
        self._context.check_allowed()
        if self._node.effect is None or self._node.asks_policy:
            return self._value
        return await permitted(self._context, self._node, self._value, approval=never)

    def _own_limit(self, error: Exception) -> Limit | None:
        """Return the limit of this very step that an error is a denial by, if it is."""
        account = error.account if isinstance(error, BudgetExceeded) else None
        return next((limit for limit in self._context.limits if limit.account is account), None)

    def _soonest(self) -> Limit | None:
        """Return the limit of this step whose deadline comes first, if any has one."""
        timed = [limit for limit in self._context.limits if limit.budget.seconds is not None]
        return min(timed, key=lambda limit: limit.deadline, default=None)

    async def _before_deadline(self, limit: Limit) -> Any:
        """Work until the step's own deadline (rule B12); one around it cancels by itself, in its own name."""
        with anyio.CancelScope(deadline=limit.deadline):
            if limit.budget.seconds:
                return await self._attempts()
        raise self._too_late(limit)

    def _too_late(self, limit: Limit) -> BudgetExceeded:
        seconds, path = limit.budget.seconds or 0, self._context.path
        return BudgetExceeded(
            scope=path, dimension="seconds", needed=0, spent=seconds, limit=seconds, path=path, account=limit.account
        )

    def _attempts(self) -> Coroutine[Any, Any, Any]:
        """Try as often as the node's `retry` says; waiting in between holds neither budget nor slot (rule B9)."""
        retry = self._node.retry
        if retry is None:
            return self._attempt()
        context = self._context
        made = context.attempts = 0 if context.past is None else context.past.attempts(context.path)
        return persist(context, retry, self._attempt, failed=context.restart, made=made)

    async def _attempt(self) -> Any:
        if self._is_again:
            self._context.begin_attempt(self._node.counts)
        self._is_again = True
        timeout = self._node.timeout
        if timeout is None:
            return await self._node.invoke(self._context, self._value)
        with anyio.move_on_after(timeout):
            return await self._node.invoke(self._context, self._value)
        raise StepTimeout(f"{self._node.name} took longer than its time-out of {timeout:g} s")

    async def _exhausted(self, limit: Limit, denial: BudgetExceeded) -> Any:
        """Close the account and do what its budget says; everything below has ended by now."""
        context, policy = self._context, limit.budget.on_exhausted
        self._scheduler.ledger.close(limit.account)
        denial.partial = rest = (context.progress or Progress()).partial(denial)
        if policy == "raise":
            raise denial
        self._scheduler.record(
            BudgetExhausted(path=context.path, at=self._scheduler.clock(), dimension=denial.dimension, policy=policy)
        )
        output = rest if policy == "partial" else await self._wrap_up(limit, denial)
        context.denial = denial
        return output

    async def _wrap_up(self, limit: Limit, denial: BudgetExceeded) -> Any:
        """Let the node answer with what is held back; where even that is refused, the next scope out decides (E3)."""
        context = self._context
        context.account = self._scheduler.ledger.wrapping_up(limit.account)
        context.deadline = limit.until
        assert denial.partial is not None
        known = (context.progress or Progress()).copy()
        try:
            with anyio.CancelScope(deadline=limit.until):
                return await self._node.wrap_up(context, self._value, denial.partial)
            raise self._too_late(limit)
        except BudgetExceeded as refusal:
            if refusal.account not in (context.account, limit.account):
                raise
            raise _handed_on(denial, limit.account) from refusal
        finally:
            context.progress = known  # a run that goes on must not take the last words for what it says next


def _handed_on(denial: BudgetExceeded, account: Account) -> BudgetExceeded:
    """Return the denial as one of the next account out that has a limit, or as it is where there is none."""
    outer = next((scope for scope in account.chain[1:] if scope.is_limit), None)
    if outer is None:
        return denial
    handed_on = BudgetExceeded(
        scope=outer.scope,
        dimension=denial.dimension,
        needed=denial.needed,
        spent=denial.spent,
        limit=denial.limit,
        path=denial.path,
        account=outer,
    )
    handed_on.partial, handed_on.refused_by = denial.partial, denial.refused_by
    return handed_on
