"""The context of a running step: what `Context` promises, on a scheduler and its ledger."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import anyio

from agentrt.budget import NAMES, Budget
from agentrt.calls import Calls
from agentrt.draws import Draws
from agentrt.drive import Drive
from agentrt.errors import AgentrtError, BudgetExceeded, CallDenied, DefinitionError, InvalidArguments, ReplayMismatch
from agentrt.events import (
    AttemptStarted,
    BudgetClamped,
    BudgetDenied,
    BudgetWaited,
    CallGivenUp,
    CallRefused,
    Counted,
    Drawn,
    EffectBegun,
    Emitted,
    ErrorInfo,
    Event,
    QuestionAnswered,
    QuestionAsked,
    Remembered,
    StepRetried,
    TextDelta,
)
from agentrt.function import as_node
from agentrt.guidance import Guidance, place_of
from agentrt.handoff import Handoff
from agentrt.journal import Notes
from agentrt.ledger import Account, Limit, Request, Ticket
from agentrt.model import Model
from agentrt.node import Called, Context, Node, Reservation
from agentrt.permission import proposed
from agentrt.plan import NOTHING, Activation, BatchPlan, Failure, Parked, Plan
from agentrt.progress import Denied, Past, Progress
from agentrt.question import Question
from agentrt.remaining import Remaining
from agentrt.reservation import StepReservation
from agentrt.resources import Resources
from agentrt.slot import Slot

if TYPE_CHECKING:
    from random import Random
    from uuid import UUID

    from agentrt.scheduler import Scheduler

T = TypeVar("T")

_REFUSALS: Final = (InvalidArguments, CallDenied)
"""Errors in our own words, before a tool has done anything."""
_DEEPEST: Final = 16
"""A task runs at most so many steps inside each other; deeper ones get a worker, so that no stack overflows."""


class StepContext(Context):
    """Be the context of one running step."""

    # What most steps never change is set on the class: a context is made for every step.
    limits: tuple[Limit, ...] = ()
    progress: Progress | None = None
    state: object = None
    denial: BudgetExceeded | None = None
    counts: tuple[str, ...] = ()
    held: list[StepReservation] | None = None
    is_over = False
    """Whether the step has ended: what it left behind may not act in its name any more."""
    attempts = 0
    spends = 0
    silent = False
    deadline = math.inf
    past: Past | None = None
    resources: Resources | None = None
    is_guarded = False
    untrusted = NOTHING
    read = NOTHING
    """The untrusted nodes whose results it has met itself, or a step below it."""
    _calls: Calls | None = None
    _draws: Draws | None = None
    _failure: Failure | None = None
    _remembers = False
    _slot: Slot | None = None

    def __init__(
        self,
        scheduler: Scheduler,
        path: str,
        account: Account,
        activation: Activation,
        depth: int,
        caller: StepContext | None,
    ) -> None:
        self.scheduler = scheduler
        self.depth = depth
        self.path = path
        self.account = account
        self._activation = activation
        self.caller = caller
        if caller is not None:
            self.deadline = caller.deadline
            self.past = caller.past

    @property
    def run_id(self) -> str:
        return self.scheduler.run_id

    def mark_untrusted(self, *sources: str) -> None:
        self.meet(frozenset(sources))

    def meet(self, read: frozenset[str]) -> None:
        """Note that the step, or one below it, has met what untrusted nodes returned."""
        self.read |= read
        self.untrusted |= read

    def tell_read(self, outcome: object) -> tuple[str, ...]:
        """Tell whoever takes the step's outcome which untrusted nodes it comes from, as the step ends.

        What was refused before it did anything comes from nowhere; nobody can vouch for a conversation handed over.
        """
        node = self._activation.node
        own = {node.name} if node.untrusted and not isinstance(outcome, _REFUSALS) else NOTHING
        vouched = node.is_trusted and not isinstance(outcome, Handoff)
        self._activation.read = NOTHING if vouched else self.read | own
        return tuple(sorted(self._activation.read))

    def open(self, budgets: Iterable[Budget], caller: StepContext) -> None:
        """Open an account for each budget on this step, the first one outermost; raises `BudgetExceeded`."""
        node, ledger, past = self._activation.node, self.scheduler.ledger, self.past
        budgets = tuple(budgets)
        for budget in budgets:
            check_policy(budget, node)
            if budget.calls is not None:
                caller.count_call(node, budget.calls, self.path)
        limits = past.limits(self.path) if past is not None else ()
        if not limits:
            account = self.account
            for budget in budgets:
                account = ledger.open(account, budget, self.path, () if past is None else past.spent(self.path))
                limits += (Limit(budget, account),)
        now = anyio.current_time()
        for limit in limits:
            limit.begin(now)
            self.deadline = min(self.deadline, limit.deadline)
            self.account = limit.account
        self.limits = limits

    def count_start(self, dimensions: tuple[int, ...]) -> None:
        """Spend one of each dimension, unless an earlier part of the run has; raises `BudgetExceeded` (rule B2)."""
        if self.past is None or not self.past.is_counted(self.path):
            self.scheduler.ledger.count(self.account, dimensions, self.path)
            self.counts = NAMES[dimensions]

    def begin_attempt(self, dimensions: tuple[int, ...]) -> None:
        """Spend one of each dimension for another attempt; raises `BudgetExceeded`."""
        self._count(dimensions)
        self.counts = NAMES[dimensions]
        self.record(AttemptStarted(path=self.path, at=self.clock(), counts=self.counts))

    def count_call(self, node: Node[Any, Any], most: int, path: str) -> None:
        """Count one more call of a node whose limit says how many there may be (rule B1)."""
        if (made := self._called.of_node(node.name)) >= most:
            denial = BudgetExceeded(scope=path, dimension="calls", needed=1, spent=made, limit=most, path=path)
            raise denial
        self._called.note_node(node.name)

    def calls_left(self, node: Node[Any, Any]) -> int | None:
        most = node.budget.calls if node.budget is not None else None
        return None if most is None else max(0, most - self._called.of_node(node.name))

    def is_denied_by(self, error: BaseException) -> bool:
        """Say whether an error is a denial by a budget of this step or one around it (rules E1, E2)."""
        return isinstance(error, BudgetExceeded) and error.account in self.account.chain

    def restart(self) -> None:
        """Begin another attempt: what it calls gets the same paths again."""
        self.forfeit_held()
        if self.resources is not None:
            self.resources.close()
        self.past = None if self.past is None else self.past.restarted(self.path)
        self._draws, self.spends = None, 0
        self._calls = self._failure = self.progress = self.state = None

    def recall(self, activation: Activation, budget: Budget | None, outcome: Any) -> None:
        """Take over how a step right below ended in an earlier part of the run, as if it had run in this one."""
        node, branch = activation.node, activation.branch
        if any(b is not None and b.calls is not None for b in (budget, node.budget)):
            self._called.note_node(node.name)
        if branch is not None and branch.memory is None and self.past is not None:
            branch.memory = self.past.memory(self.path, branch.label)
        if self.past is not None:
            activation.read = self.past.read(activation.path)
        self.note_outcome(activation, outcome)
        if self.past is not None and (denied := self.past.denied(activation.path)) is not None:
            self._tracked.denied[activation.path] = denied

    def note_outcome(self, activation: Activation, outcome: Any) -> None:
        """Remember how a step right below ended, if a budget around might make that worth knowing."""
        if not self.account.is_capped:
            return
        progress = self.progress
        if progress is None:
            progress = self._tracked
        progress.outcomes.append((activation.path, outcome))
        if activation.read:
            progress.read[activation.path] = activation.read
        branch = activation.branch
        if branch is not None and branch.memory:
            progress.memories[self.path, branch.label] = dict(branch.memory)

    def note_denied(self, activation: Activation, failure: Failure, below: StepContext | None) -> None:
        """Remember a step right below that a budget refused; `below` is its context, if it has started.

        Its failure is its outcome for whoever goes on from it.
        """
        if not self.account.is_capped:
            return
        rest = Progress()
        if below is None:
            rest.not_started.append(activation.path)
        else:
            below.hand_over(rest)
        self._tracked.denied[activation.path] = Denied(rest)
        self._tracked.outcomes.append((activation.path, failure))
        if activation.read:
            self._tracked.read[activation.path] = activation.read

    def tell(self, paths: Iterable[str], error: Exception) -> None:
        """Note that this step is given an error for steps right below it, which a budget may have refused."""
        if self.progress is not None:
            for path in paths:
                if (denied := self.progress.denied.get(path)) is not None:
                    denied.told = error

    def settle(self, error: BaseException | None = None) -> None:
        """Tell the denials that the step passed on, as it ends by this error, from those it went on from."""
        if self.progress is not None and self.progress.denied:
            self.progress.settle(_errors_in(error))

    def note_branch(self, path: str, limit: Limit) -> None:
        """Remember the limit of a branch that begins at a path."""
        if self.account.is_capped:
            self._tracked.branches[path] = limit

    def note_unfinished(self, below: StepContext) -> None:
        """Remember a step right below that ended without an outcome of its own: cancelled, or out of budget."""
        if self.account.is_capped:
            below.settle()
            below.hand_over(self._tracked)

    def hand_over(self, progress: Progress) -> None:
        """Give what this step had done, as it ends without an outcome, to the progress of the step around."""
        counted = bool(self.counts) or (self.past is not None and self.past.is_counted(self.path))
        drawn = () if self._draws is None else [Drawn(self.path, 0.0, name, value) for name, value in self._draws.made]
        progress.merge(self.path, self.progress, self.limits, counted=counted, spends=self.spends, drawn=drawn)

    def note_not_started(self, activations: Sequence[Activation]) -> None:
        if activations and self.account.is_capped:
            self._tracked.not_started += [a.path for a in activations]

    @property
    def _tracked(self) -> Progress:
        progress = self.progress
        if progress is None:
            progress = self.progress = Progress()
        return progress

    def forfeit_held(self) -> None:
        """Charge whole what was neither settled nor released (rule B9): it would be held for ever, and others wait."""
        for reservation in self.held or ():
            if reservation.held:
                reservation.forfeit()

    def _check_running(self) -> None:
        if self.is_over:
            raise AgentrtError(
                f"{self.path} has ended, and something it left behind still used its context: "
                "let a step wait for the tasks and threads it starts, in a task group of its own"
            )

    async def run(self, node: Any, value: Any, *, key: str | int | None = None, budget: Budget | None = None) -> Any:
        self._check_running()
        target, calls = as_node(node), self._called
        label = calls.label(target.name, key)
        calls.begin(label)
        activation = Activation(target, value, calls.path_of(label))
        try:
            if self.may_run_here:
                return self._output_of(await self.run_here(activation, budget))
            plan = BatchPlan(self.path, [activation])
            return (await Drive(self, plan, budget).run())[0]
        except Parked:
            await self._park(1, [activation])
            raise
        finally:
            calls.end(label)

    async def _park(self, labels: int, activations: Sequence[Activation]) -> None:
        """Wait for the other calls of this step's code, which may give up meanwhile those that wait for people."""
        try:
            await self._called.park(self.slot.wait, labels)
        except BaseException as error:
            for activation in () if self.scheduler.is_ending(error) or self.scheduler.parks(self.path) else activations:
                if self.scheduler.withdraw(activation.path):
                    self.record(CallGivenUp(path=activation.path, at=self.clock()))
            raise
        self.scheduler.parking.add(self.path)

    def _output_of(self, outcome: Any) -> Any:
        """Return the output of a step below; raises its error, or that it waits for people."""
        if isinstance(outcome, Failure):
            raise self.error_of(outcome)
        if isinstance(outcome, Parked):
            raise outcome
        return outcome

    async def run_here(self, activation: Activation, budget: Budget | None) -> Any:
        """Run a step below this one in this task, on this step's slot; return its output or its `Failure`."""
        with self.slot:
            outcome = await self.scheduler.step(activation, self, budget, 0.0, self.depth + 1)
        if activation.read:
            self.meet(activation.read)
        if isinstance(outcome, Failure):
            self.tell([activation.path], outcome.error)
        return outcome

    async def map(
        self,
        node: Any,
        values: Sequence[Any],
        *,
        limit: int | None = None,
        key: str | int | None = None,
        budget: Budget | None = None,
    ) -> list[Any]:
        self._check_running()
        target, calls = as_node(node), self._called
        if limit is not None and limit < 1:
            raise DefinitionError(f"ctx.map(limit={limit}): run at least one at a time")
        label = calls.label_of_map(target.name, key, len(values))
        if budget is not None:
            budget = budget.divided(self.budget.remaining, max(1, len(values)))
        calls.begin(label)
        prefix = calls.path_of(label)
        activations = [Activation(target, v, f"{prefix}{i}]") for i, v in enumerate(values)]
        try:
            plan = BatchPlan(self.path, activations, limit=limit)
            return cast("list[Any]", await Drive(self, plan, budget).run())
        except Parked:
            await self._park(1, activations)
            raise
        finally:
            calls.end(label)

    async def gather(self, calls: Sequence[tuple[Node[Any, Any], Any]]) -> list[Called]:
        self._check_running()
        called = self._called
        names = {node.name for node, _ in calls}
        called.begin(*names)
        activations = [Activation(n, value, called.path_of(n.name)) for n, value in calls]
        try:
            outcomes = await self._gather(activations)
            return [Called(outcome, a.read) for outcome, a in zip(outcomes, activations, strict=True)]
        except Parked:
            await self._park(len(names), activations)
            raise
        finally:
            called.end(*names)

    async def _gather(self, activations: Sequence[Activation]) -> list[Any]:
        if len(activations) == 1 and self.may_run_here:
            outcome = await self.run_here(activations[0], None)
            if isinstance(outcome, Failure) and not self.is_denied_by(outcome.error):
                return [outcome.error]
            return [self._output_of(outcome)]
        outcomes: list[Any] = await Drive(self, BatchPlan(self.path, activations, keep_errors=True)).run()
        return [o.error if isinstance(o, Failure) else o for o in outcomes]

    @property
    def _called(self) -> Calls:
        if self._calls is None:
            self._calls = Calls(self.path)
        return self._calls

    def drive(self, plan: Plan) -> Coroutine[Any, Any, Any]:
        self._check_running()
        return Drive(self, plan).run()

    def latest(self, node: Any) -> Any:
        branch = self._activation.branch
        if branch is None:
            raise LookupError(f"{self.path} was called by code and is on no branch; pass it what it needs")
        return branch.lookup(as_node(node))

    @property
    def deps(self) -> Any:
        return self.scheduler.deps

    @property
    def targets(self) -> Sequence[Node[Any, Any]]:
        branch = self._activation.branch
        return () if branch is None else branch.targets(self._activation.node)

    @property
    def memory(self) -> dict[Node[Any, Any], Any]:
        branch = self._activation.branch
        if branch is None:
            return {}
        self._remember()
        if branch.memory is None:
            branch.memory = {}
        return branch.memory

    def _remember(self) -> None:
        """Note that the step has to be gone through once more when its run goes on, to have its state again."""
        if not self._remembers and self.is_recorded:
            self._remembers = True
            self.record(Remembered(path=self.path, at=self.clock()))

    def allows(self, node: Node[Any, Any]) -> bool:
        permissions = self.scheduler.permissions
        return permissions is None or node.tool_effect is None or permissions.allows(node.name)

    def must_be_approved(self, node: Node[Any, Any], arguments: Mapping[str, Any]) -> bool:
        permissions = self.scheduler.permissions
        if permissions is None:
            return False
        try:
            return permissions.must_be_approved(proposed(node, self.path, arguments, self.untrusted))
        except CallDenied as denial:
            self._refused(denial)
            raise

    def check_allowed(self) -> None:
        """Raise `CallDenied` where the run does not allow this step's node, whoever calls it."""
        node, permissions = self._activation.node, self.scheduler.permissions
        if permissions is not None and node.effect is not None and not self.allows(node):
            raise self._refused(permissions.denial(node.name))

    def _refused(self, denial: CallDenied) -> CallDenied:
        node = self._activation.node
        self.record(CallRefused(path=self.path, at=self.clock(), tool=node.name, because=str(denial)))
        return denial

    async def resource(
        self,
        key: Hashable,
        open: Callable[[], AbstractAsyncContextManager[T]],
        *,
        scope: Literal["run", "agent"] = "run",
    ) -> T:
        self._check_running()
        if scope not in ("run", "agent"):
            raise DefinitionError(f'scope={scope!r}: a resource lasts as long as its "run" or its "agent"')
        if scope == "agent":
            self._remember()
        agent = self._agent if scope == "agent" else None
        resources = self.scheduler.resources if agent is None else await agent.own_resources()
        return cast("T", await resources.get(key, open, self.wait))

    @property
    def _agent(self) -> StepContext | None:
        """Return the innermost agent around this step."""
        step: StepContext | None = self
        while step is not None and step.kind != "agent":
            step = step.caller
        return step

    @property
    def kind(self) -> str:
        return self._activation.node.kind

    async def clean_up(self) -> None:
        """Let go of what the step held to its end."""
        self.forfeit_held()
        if self.resources is not None:
            await self.resources.aclose()

    async def own_resources(self) -> Resources:
        """Return what holds this step's resources, once those of its attempt before are closed."""
        if self.resources is not None and self.resources.is_closed and not self.is_over:
            await self.resources.aclose()
            self.resources = None
        if self.resources is None:
            self.resources = self.scheduler.open_scope()
        return self.resources

    @property
    def answered(self) -> tuple[QuestionAsked | None, QuestionAnswered | None]:
        return (None, None) if self.past is None else self.past.question(self.path)

    @property
    def guidance(self) -> Sequence[Guidance]:
        if not self.scheduler.guidance:
            return ()
        place = place_of(self.path)
        return [g for g in self.scheduler.guidance if g.place == place or g.place.startswith(f"{place}/")]

    @property
    def doubts(self) -> int:
        return 0 if self.past is None else self.past.doubts(self.path)

    @property
    def is_recorded(self) -> bool:
        return self.scheduler.is_recorded

    @property
    def notes(self) -> Notes:
        self._check_running()
        if self.scheduler.notes is None:
            raise DefinitionError(
                f"{self.path} keeps notes, and they are kept where the run is: run it with a journal, "
                "such as journal=open_store('sqlite:///runs.db')"
            )
        return self.scheduler.notes

    @property
    def goes_on(self) -> bool:
        return self.past is not None

    async def begin_effect(self) -> None:
        if self.scheduler.flush is not None:
            self.record(EffectBegun(path=self.path, at=self.clock()))
            await self.scheduler.flush()

    async def ask(
        self,
        prompt: str,
        output: Any = str,
        *,
        about: Mapping[str, object] | None = None,
        timeout: float | None = None,
        default: Any = None,
        key: str | int | None = None,
    ) -> Any:
        question = Question("ask", prompt, output, about=about or {}, timeout=timeout, default=default)
        return await self.run(question, prompt, key=key)

    @property
    def key(self) -> str:
        return f"{self.run_id}/{self.path}"

    @property
    def random(self) -> Random:
        return self._drawing.random

    def uuid(self) -> UUID:
        return self._drawing.uuid()

    def now(self) -> datetime:
        seconds = self.draw("now", self.clock)
        return datetime.fromtimestamp(seconds, UTC)

    def draw(self, name: str, make: Callable[[], T]) -> T:
        try:
            return cast("T", self._drawing.draw(name, make))
        except ReplayMismatch as error:
            self.scheduler.abort(error)
            raise

    @property
    def _drawing(self) -> Draws:
        if self._draws is None:
            known: Iterator[Drawn] = iter(()) if self.past is None else self.past.drawn(self.path)
            self._draws = Draws(self.scheduler.seed, self.path, known, self._record_draw)
        return self._draws

    def _record_draw(self, name: str, value: object) -> None:
        if self.is_recorded:
            self.record(Drawn(path=self.path, at=self.clock(), name=name, value=value))

    def emit(self, value: object) -> None:
        self._check_running()
        event = Emitted(path=self.path, at=self.scheduler.clock(), value=value)
        if threading.get_ident() == self.scheduler.thread:
            self.scheduler.record(event)
        else:  # a sync node, in a worker thread
            from anyio import from_thread

            from_thread.run_sync(self.scheduler.record, event)

    @property
    def budget(self) -> Remaining:
        return Remaining(self.account, self.deadline, anyio.current_time)

    def model(self, named: Model | str | None) -> Model:
        return self.scheduler.models(named)

    def spend(self, *dimensions: int) -> None:
        self._check_running()
        self.spends += 1
        if self.past is not None and self.spends <= self.past.spends(self.path):
            return  # an earlier part of the run has
        self._count(dimensions)
        if self.is_recorded:
            self.record(Counted(path=self.path, at=self.clock(), counts=NAMES[dimensions]))

    def _count(self, dimensions: tuple[int, ...]) -> None:
        try:
            self.scheduler.ledger.count(self.account, dimensions, self.path)
        except BudgetExceeded as denial:
            self.record_denial(denial)
            raise

    def record(self, event: Event) -> None:
        self._check_running()
        if not self.silent:
            self.scheduler.record(event)

    def clock(self) -> float:
        return self.scheduler.clock()

    def retrying(
        self, error: Exception, *, delay: float = 0.0, model: str | None = None, attempts: int | None = None
    ) -> None:
        self.attempts += 1
        self.record(
            StepRetried(
                path=self.path,
                at=self.clock(),
                attempt=self.attempts,
                error=ErrorInfo.of(error),
                delay=delay,
                model=model,
                attempts=attempts,
            )
        )

    def text_delta(self, text: str) -> None:
        if text and not self.is_over:  # a model's transport may hand over a last piece late: that is nobody's mistake
            self.scheduler.record(TextDelta(path=self.path, at=self.scheduler.clock(), text=text))

    async def reserve(self, request: Request, *dimensions: int) -> Reservation:
        self._check_running()
        ticket = self.scheduler.ledger.request(self.account, request, self.path)
        if ticket.waiting:
            await self._wait_for(ticket)
        if ticket.refusal is not None:
            self.record_denial(ticket.refusal)
            raise ticket.refusal
        reservation = StepReservation(self.scheduler, ticket)
        self.held = [*(r for r in self.held or () if r.held), reservation]
        if (granted := reservation.granted) < request.want:
            self.record(BudgetClamped(path=self.path, at=self.clock(), wanted=request.want, granted=granted))
        try:
            self._count(dimensions)
        except BudgetExceeded:
            reservation.release()
            raise
        if self.is_recorded:
            await reservation.make_durable(NAMES[dimensions])
        return reservation

    async def _wait_for(self, ticket: Ticket) -> None:
        """Wait until the ledger has decided on a request."""
        began, decided = self.clock(), anyio.Event()
        ticket.notify = decided.set
        try:
            await decided.wait()
        except BaseException:
            self.scheduler.ledger.withdraw(ticket)
            raise
        if self.is_over:  # what was left behind got its turn only now: it would hold the reservation for ever
            self.scheduler.ledger.withdraw(ticket)
        self._check_running()
        self.record(BudgetWaited(path=self.path, at=self.clock(), seconds=self.clock() - began))

    def record_denial(self, denial: BudgetExceeded) -> None:
        now = self.scheduler.clock()
        self.scheduler.record(BudgetDenied(path=denial.path, at=now, scope=denial.scope, dimension=denial.dimension))

    @property
    def slot(self) -> Slot:
        if self._slot is None:
            self._slot = Slot(self.scheduler)
        return self._slot

    @property
    def may_run_here(self) -> bool:
        """Say whether the step's own slot is free for a step below it, and its stack not too deep."""
        return (self._slot is None or self._slot.is_free) and self.depth < _DEEPEST

    async def wait(self, until: Callable[[], Awaitable[object]]) -> None:
        await self.slot.wait(until)

    def failure_of(self, error: Exception, value: object) -> Failure:
        """Return the failure of the step below if this is its error, so that the first step to fail is named."""
        if isinstance(error, ExceptionGroup):
            error = _one_error(error)
        if self._failure is not None and self._failure.error is error:
            return self._failure
        return Failure(self.path, value, error)

    def error_of(self, failure: Failure) -> Exception:
        """Return the error of a step below, to be raised here, and remember whose it is."""
        self._failure = failure
        return failure.error


class GuardedContext(StepContext):
    """Be the context of a step of a run that has permissions; the others do not pay for asking."""

    is_guarded = True


def check_policy(budget: Budget, node: Node[Any, Any]) -> None:
    """Raise `DefinitionError` if a budget says of a node what cannot be done there (rule E4)."""
    if budget.share is not None:
        raise DefinitionError(
            f"{node.name}: share= splits among branches: put it on edge(…, each=True, budget=) or ctx.map(…, budget=)"
        )
    if budget.on_exhausted == "wrap_up" and not node.wraps_up:
        raise DefinitionError(f"{node.name} cannot wrap up: only agents can, and graphs with Graph(…, wrap_up=node)")


def _errors_in(error: BaseException | None) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [one for inner in error.exceptions for one in _errors_in(inner)]
    return () if error is None else (error,)


def _one_error(group: ExceptionGroup[Exception]) -> Exception:
    """Return the denial inside the group of a user's own task group, else the group (rule E7)."""
    error: BaseException | None = group.subgroup(BudgetExceeded)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, BudgetExceeded) else group
