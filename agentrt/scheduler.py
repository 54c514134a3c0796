"""The scheduler: drives plans, runs steps in a pool of workers, keeps budgets and records every event.

Ready activations go into one queue. A worker takes one, runs it to its end and takes the next; another worker is
started only while the queue is not empty and the concurrency limit allows. So a step that never suspends costs no
task, and steps that wait run all at once. A step that waits for steps below it lends its slot (rule B12), so that a
limit of one never deadlocks.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from agentrt.budget import Account, Budget, Ledger
from agentrt.context import StepContext
from agentrt.drive import Drive
from agentrt.errors import AgentrtError, BudgetExceeded
from agentrt.events import BudgetDenied, ErrorInfo, Event, StepCancelled, StepFailed, StepFinished, StepStarted
from agentrt.model import Model
from agentrt.node import Node
from agentrt.plan import Activation, Failure

DEFAULT_CONCURRENCY: Final = 1000


class Scheduler:
    """Run the steps of one run.

    `tasks` is the task group every worker lives in, `record` takes every event, `models` finds the model a node
    asks for, and `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        *,
        run_id: str,
        ledger: Ledger,
        record: Callable[[Event], None],
        models: Callable[[Model | str | None], Model],
        clock: Callable[[], float],
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> None:
        self.run_id = run_id
        self.ledger = ledger
        self.record = record
        self.models = models
        self.clock = clock
        self.thread = threading.get_ident()
        self.dropped: list[Failure] = []
        self._tasks = tasks
        self._limit = concurrency
        self._queue: deque[tuple[Drive, Activation, float]] = deque()
        self._resuming: deque[anyio.Event] = deque()
        self._active = 1  # the task that runs the root step
        self._starting = 0
        self._burst = 1
        self._ended = self._ended_before = 0

    def statistics(self) -> Mapping[str, int]:
        """Return how many steps run, wait in the queue, and wait for a slot to go on."""
        return {"running": self._active, "queued": len(self._queue), "resuming": len(self._resuming)}

    async def step(
        self,
        activation: Activation,
        account: Account,
        deadline: float,
        budget: Budget | None,
        waited: float,
        depth: int = 0,
    ) -> Any:
        """Run one step to its end and return its output, or its `Failure`.

        Only cancellation leaves this method as an exception, so that a step's error never crosses a task group.
        `depth` counts the steps this one's task already runs around it.
        """
        node, path, value = activation.node, activation.path, activation.value
        seconds = None
        for limit in (budget, node.budget):
            if limit is not None:
                account = self.ledger.open(account, limit, path)
                if limit.seconds is not None:
                    seconds = limit.seconds if seconds is None else min(seconds, limit.seconds)
        try:
            self.ledger.count(account, node.counts, path)
        except BudgetExceeded as error:
            self.record(BudgetDenied(path=path, at=self.clock(), scope=error.scope, dimension=error.dimension))
            return Failure(path, value, error)
        context = StepContext(self, path, account, deadline, activation, depth)
        self.record(
            StepStarted(
                path=path,
                at=self.clock(),
                name=node.name,
                kind=node.kind,
                input=value,
                after=activation.after,
                join=activation.join,
                waited=waited,
                attributes=node.attributes,
            )
        )
        try:
            if seconds is None:
                output = await node.invoke(context, value)
            else:
                output = await self._invoke_within(seconds, node, context, value)
        except Exception as error:  # noqa: BLE001 - every error of a step becomes its outcome, and the run's one error carries it
            return self._failed(path, context.failure_of(error, value))
        except BaseException as error:
            if _is_stray(error):
                return self._failed(path, Failure(path, value, _stray(path, error)))
            self.record(StepCancelled(path=path, at=self.clock()))
            raise
        self.record(StepFinished(path=path, at=self.clock(), output=output))
        return output

    def _failed(self, path: str, failure: Failure) -> Failure:
        self.record(StepFailed(path=path, at=self.clock(), error=ErrorInfo.of(failure.error)))
        return failure

    async def _invoke_within(self, seconds: float, node: Node[Any, Any], context: StepContext, value: Any) -> Any:
        """Invoke a node under a deadline (rule B12), which its own context can read."""
        deadline = anyio.current_time() + seconds
        context.deadline = min(context.deadline, deadline)
        with anyio.CancelScope(deadline=deadline):  # an earlier one around it cancels by itself, in its own name
            if seconds > 0:
                return await node.invoke(context, value)
        raise BudgetExceeded(
            scope=context.path, dimension="seconds", needed=0, spent=seconds, limit=seconds, path=context.path
        )

    def push(self, drive: Drive, activations: Sequence[Activation]) -> None:
        """Queue activations that are ready, and see to it that somebody takes them."""
        now = self.clock()
        self._queue.extend((drive, a, now) for a in activations)
        self._spawn()

    def lend(self) -> None:
        """Give up the calling step's slot while it waits for steps below it."""
        self._active -= 1
        self._hand_on()

    def reclaim_nowait(self) -> None:
        """Take a slot again, over the limit if none is free."""
        self._active += 1

    async def reclaim(self) -> None:
        """Take a slot again, before anything still in the queue gets it."""
        if self._active < self._limit:
            self._active += 1
            return
        turn = anyio.Event()
        self._resuming.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if not turn.is_set():
                self._resuming.remove(turn)
                self.reclaim_nowait()
            raise

    def _hand_on(self) -> None:
        if self._resuming and self._active < self._limit:
            self._active += 1
            self._resuming.popleft().set()
        else:
            self._spawn()

    def _spawn(self) -> None:
        """Start workers if there is work and room; the last one started looks whether more are needed.

        One at a time as long as steps end meanwhile, else twice as many each time: steps that all wait are soon all
        running, and steps that do not are left to few workers.
        """
        if not self._queue or self._starting:
            return
        self._burst = min(self._burst * 2, self._limit) if self._ended == self._ended_before else 1
        self._ended_before = self._ended
        self._starting = max(0, min(self._burst, len(self._queue), self._limit - self._active))
        for _ in range(self._starting):
            self._tasks.start_soon(self._work, name="agentrt worker")

    async def _work(self) -> None:
        self._starting -= 1
        self._active += 1
        try:
            with anyio.CancelScope() as scope:
                while self._queue and not self._resuming and not scope.cancel_called and self._active <= self._limit:
                    drive, activation, queued = self._queue.popleft()
                    if drive.skips(activation):
                        continue
                    self._spawn()
                    await self._run(drive, activation, scope, self.clock() - queued)
                    self._ended += 1
        finally:
            self._active -= 1
            self._hand_on()

    async def _run(self, drive: Drive, activation: Activation, scope: anyio.CancelScope, waited: float) -> None:
        drive.running[activation] = scope
        try:
            context = drive.context
            outcome = await self.step(activation, context.account, context.deadline, drive.budget, waited)
        except BaseException:
            drive.cancelled(activation)
            raise
        drive.ended(activation, outcome)


def _is_stray(error: BaseException) -> bool:
    """Say whether this is a cancellation that nobody asked of this task: a node let out that of something it awaited.

    To pass it on would end the worker without an outcome, and whoever waits for the step would wait for ever.
    """
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    if anyio.get_current_task().has_pending_cancellation():
        return False
    asyncio = sys.modules.get("asyncio")  # imported by whoever runs its event loop; importing agentrt should not
    task = asyncio.current_task() if asyncio and isinstance(error, asyncio.CancelledError) else None
    return task is None or not task.cancelling()


def _stray(path: str, error: BaseException) -> AgentrtError:
    stray = AgentrtError(f"something that {path} awaited was cancelled, but not by the run")
    stray.__cause__ = error
    return stray
