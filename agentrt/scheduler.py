"""The scheduler: drives plans, runs steps in a pool of workers, keeps budgets and records every event.

Ready activations wait in one queue, in which each plan has its turn. A worker takes one, runs it to its end and takes
the next; another worker is started only while the queue is not empty and the concurrency limit allows. So a step that
never suspends costs no task, and steps that wait run all at once. A step that waits for steps below it lends its slot
(rule B12), so that a limit of one never deadlocks.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import repeat
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from agentrt.blame import blame, blamed
from agentrt.budget import NAMES, Budget
from agentrt.cancellation import is_stray
from agentrt.context import StepContext
from agentrt.drive import Drive
from agentrt.errors import AgentrtError, BudgetExceeded, DefinitionError, ReplayMismatch
from agentrt.events import ErrorInfo, Event, StepCancelled, StepFailed, StepFinished, StepParked, StepStarted
from agentrt.execution import Execution
from agentrt.group import errors_in
from agentrt.guidance import Guidance
from agentrt.journal import Notes
from agentrt.ledger import Ledger
from agentrt.model import Model
from agentrt.permission import Permissions
from agentrt.plan import Activation, Failure, Parked
from agentrt.progress import MISSING, Past
from agentrt.resources import Resources
from agentrt.statistics import SchedulerStatistics

DEFAULT_CONCURRENCY: Final = 1000
_PATIENCE: Final = 60.0
"""How many seconds longer than before code may take, when a run goes on, to give up what it had given up."""
_BREATHER: Final = 128
"""After so many steps the loop gets a turn, even if none of them awaited anything: else no time-out, no cancellation
and no reader of a stream would be heard before the last one."""


class Worker:
    """Be a task that runs steps, one after another, until one is cancelled."""

    __slots__ = ("is_cancelled", "task")

    task: anyio.TaskHandle[None]

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.task.cancel()


class Scheduler:
    """Run the steps of one run.

    `tasks` is the task group every worker lives in, `record` takes every event, `models` finds the model a node asks
    for, `clock` gives seconds since the epoch, and `deps` is what nodes read as `ctx.deps`. `seed` is what random
    numbers follow from. `abort` ends the run by an error; `flush` waits until all that was recorded is durable, if
    anything keeps it. `guidance` is what people had kept, `permissions` say which tools may be used, `notes` are kept
    beyond the run.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        *,
        run_id: str,
        seed: str,
        ledger: Ledger,
        record: Callable[[Event], None],
        models: Callable[[Model | str | None], Model],
        clock: Callable[[], float],
        abort: Callable[[AgentrtError], None],
        flush: Callable[[], Awaitable[None]] | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        deps: object = None,
        guidance: Sequence[Guidance] = (),
        permissions: Permissions | None = None,
        notes: Notes | None = None,
    ) -> None:
        self.run_id = run_id
        self.seed = seed
        self.ledger = ledger
        self.record = record
        self.models = models
        self.clock = clock
        self.deps = deps
        self.guidance = guidance
        self.permissions = permissions
        self.notes = notes
        self._abort = abort
        self._is_aborted = False
        self.flush = flush
        self.thread = threading.get_ident()
        self.exhaustion: BudgetExceeded | None = None
        self.dropped: list[Failure] = []
        self.is_ending: Callable[[BaseException], bool] = lambda _: False
        """Say of the error by which a task is cancelled whether the whole run is."""
        self.parking: set[str] = set()
        self.questions: dict[str, float | None] = {}
        """Until when the steps that wait for answers do so, by path."""
        self._tasks = tasks
        self.resources = Resources(tasks)
        """What steps share as long as the run lasts."""
        self._limit = concurrency
        self._queue: deque[Drive] = deque()
        self._queued = 0
        self._resuming: deque[anyio.Event] = deque()
        self._active = 1  # the task that runs the root step
        self._starting = 0
        self._burst = 1
        self._ended = self._ended_before = 0
        self._steps = 0
        self._cancelled = False
        self._cancelled_class = anyio.get_cancelled_exc_class()

    @property
    def is_recorded(self) -> bool:
        """Say whether a journal keeps the run."""
        return self.flush is not None

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<Scheduler {self.run_id}: {now.running} running, {now.queued} queued, {now.resuming} resuming>"

    def statistics(self) -> SchedulerStatistics:
        """Return how many steps run, wait in the queue, and wait for a slot to go on."""
        return SchedulerStatistics(running=self._active, queued=self._queued, resuming=len(self._resuming))

    async def step(
        self, activation: Activation, caller: StepContext, budget: Budget | None, waited: float, depth: int = 0
    ) -> Any:
        """Run one step to its end and return its output, or its `Failure`.

        Only cancellation leaves this method as an exception, so that a step's error never crosses a task group.
        `depth` counts the steps this one's task already runs around it.
        """
        if caller.past is not None and (outcome := await self._recalled(activation, caller, budget)) is not MISSING:
            return outcome
        self._steps += 1
        if not self._steps % _BREATHER:
            await checkpoint()
        node, path, value = activation.node, activation.path, activation.value
        try:
            context = self._open(activation, caller, budget, depth)
        except (BudgetExceeded, DefinitionError) as error:
            return self._refused(activation, caller, error)
        if not context.silent:
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
                    counts=context.counts,
                    untrusted=tuple(sorted(context.untrusted)) if context.untrusted else (),
                )
            )
        try:
            try:
                if context.limits or node.retry is not None or node.timeout is not None or self.permissions is not None:
                    output = await Execution(context, node, value).run()
                else:
                    output = await node.invoke(context, value)
                if type(output) is Failure:
                    raise _not_an_output(path)
            finally:
                context.is_over = True
                if context.held is not None or context.resources is not None:
                    await context.clean_up()
        except BaseException as error:  # noqa: BLE001 - every error of a step becomes its outcome, but for cancellation
            return self._ended_by(error, activation, context, caller)
        if context.read or node.untrusted or caller.past is not None or context.denial is not None:
            return self._finished(output, activation, context, caller)
        self.record(StepFinished(path=path, at=self.clock(), output=output))
        caller.note_outcome(activation, output)
        return output

    async def _recalled(self, activation: Activation, caller: StepContext, budget: Budget | None) -> Any:
        """Return what is known from an earlier part of the run as a step's outcome, else `MISSING`.

        At once, without a turn of the loop: a plan that catches up must not be cut off half-way, and forget what it had
        done. Only what code gave up waits for being given up again.
        """
        assert caller.past is not None
        if self._is_aborted:  # code that goes on from a mismatch comes no further than here
            await checkpoint()
        try:
            outcome = caller.past.outcome(activation)
        except ReplayMismatch as error:
            return self._aborted(activation, error)
        if isinstance(outcome, Parked):
            return outcome
        if outcome is not MISSING:
            caller.recall(activation, budget, outcome)
        elif caller.past.is_given_up(activation.path):
            return self._aborted(activation, await self._given_up(activation, caller.past))
        return outcome

    async def _given_up(self, activation: Activation, past: Past) -> ReplayMismatch:
        """Wait for code to cancel a step as it did before; return what to say if it does not."""
        seconds = past.seconds(activation.path)
        self.lend()
        try:
            await anyio.sleep(2 * seconds + _PATIENCE)
        finally:
            self.reclaim_nowait()
        recorded, asked = ("it was given up after seconds", seconds), ("nobody gave it up in seconds", 2 * seconds)
        return ReplayMismatch(activation.path, recorded=recorded, asked=asked)

    def open_scope(self) -> Resources:
        """Return what may hold the resources of an agent."""
        return Resources(self._tasks)

    def withdraw(self, path: str) -> bool:
        """Take note that nobody waits any more for what a step and those below it ask people; say if they did."""
        asked = [q for q in self.questions if q == path or q.startswith(f"{path}/")]
        for question in asked:
            del self.questions[question]
        return bool(asked)

    def abort(self, error: AgentrtError) -> None:
        """End the whole run by an error that no step may go on from: all are cancelled where they next wait."""
        self._is_aborted = True
        self._abort(error)

    def _aborted(self, activation: Activation, error: ReplayMismatch) -> Failure:
        self.abort(error)
        return Failure(activation.path, activation.value, error)

    def _open(self, activation: Activation, caller: StepContext, budget: Budget | None, depth: int) -> StepContext:
        """Open a step's context and accounts; raises `BudgetExceeded`.

        A step with limits of its own starts even where its start is refused, so that their policy covers that, too.
        """
        node, path, branch = activation.node, activation.path, activation.branch
        account = caller.account if branch is None or branch.account is None else branch.account
        context = StepContext(self, path, account, activation, depth, caller, caller.deadline, caller.past)
        if activation.given or caller.untrusted:
            context.untrusted = activation.given | caller.untrusted
        if caller.past is None and budget is None and node.budget is None:  # most steps: nothing but their start counts
            self.ledger.count(account, node.counts, path)
            context.counts = NAMES[node.counts]
            return context
        if caller.past is not None:
            context.silent = caller.past.is_over(path)
        context.open(filter(None, (budget, node.budget)), caller)
        try:
            context.count_start(node.counts)
        except BudgetExceeded as denial:
            if not context.limits:
                raise
            context.denial = denial
        return context

    def _refused(self, activation: Activation, caller: StepContext, error: BudgetExceeded | DefinitionError) -> Failure:
        """Return the failure of a step that may not start."""
        failure = Failure(activation.path, activation.value, error)
        if isinstance(error, BudgetExceeded):
            caller.record_denial(error)
            caller.note_denied(activation, failure, None)
        else:
            caller.note_not_started([activation])
        return failure

    def _finished(self, output: Any, activation: Activation, context: StepContext, caller: StepContext) -> Any:
        """Take the output of a step that has a past, or whose budget was exhausted."""
        if caller.past is not None and (mismatch := caller.past.mismatch(activation.path, output)) is not None:
            return self._failed(activation, context, caller, self._aborted(activation, mismatch))
        untrusted = context.tell_read(output)
        self._record_end(
            context, StepFinished(path=activation.path, at=self.clock(), output=output, untrusted=untrusted)
        )
        if context.denial is not None and not caller.path:  # the run's own budget ended it: more may be done
            self.exhaustion = context.denial
            caller.note_unfinished(context)
        else:
            caller.note_outcome(activation, output)
        return output

    def _ended_by(
        self, error: BaseException, activation: Activation, context: StepContext, caller: StepContext
    ) -> Failure | Parked:
        """Return the outcome of a step that an error ended; raises its cancellation."""
        path, value = activation.path, activation.value
        parked, error = _besides_parked(error)
        if parked is None and self.questions:
            self.withdraw(path)
        if isinstance(error, Exception):
            context.settle(error)
            return self._failed(activation, context, caller, context.failure_of(error, value))
        if parked is not None:
            self.record(StepParked(path=path, at=self.clock()))
            if path == parked.path:
                self.questions[path] = parked.until
            caller.note_unfinished(context)
            return parked
        if is_stray(error):
            return self._failed(activation, context, caller, Failure(path, value, _stray(path, error)))
        given_up = not (activation.given_up or self.is_ending(error) or self.parks(caller.path))
        given_up = given_up and anyio.current_time() < context.deadline
        self.record(StepCancelled(path=path, at=self.clock(), given_up=given_up))
        if not activation.given_up:
            caller.note_unfinished(context)
        raise error

    def parks(self, path: str) -> bool:
        """Say whether a step, or one around it, is on its way out to wait for people, and cancels what is below."""
        return any(path == parking or path.startswith(f"{parking}/") for parking in self.parking)

    def _failed(self, activation: Activation, context: StepContext, caller: StepContext, failure: Failure) -> Failure:
        path = activation.path
        of = tuple(blamed(failure.error, path)) if self.is_recorded else ()
        blame(failure.error, path)
        error, untrusted = ErrorInfo.of(failure.error), context.tell_read(failure.error)
        self._record_end(context, StepFailed(path=path, at=self.clock(), error=error, of=of, untrusted=untrusted))
        if isinstance(failure.error, BudgetExceeded):
            caller.note_denied(activation, failure, context)
        else:
            caller.note_outcome(activation, failure)
        return failure

    def _record_end(self, context: StepContext, end: StepFinished | StepFailed) -> None:
        """Record how a step ended, unless that is on record; in a run that is aborted no end is one to go on from."""
        if not context.silent:
            self.record(StepCancelled(path=end.path, at=end.at) if self._is_aborted else end)

    def push(self, drive: Drive, activations: Sequence[Activation]) -> None:
        """Queue activations that are ready, and see to it that somebody takes them."""
        now = self.clock()
        if not drive.ready:
            self._queue.append(drive)
        drive.ready.extend(zip(activations, repeat(now), strict=False))
        self._queued += len(activations)
        self._spawn()

    def _take(self) -> tuple[Drive, Activation, float] | None:
        """Return the next activation that is still wanted, from one drive after another, so that none starves."""
        while self._queue:
            drive = self._queue.popleft()
            if drive.is_over:
                self._queued -= len(drive.ready)
                continue
            activation, queued = drive.ready.popleft()
            self._queued -= 1
            if drive.ready:
                self._queue.append(drive)
            if not activation.given_up:
                return drive, activation, queued
        return None

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
        self._starting = max(0, min(self._burst, self._queued, self._limit - self._active))
        for _ in range(self._starting):
            worker = Worker()
            worker.task = self._tasks.create_task(self._work(worker), name="agentrt worker")

    async def _work(self, worker: Worker) -> None:
        self._starting -= 1
        self._active += 1
        try:
            while not self._resuming and not worker.is_cancelled and self._active <= self._limit:
                if (taken := self._take()) is None:
                    return
                drive, activation, queued = taken
                del taken  # a worker may wait for long: what it holds then counts many times over
                if self._queue and not self._starting:  # asked before the call: most steps find nothing to start
                    self._spawn()
                drive.running[activation] = worker
                try:
                    outcome = await self.step(activation, drive.context, drive.budget, self.clock() - queued)
                except BaseException:
                    drive.cancelled(activation)
                    raise
                drive.ended(activation, outcome)
                self._ended += 1
        except self._cancelled_class:
            if worker.is_cancelled:
                return
            # Cancelled with the task group around it, which needs no telling: let out, the error would live on in the
            # task with the frames of all it went through, and of 100,000 tasks at once that is what cancelling costs.
            self._cancelled = self._cancelled or anyio.current_effective_deadline() == -math.inf
            if not self._cancelled:
                raise  # a step cancelled its own task, and with it the run: the group must hear of it
        finally:
            self._active -= 1
            self._hand_on()


def _besides_parked(error: BaseException) -> tuple[Parked | None, BaseException]:
    """Return what says that a step waits for people, and what else its own task group raised beside that, if anything.

    Where there is something else it counts.
    """
    if isinstance(error, BaseExceptionGroup):
        parked, rest = error.split(Parked)
        if parked is not None and rest is not None:
            return None, rest
        if parked is not None:
            error = next(errors_in(parked))
    return (error if isinstance(error, Parked) else None), error


def _not_an_output(path: str) -> AgentrtError:
    return AgentrtError(
        f"{path} returned a Failure, which would be taken for its own: raise its .error, or return that or a part of it"
    )


def _stray(path: str, error: BaseException) -> AgentrtError:
    stray = AgentrtError(f"something that {path} awaited was cancelled, but not by the run")
    stray.__cause__ = error
    return stray
