"""The context of a running step: what `Context` promises, on a scheduler and its ledger."""

from __future__ import annotations

import threading
from abc import ABCMeta
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import anyio
import msgspec

from agentrt.budget import NAMES, Budget
from agentrt.draws import Draws
from agentrt.drive import Drive
from agentrt.errors import BudgetExceeded, CallDenied, DefinitionError, ReplayMismatch
from agentrt.events import (
    BudgetClamped,
    BudgetWaited,
    CallGivenUp,
    CallRefused,
    Counted,
    Drawn,
    EffectBegun,
    Emitted,
    ErrorInfo,
    QuestionAnswered,
    QuestionAsked,
    Remembered,
    StepRetried,
    TextDelta,
)
from agentrt.function import as_node
from agentrt.guidance import Guidance, place_of
from agentrt.journal import Notes
from agentrt.ledger import Request, Ticket
from agentrt.model import Model
from agentrt.node import Called, Context, Node, Reservation
from agentrt.permission import proposed
from agentrt.plan import Activation, BatchPlan, Failure, Parked, Plan
from agentrt.question import Question
from agentrt.remaining import Remaining
from agentrt.reservation import StepReservation
from agentrt.step import Step

if TYPE_CHECKING:
    from random import Random
    from uuid import UUID


T = TypeVar("T")


class _ContextMeta(ABCMeta, msgspec.StructMeta):
    """Make structs that promise what an abstract class does."""


class StepContext(Step, Context, metaclass=_ContextMeta, eq=False):
    """Be the context of one running step."""

    @property
    def run_id(self) -> str:
        return self.scheduler.run_id

    def mark_untrusted(self, *sources: str) -> None:
        self.meet(frozenset(sources))

    def calls_left(self, node: Node[Any, Any]) -> int | None:
        most = node.budget.calls if node.budget is not None else None
        return None if most is None else max(0, most - self.called.of_node(node.name))

    async def run(self, node: Any, value: Any, *, key: str | int | None = None, budget: Budget | None = None) -> Any:
        self.check_running()
        target, calls = as_node(node), self.called
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
            await self.called.park(self.slot.wait, labels)
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
        self.check_running()
        target, calls = as_node(node), self.called
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
        self.check_running()
        called = self.called
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

    def drive(self, plan: Plan) -> Coroutine[Any, Any, Any]:
        self.check_running()
        return Drive(self, plan).run()

    def latest(self, node: Any) -> Any:
        branch = self.activation.branch
        if branch is None:
            raise LookupError(f"{self.path} was called by code and is on no branch; pass it what it needs")
        return branch.lookup(as_node(node))

    @property
    def deps(self) -> Any:
        return self.scheduler.deps

    @property
    def targets(self) -> Sequence[Node[Any, Any]]:
        branch = self.activation.branch
        return () if branch is None else branch.targets(self.activation.node)

    @property
    def memory(self) -> dict[Node[Any, Any], Any]:
        branch = self.activation.branch
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

    @property
    def is_guarded(self) -> bool:
        return self.scheduler.permissions is not None

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
        node, permissions = self.activation.node, self.scheduler.permissions
        if permissions is not None and node.effect is not None and not self.allows(node):
            raise self._refused(permissions.denial(node.name))

    def _refused(self, denial: CallDenied) -> CallDenied:
        node = self.activation.node
        self.record(CallRefused(path=self.path, at=self.clock(), tool=node.name, because=str(denial)))
        return denial

    async def resource(
        self,
        key: Hashable,
        open: Callable[[], AbstractAsyncContextManager[T]],
        *,
        scope: Literal["run", "agent"] = "run",
    ) -> T:
        self.check_running()
        if scope not in ("run", "agent"):
            raise DefinitionError(f'scope={scope!r}: a resource lasts as long as its "run" or its "agent"')
        if scope == "agent":
            self._remember()
        agent = self._agent if scope == "agent" else None
        resources = self.scheduler.resources if agent is None else await agent.own_resources()
        return cast("T", await resources.get(key, open, self.wait))

    @property
    def _agent(self) -> Step | None:
        """Return the innermost agent around this step."""
        step: Step | None = self
        while step is not None and step.kind != "agent":
            step = step.caller
        return step

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
    def notes(self) -> Notes:
        self.check_running()
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
        self.check_running()
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
        self.check_running()
        self.spends += 1
        if self.past is not None and self.spends <= self.past.spends(self.path):
            return  # an earlier part of the run has
        self.count(dimensions)
        if self.is_recorded:
            self.record(Counted(path=self.path, at=self.clock(), counts=NAMES[dimensions]))

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
        self.check_running()
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
            self.count(dimensions)
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
        self.check_running()
        self.record(BudgetWaited(path=self.path, at=self.clock(), seconds=self.clock() - began))

    async def wait(self, until: Callable[[], Awaitable[object]]) -> None:
        await self.slot.wait(until)
