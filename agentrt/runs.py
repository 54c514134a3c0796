"""A run: from its first event to its last, and again from where it stopped."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import partial
from pkgutil import resolve_name
from typing import Any, Final

import anyio
import msgspec
from anyio import TaskHandle
from anyio.abc import TaskGroup

from agentrt.budget import Budget, tightest
from agentrt.clock import event_clock
from agentrt.context import StepContext
from agentrt.deps import check_all_deps
from agentrt.errors import AgentrtError, BudgetExceeded, DefinitionError, ReplayMismatch, StepFailed
from agentrt.events import (
    BudgetDenied,
    CacheHit,
    ErrorInfo,
    Event,
    RateLimitWaited,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunMismatched,
    RunParked,
    RunResumed,
    RunStarted,
    StepRetried,
    Traced,
)
from agentrt.graph import Graph
from agentrt.group import one_error
from agentrt.guardrail import unguarded
from agentrt.guidance import Guidance
from agentrt.journal import JournalWriter
from agentrt.least import check_fits
from agentrt.ledger import Ledger
from agentrt.model import Models
from agentrt.node import Node
from agentrt.options import Observer, Options
from agentrt.partial import Partial
from agentrt.permission import Permissions, Policy, policy_name
from agentrt.plan import Activation, Failure, Parked
from agentrt.pricing import check_prices
from agentrt.progress import KeptPast, Past, Progress
from agentrt.recorded import Before, Recorded
from agentrt.replay import RecordedPast
from agentrt.result import Result, StopReason
from agentrt.scheduler import DEFAULT_CONCURRENCY, Scheduler
from agentrt.statistics import RunStatistics, SchedulerStatistics
from agentrt.step import check_policy
from agentrt.validation import fits

_IDLE: Final = SchedulerStatistics(running=0, queued=0, resuming=0)
_UNFINISHED: Final = object()
_TRACING: Final = "agentrt.tracing:run_observers"
_CARRIER: Final = "agentrt.tracing:carrier_of"
_logger = logging.getLogger("agentrt")


class Run:
    """Execute one run, and again from where it stopped."""

    def __init__(self, node: Node[Any, Any], input: Any, options: Options) -> None:
        if unknown := options.keys() - Options.__annotations__.keys():
            known = ", ".join(Options.__annotations__)
            raise TypeError(f"unknown option {', '.join(sorted(unknown))}: a run takes {known}")
        if isinstance(graph := unguarded(node), Graph):
            graph.compile()
        self.deps = options.get("deps")
        check_all_deps(node, self.deps)
        self.input = node.input_of(input)
        _check_input(node, self.input)
        self.concurrency = options.get("concurrency", DEFAULT_CONCURRENCY)
        if self.concurrency < 1:
            raise DefinitionError(f"concurrency={self.concurrency}: let at least one step work at a time")
        self.node = node
        self.budget = options.get("budget")
        if self.budget is not None:
            check_policy(self.budget, node)
        self.journal = options.get("journal")
        self.permissions = _permissions(options.get("allow"), options.get("policy"))
        self.observers = list(options.get("observers", ()))
        self.run_id = options.get("run_id") or new_run_id()
        self.ledger = Ledger(node.name, None)
        self.ledger.root.is_capped = self.budget is not None or node.budget is not None
        self.models = Models(options.get("model"))
        self.seed = self.run_id
        self.target = options.get("target")
        self.past: Past | None = None
        self.before = Before()
        self.writer: JournalWriter | None = None
        self._cut_off: Sequence[Event] = ()
        self._waited: RunParked | None = None
        self._aborted: AgentrtError | None = None
        self._cancel: Callable[[], object] = lambda: None
        self._carrier: Callable[[], Mapping[str, str]] = dict
        self._progress: Progress | None = None
        self._stopped: Result[Any] | None = None
        self._running: Scheduler | None = None
        self._guidance: Sequence[Guidance] = ()
        self._recorded: defaultdict[type[Event], int] = defaultdict(int)

    def statistics(self) -> RunStatistics:
        """Return what the run is doing now."""
        recorded = self._recorded
        steps = _IDLE if self._running is None else self._running.statistics()
        return RunStatistics(
            run_id=self.run_id,
            running=steps.running,
            queued=steps.queued,
            resuming=steps.resuming,
            retries=recorded[StepRetried],
            rate_limit_waits=recorded[RateLimitWaited],
            cache_hits=recorded[CacheHit],
            denials=recorded[BudgetDenied],
            events=sum(recorded.values()),
            ledger=self.ledger.statistics(),
        )

    async def execute(self) -> Result[Any]:
        writer = await self._begin()
        tracers = resolve_name(_TRACING)(self.run_id)
        self._carrier = partial(resolve_name(_CARRIER), tracers) if tracers else dict
        observers = [*self.observers, *tracers]
        outcome: Any = _UNFINISHED
        scheduler: Scheduler | None = None
        watching: TaskHandle[None] | None = None
        async with one_error(), anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                self._cancel = scope.cancel
                if writer is not None:
                    writer.on_failure = scope.cancel
                    observers.append(writer)
                    tasks.start_soon(writer.run, name="agentrt journal")
                try:
                    record = _Recorder(observers, self._recorded).record
                    scheduler = self._running = self._scheduler(tasks, record, writer.flush if writer else None)
                    if writer is not None:
                        watch = _Watch()
                        watching = tasks.create_task(watch.keep(), name="agentrt watch")
                        scheduler.is_ending = watch.is_ending
                    outcome = await self._steps(scheduler)
                finally:
                    self._running = None
                    if scheduler is not None:
                        tasks.start_soon(scheduler.resources.aclose, name="agentrt close")
                    if watching is not None:
                        watching.cancel()
                    # A task's own cancellation goes through shields: only in another task is closing safe from it.
                    tasks.start_soon(self.models.aclose, name="agentrt close")
                    if writer is not None:
                        writer.close()
        if writer is not None and writer.error is not None:
            raise writer.error
        if self._aborted is not None:
            raise self._aborted
        if outcome is _UNFINISHED or scheduler is None:
            raise AgentrtError(f"{self.node.name}: a step cancelled its own task, and with it the run")
        return self._result(outcome, scheduler)

    async def _begin(self) -> JournalWriter | None:
        """Check what can be told before anything runs, read what people had kept, and return the record's writer."""
        try:
            self._check()
            if self.journal is not None:
                self._guidance = await self.journal.guidance(self.node.name)
        except BaseException:
            if self.writer is not None:  # claimed to read the record: others need not wait for the claim's end
                await self.writer.release()
            raise
        writer, self.writer = self.writer, None
        if self.journal is not None and writer is None:
            writer = await JournalWriter.claim(self.journal, self.run_id, new=self.past is None)
        return writer

    def _check(self) -> None:
        """Raise `UnknownPrice` or `BudgetTooSmall` for what cannot be run within the budget."""
        self.check_prices()
        if self.past is None:
            check_fits(self.node, self.input, self.budget, self.models, self.models.override)

    def check_prices(self) -> None:
        """Raise `UnknownPrice` for a model without one, where the budget limits dollars."""
        check_prices(self.node, self.models, limited=self.budget is not None and self.budget.usd is not None)

    def go_through(self, recorded: Recorded) -> None:
        """Take a record for the past of a run that goes through all of it again."""
        self.past, self.seed = RecordedPast(recorded, again=True), recorded.seed
        self.before = Before(kind="replay", trace=recorded.trace)

    def go_on(self, recorded: Recorded, past: RecordedPast, writer: JournalWriter) -> None:
        """Take up where a record ends: what has finished answers from it, and is not paid again."""
        self.past, self.seed, self.writer = past, recorded.seed, writer
        self._waited = recorded.closing if isinstance(recorded.closing, RunParked) else None
        self.before = recorded.before
        self._cut_off = list(recorded.cut_off(time.time()))
        for event in self._cut_off:
            recorded.add(event)
        self.ledger.restore(recorded.spent(""), recorded.usage)

    def abort(self, error: AgentrtError) -> None:
        """End the run by an error that no step may go on from."""
        if self._aborted is None and self._running is not None:
            self._running.record(RunMismatched(run_id=self.run_id, at=self._running.clock(), error=ErrorInfo.of(error)))
        self._aborted = self._aborted or error
        self._cancel()

    async def resume(self, stopped: Result[Any], denial: BudgetExceeded, budget: Budget) -> Result[Any]:
        """Run again on what is known, with the limits of the account that refused raised (rule E5)."""
        recorded = await self._record()  # first: nothing may come between the check and what it allows
        progress = self._progress
        if self._stopped is not stopped:
            raise RuntimeError(f"run {self.run_id} went on already from here")
        limit = None if progress is None else progress.limit_of(denial.refused_by)
        if progress is None or limit is None:
            raise RuntimeError(f"run {self.run_id} cannot go on: {_why_not(denial, kept=progress is not None)}")
        _check_raised(denial, limit.budget, budget)
        is_the_runs = limit.budget is self.budget
        limit.budget = replace(limit.budget, share=None, **budget.limits())  # type: ignore[arg-type]
        if is_the_runs:
            self.budget = limit.budget
        self.ledger.raise_limits(limit.account, limit.budget)
        self.past, self._stopped, self._cut_off = KeptPast(progress, recorded), None, ()
        self.before = Before(parts=self.before.parts + 1, usage=self.ledger.usage(), trace=self.before.trace)
        return await self.execute()

    async def _record(self) -> RecordedPast | None:
        """Return what the journal knows of the run, if there is one."""
        if self.journal is None:
            return None
        recorded = Recorded(await self.journal.events(self.run_id))
        recorded.reopen()
        return RecordedPast(recorded)

    def _scheduler(self, tasks: TaskGroup, record: Observer, flush: Callable[[], Awaitable[None]] | None) -> Scheduler:
        return Scheduler(
            tasks,
            run_id=self.run_id,
            seed=self.seed,
            abort=self.abort,
            flush=flush,
            ledger=self.ledger,
            record=record,
            models=self.models,
            clock=event_clock(),
            concurrency=self.concurrency,
            deps=self.deps,
            guidance=self._guidance,
            permissions=self.permissions,
            notes=self.journal,
        )

    async def _steps(self, scheduler: Scheduler) -> Any:
        """Run the root step, between the events that open and close the run."""
        run_id, name, record = self.run_id, self.node.name, scheduler.record
        limits = self._limits()
        if self.past is None:
            record(
                RunStarted(
                    run_id=run_id,
                    at=scheduler.clock(),
                    name=name,
                    input=self.input,
                    limits=limits,
                    options=self._described(),
                    target=self.target,
                )
            )
        else:
            record(self._resumed(scheduler.clock(), limits))
        self._note_trace(scheduler)
        for event in self._cut_off:
            record(event)
        root = Activation(self.node, self.input, name)
        caller = StepContext(scheduler, "", self.ledger.root, root, -1, None, math.inf, self.past)
        try:
            outcome = await scheduler.step(root, caller, self.budget, 0.0)
        except BaseException:
            self._note_trace(scheduler)
            at = scheduler.clock()
            cancelled = RunCancelled(run_id=run_id, at=at, usage=self.ledger.usage())
            record(self._waits_on(at) or self._mismatched(at) or cancelled)
            raise
        caller.settle()
        self._progress = caller.progress
        self._note_trace(scheduler)
        at = scheduler.clock()
        record(self._waits_on(at) or self._mismatched(at) or self._closing_event(outcome, scheduler))
        return outcome

    def _mismatched(self, at: float) -> RunFailed | None:
        """Return the end of a run whose program does otherwise than is on record, whatever its code made of that."""
        if not isinstance(self._aborted, ReplayMismatch):
            return None
        error, usage = ErrorInfo.of(self._aborted), self.ledger.usage()
        path = self._aborted.path
        return RunFailed(run_id=self.run_id, at=at, path=path, error=error, usage=usage, stop_reason="failed")

    def _waits_on(self, at: float) -> RunParked | None:
        """Let a run wait as before that waited for people, and cannot go on with this program."""
        if self._aborted is None or self._waited is None:
            return None
        return msgspec.structs.replace(self._waited, run_id=self.run_id, at=at, usage=self.ledger.usage())

    def _resumed(self, at: float, limits: Mapping[str, float]) -> RunResumed:
        before = self.before
        return RunResumed(
            run_id=self.run_id,
            at=at,
            name=self.node.name,
            limits=limits,
            kind=before.kind,
            attempt=before.parts + 1,
            usage=before.usage,
            trace=before.trace,
            answers=before.answers,
            options=self._described(),
        )

    def _note_trace(self, scheduler: Scheduler) -> None:
        """Note where the run is traced now: the part that may follow, in whatever process, leads back there."""
        carrier = self._carrier()
        if carrier and carrier != self.before.trace:
            self.before = msgspec.structs.replace(self.before, trace=carrier)
            if scheduler.is_recorded:
                scheduler.record(Traced(run_id=self.run_id, at=scheduler.clock(), carrier=carrier))

    def _limits(self) -> dict[str, float]:
        """Return the tightest limits of the run and of its root node."""
        own = self._progress.limits.get(self.node.name, ()) if self._progress is not None else ()
        return tightest(*(limit.budget for limit in own)) if own else tightest(self.budget, self.node.budget)

    def _described(self) -> dict[str, object]:
        """Say how the run was started, as far as that can be written down, for the day it goes on elsewhere."""
        said: dict[str, object] = {"seed": self.seed, "concurrency": self.concurrency}
        if self.budget is not None:
            given = ((f.name, getattr(self.budget, f.name)) for f in fields(self.budget) if f.init)
            said["budget"] = {name: value for name, value in given if value is not None}
        if isinstance(self.models.override, str):
            said["model"] = self.models.override
        if self.permissions is not None and self.permissions.allow is not None:
            said["allow"] = list(self.permissions.allow)
        if self.permissions is not None and self.permissions.policy is not None:
            said["policy"] = policy_name(self.permissions.policy)
        return said

    def _stop_reason(self, outcome: Any, scheduler: Scheduler) -> StopReason:
        if isinstance(outcome, Parked):
            return StopReason.WAITING
        if isinstance(outcome, Failure):
            return StopReason.BUDGET_EXCEEDED if isinstance(outcome.error, BudgetExceeded) else StopReason.FAILED
        if scheduler.exhaustion is None:
            return StopReason.DONE
        return StopReason.PARTIAL if isinstance(outcome, Partial) else StopReason.WRAPPED_UP

    def _closing_event(self, outcome: Any, scheduler: Scheduler) -> RunFinished | RunFailed | RunParked:
        at, usage, stop_reason = scheduler.clock(), self.ledger.usage(), self._stop_reason(outcome, scheduler)
        if isinstance(outcome, Parked):
            questions = scheduler.questions
            due = min((until for until in questions.values() if until is not None), default=None)
            return RunParked(run_id=self.run_id, at=at, usage=usage, questions=tuple(questions), due=due)
        if not isinstance(outcome, Failure):
            return RunFinished(run_id=self.run_id, at=at, output=outcome, usage=usage, stop_reason=stop_reason)
        return RunFailed(
            run_id=self.run_id,
            at=at,
            path=outcome.path,
            error=ErrorInfo.of(outcome.error),
            usage=usage,
            stop_reason=stop_reason,
        )

    def _result(self, outcome: Any, scheduler: Scheduler) -> Result[Any]:
        error = outcome.error if isinstance(outcome, Failure) else None
        if error is not None and not isinstance(error, BudgetExceeded):
            raise StepFailed(outcome.path, outcome.input, error) from error
        denial = error or scheduler.exhaustion
        result: Result[Any] = Result(
            self,
            None if error or isinstance(outcome, Parked) else outcome,
            waits=outcome if isinstance(outcome, Parked) else None,
            stop_reason=self._stop_reason(outcome, scheduler),
            dropped=scheduler.dropped,
            denial=denial,
        )
        if denial is not None:
            self._stopped = denial.result = result
        if error is not None:
            raise error
        return result


