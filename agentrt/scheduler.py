"""The scheduler: drives plans, runs steps in a pool of workers, keeps budgets and records every event.

Ready activations go into one queue. A worker takes one, runs it to its end and takes the next; another worker is
started only while the queue is not empty and the concurrency limit allows. So a step that never suspends costs no
task, and steps that wait run all at once. A step that waits for steps below it lends its slot (rule B12), so that a
limit of one never deadlocks.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import anyio
import anyio.from_thread
from anyio.abc import TaskGroup

from agentrt.budget import Account, Budget, Ledger, Request, Ticket
from agentrt.errors import AgentrtError, BudgetExceeded, DefinitionError
from agentrt.events import (
    BranchDied,
    BudgetClamped,
    BudgetDenied,
    BudgetOverrun,
    BudgetWaited,
    Emitted,
    ErrorInfo,
    Event,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    UsageRecorded,
)
from agentrt.model import Model
from agentrt.node import Context, Node, Remaining, Reservation, as_node
from agentrt.plan import Activation, BatchPlan, Failure, GraphPlan, Plan
from agentrt.usage import Usage

DEFAULT_CONCURRENCY: Final = 1000
_NEVER: Final = float("inf")
_DEEPEST: Final = 16
"""A task runs at most so many steps inside each other; deeper ones get a worker, so that no stack overflows."""


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
            outcome = await self.step(activation, drive.account, drive.deadline, drive.budget, waited)
        except BaseException:
            drive.cancelled(activation)
            raise
        drive.ended(activation, outcome)


class Drive:
    """Drive one plan: give its ready activations to the scheduler and its outcomes back to it.

    While a plan has just one thing to do the driver does it in its own task, so that a chain needs no worker.
    """

    __slots__ = (
        "_cancelled",
        "_closed",
        "_done",
        "_lost",
        "account",
        "budget",
        "context",
        "deadline",
        "plan",
        "running",
        "scheduler",
    )

    def __init__(self, context: StepContext, plan: Plan, budget: Budget | None = None) -> None:
        self.context = context
        self.scheduler = context.scheduler
        self.plan = plan
        self.account = context.account
        self.deadline = context.deadline
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
                ready = await self._run_here(ready[0])
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

    async def _run_here(self, activation: Activation) -> Sequence[Activation]:
        context = self.context
        context.busy = True
        try:
            outcome = await self.scheduler.step(
                activation, self.account, self.deadline, self.budget, 0.0, context.depth + 1
            )
        finally:
            context.busy = False
            context.lend_if_waiting()
        ready = self._feed(activation, outcome)
        self._note()
        return ready

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
            self._note()
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
        if isinstance(outcome, Failure):
            return self.plan.failed(activation, outcome)
        return self.plan.succeeded(activation, outcome)

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


class StepContext(Context):
    """Be the context of one running step."""

    __slots__ = (
        "_activation", "_busy_names", "_calls", "_failure", "_lent", "_waits",
        "account", "busy", "deadline", "depth", "path", "run_id", "scheduler",
    )  # fmt: skip

    def __init__(
        self, scheduler: Scheduler, path: str, account: Account, deadline: float, activation: Activation, depth: int
    ) -> None:
        self.scheduler = scheduler
        self.depth = depth
        self.run_id = scheduler.run_id
        self.path = path
        self.account = account
        self.deadline = deadline
        self.busy = False
        self._activation = activation
        self._calls: dict[str, int] | None = None
        self._busy_names: set[str] | None = None
        self._failure: Failure | None = None
        self._lent = False
        self._waits = 0

    async def run(self, node: Any, value: Any, *, key: str | int | None = None, budget: Budget | None = None) -> Any:
        target = as_node(node)
        label = target.name if key is None else f"{target.name}[{_checked(key)}]"
        busy = self._busy_names = self._busy_names or set()
        if label in busy:
            raise DefinitionError(
                f"{self.path} already runs {label!r}: give concurrent calls of one name different keys, "
                "ctx.run(…, key=…), or use ctx.map, so that their paths do not depend on timing"
            )
        activation = Activation(target, value, self._call_path(label))
        busy.add(label)
        try:
            if self.may_run_here:
                return self._unwrap(await self._run_here(activation, budget))
            plan = BatchPlan(self.path, [activation])
            return self._unwrap(await Drive(self, plan, budget).run())[0]
        finally:
            busy.discard(label)

    async def _run_here(self, activation: Activation, budget: Budget | None) -> Any:
        self.busy = True
        try:
            return await self.scheduler.step(activation, self.account, self.deadline, budget, 0.0, self.depth + 1)
        finally:
            self.busy = False
            self.lend_if_waiting()

    async def map(
        self, node: Any, values: Sequence[Any], *, limit: int | None = None, budget: Budget | None = None
    ) -> list[Any]:
        target = as_node(node)
        if limit is not None and limit < 1:
            raise DefinitionError(f"ctx.map(limit={limit}): run at least one at a time")
        prefix = self._call_path(f"{target.name}[")
        paths = (_map_path(prefix, i) for i in range(len(values)))
        activations = [Activation(target, v, p) for v, p in zip(values, paths, strict=True)]
        outputs: list[Any] = self._unwrap(
            await Drive(self, BatchPlan(self.path, activations, limit=limit), budget).run()
        )
        return outputs

    async def gather(self, calls: Sequence[tuple[Node[Any, Any], Any]]) -> list[Any]:
        activations = [Activation(node, value, self._call_path(node.name)) for node, value in calls]
        outcomes: list[Any] = self._unwrap(await Drive(self, BatchPlan(self.path, activations, keep_errors=True)).run())
        return [o.error if isinstance(o, Failure) else o for o in outcomes]

    async def drive(self, plan: Plan) -> Any:
        return self._unwrap(await Drive(self, plan).run())

    def latest(self, node: Any) -> Any:
        branch = self._activation.branch
        if branch is None:
            raise LookupError(f"{self.path} was called by code and is on no branch; pass it what it needs")
        return branch.lookup(as_node(node))

    @property
    def memory(self) -> dict[Node[Any, Any], Any]:
        branch = self._activation.branch
        return {} if branch is None else branch.memory

    def emit(self, value: object) -> None:
        event = Emitted(path=self.path, at=self.scheduler.clock(), value=value)
        if threading.get_ident() == self.scheduler.thread:
            self.scheduler.record(event)
        else:  # a sync node, in a worker thread
            anyio.from_thread.run_sync(self.scheduler.record, event)

    @property
    def budget(self) -> Remaining:
        return Remaining(self.account, self.deadline, anyio.current_time)

    def model(self, named: Model | str | None) -> Model:
        return self.scheduler.models(named)

    def text_delta(self, text: str) -> None:
        self.scheduler.record(TextDelta(path=self.path, at=self.scheduler.clock(), text=text))

    async def reserve(self, request: Request) -> Reservation:
        ledger, clock, record = self.scheduler.ledger, self.scheduler.clock, self.scheduler.record
        ticket = ledger.request(self.account, request, self.path)
        if ticket.waiting:
            began = clock()
            decided = anyio.Event()
            ticket.notify = decided.set
            try:
                await decided.wait()
            except BaseException:
                ledger.withdraw(ticket)
                raise
            record(BudgetWaited(path=self.path, at=clock(), seconds=clock() - began))
        if ticket.refusal is not None:
            refusal = ticket.refusal
            record(BudgetDenied(path=self.path, at=clock(), scope=refusal.scope, dimension=refusal.dimension))
            raise refusal
        reservation = StepReservation(self.scheduler, ticket)
        if reservation.granted < request.want:
            record(BudgetClamped(path=self.path, at=clock(), wanted=request.want, granted=reservation.granted))
        return reservation

    @property
    def may_run_here(self) -> bool:
        """Say whether the step's own slot is free for a step below it, and its stack not too deep."""
        return not self.busy and not self._lent and self.depth < _DEEPEST

    async def wait(self, event: anyio.Event) -> None:
        """Wait for steps below this one, lending the slot meanwhile."""
        self._waits += 1
        self.lend_if_waiting()
        try:
            await event.wait()
        except BaseException:
            # Cancelled: the step unwinds at once, over the limit if need be. Waiting for a slot here could wait for
            # the very steps that are about to be cancelled.
            if self._stops_waiting():
                self.scheduler.reclaim_nowait()
            raise
        if self._stops_waiting():
            await self.scheduler.reclaim()

    async def wait_to_unwind(self, event: anyio.Event) -> None:
        """Wait, whatever happens, for steps below that are being cancelled; their cleaning up may need the slot."""
        self._waits += 1
        self.lend_if_waiting()
        try:
            with anyio.CancelScope(shield=True):
                await event.wait()
        finally:
            if self._stops_waiting():
                self.scheduler.reclaim_nowait()

    def _stops_waiting(self) -> bool:
        """Note that one wait is over; return whether the slot is to be taken back."""
        self._waits -= 1
        if self._waits or not self._lent:
            return False
        self._lent = False
        return True

    def lend_if_waiting(self) -> None:
        """Lend the slot if nothing uses it and something waits for it."""
        if self._waits and not self.busy and not self._lent:
            self._lent = True
            self.scheduler.lend()

    def failure_of(self, error: Exception, value: object) -> Failure:
        """Return the failure of the step below if this is its error, so that the first step to fail is named."""
        if isinstance(error, ExceptionGroup):
            error = _one_error(error)
        if self._failure is not None and self._failure.error is error:
            return self._failure
        return Failure(self.path, value, error)

    def _unwrap(self, outcome: Any) -> Any:
        if isinstance(outcome, Failure):
            self._failure = outcome
            raise outcome.error
        return outcome

    def _call_path(self, label: str) -> str:
        """Number the calls of one name by this step (docs/design.md, "Paths")."""
        calls = self._calls = self._calls or {}
        n = calls[label] = calls.get(label, 0) + 1
        if label.endswith("["):
            return f"{self.path}/{label[:-1]}#{n}[" if n > 1 else f"{self.path}/{label}"
        return f"{self.path}/{label}#{n}" if n > 1 else f"{self.path}/{label}"