def _permissions(allow: Sequence[str] | None, policy: Policy | None) -> Permissions | None:
    return None if allow is None and policy is None else Permissions(allow, policy)


def _check_input(node: Node[Any, Any], input: object) -> None:
    """Raise `DefinitionError` for an input that is not of the plain class the node takes."""
    if not fits(type(input), node.input):
        raise DefinitionError(
            f"{node.name} takes {node.input.__name__}, and was given {type(input).__name__}: {input!r:.80}"
        )


def _why_not(denial: BudgetExceeded, *, kept: bool) -> str:
    """Say what to do where no limit can be raised."""
    if denial.dimension == "calls":
        return (
            f"a limit on calls is part of what ran; raise it there, limit(calls=…) for {denial.scope!r}, and run again"
        )
    if not kept:
        return (
            f"the run had no budget, so what it had done was not kept; raise that of {denial.scope!r} and run again, "
            "or give the run a budget, too: run(…, budget=Budget(…))"
        )
    return f"no limit of this run refused {denial.path!r}"


def _check_raised(denial: BudgetExceeded, old: Budget, new: Budget) -> None:
    """Raise `DefinitionError` if the limit that was reached stays where it is."""
    before, after = (b.limits().get(denial.dimension, 0) for b in (old, new))
    if after <= before and denial.dimension != "seconds":
        raise DefinitionError(
            f"nothing to go on with: {denial.scope!r} ran out of {denial.dimension} at {before:,g}; "
            f"resume(budget=Budget({denial.dimension}=…)) with more"
        )


def new_run_id() -> str:
    """Return an id that sorts by time and that people can read aloud."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


class _Watch:
    """Know whether a whole run is being cancelled: a step that is cancelled sees all scopes around it as one.

    Its task has none of the scopes that code has made, and the host is the task of whoever runs the run.
    """

    def __init__(self) -> None:
        is_asyncio = anyio.get_cancelled_exc_class().__module__.startswith("asyncio")
        self._current = sys.modules["asyncio"].current_task if is_asyncio else lambda: None
        self._host = self._current()
        self._is_native = self._is_over = False
        self._task: anyio.TaskInfo | None = None

    async def keep(self) -> None:
        self._task = anyio.get_current_task()
        try:
            await anyio.sleep_forever()
        finally:
            self._is_over = True

    def is_ending(self, error: BaseException) -> bool:
        """Say so of the cancellation that an error is; one of the host by asyncio itself is known by its message."""
        if self._host is not None and self._current() is self._host:
            self._is_native = not str(error).startswith("Cancelled via cancel scope")
        if self._is_native and self._host is not None and self._host.cancelling():
            return True
        return self._is_over or (self._task is not None and self._task.has_pending_cancellation())


class _Recorder:
    """Pass every event to every observer; one that fails is logged and dropped."""

    def __init__(self, observers: Sequence[Observer], counts: defaultdict[type[Event], int]) -> None:
        self._observers = list(observers)
        self._counts = counts

    def record(self, event: Event) -> None:
        self._counts[type(event)] += 1
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                _logger.exception("observer %r failed and is dropped; the run goes on", observer)
                self._observers = [o for o in self._observers if o is not observer]