def _checked(key: str | int) -> str | int:
    if isinstance(key, str) and (not key or set(key) & set("/#[]")):
        raise DefinitionError(f"ctx.run(key={key!r}): a key stands in paths, so it needs some text without / # [ ]")
    return key


def _is_stray(error: BaseException) -> bool:
    """Say whether this is a cancellation that nobody asked of this task: a node let out that of something it awaited.

    To pass it on would end the worker without an outcome, and whoever waits for the step would wait for ever.
    """
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    if anyio.get_current_task().has_pending_cancellation():
        return False
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    return task is None or not task.cancelling()


def _stray(path: str, error: BaseException) -> AgentrtError:
    stray = AgentrtError(f"something that {path} awaited was cancelled, but not by the run")
    stray.__cause__ = error
    return stray


def _map_path(prefix: str, index: int) -> str:
    return f"{prefix}{index}]"


def _one_error(group: ExceptionGroup[Exception]) -> Exception:
    """Return the denial inside the group of a user's own task group, else the group (rule E7)."""
    error: BaseException = group.subgroup(BudgetExceeded) or group
    while isinstance(error, BaseExceptionGroup) and (error is not group or group.subgroup(BudgetExceeded)):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else group


class StepReservation(Reservation):
    """Hold a granted ticket of the ledger."""

    def __init__(self, scheduler: Scheduler, ticket: Ticket) -> None:
        assert ticket.granted is not None
        self.granted = ticket.granted
        self._scheduler = scheduler
        self._ticket = ticket

    def settle(self, usage: Usage) -> None:
        scheduler, ticket = self._scheduler, self._ticket
        worst = scheduler.ledger.worst_case(ticket)
        if scheduler.ledger.settle(ticket, usage):
            scheduler.record(
                BudgetOverrun(path=ticket.path, at=scheduler.clock(), reserved=worst.tokens, billed=usage.tokens)
            )
        scheduler.record(UsageRecorded(path=ticket.path, at=scheduler.clock(), usage=usage))

    def release(self) -> None:
        self._scheduler.ledger.withdraw(self._ticket)

    def forfeit(self) -> None:
        self.settle(self._scheduler.ledger.worst_case(self._ticket))
