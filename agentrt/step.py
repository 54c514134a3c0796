"""The bookkeeping of one running step: what it spends from, what it has met and called, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from agentrt.budget import NAMES, Budget
from agentrt.calls import Calls
from agentrt.errors import AgentrtError, BudgetExceeded, CallDenied, DefinitionError, InvalidArguments
from agentrt.events import AttemptStarted, BudgetDenied, Drawn, Event
from agentrt.group import errors_in
from agentrt.handoff import Handoff
from agentrt.ledger import Account, Limit
from agentrt.node import Node
from agentrt.plan import NOTHING, Activation, Failure
from agentrt.progress import Denied, Past, Progress
from agentrt.slot import Slot

if TYPE_CHECKING:
    from agentrt.draws import Draws
    from agentrt.reservation import StepReservation
    from agentrt.resources import Resources
    from agentrt.scheduler import Scheduler

_REFUSALS: Final = (InvalidArguments, CallDenied)
"""Errors in our own words, before a tool has done anything."""
_DEEPEST: Final = 16
"""A task runs at most so many steps inside each other; deeper ones get a worker, so that no stack overflows."""


class Step(msgspec.Struct, eq=False):
    """Hold one running step; a struct, since one is made for every step and asked many times.

    untrusted: the untrusted nodes whose results it may have met, in its input or since. read: those it has met itself,
    or a step below it. is_over: whether it has ended: what it left behind may not act in its name any more.
    """

    scheduler: Scheduler
    path: str
    account: Account
    activation: Activation
    depth: int
    caller: Step | None
    deadline: float
    past: Past | None
    untrusted: frozenset[str] = NOTHING
    read: frozenset[str] = NOTHING
    limits: tuple[Limit, ...] = ()
    counts: tuple[str, ...] = ()
    progress: Progress | None = None
    state: object = None
    denial: BudgetExceeded | None = None
    held: list[StepReservation] | None = None
    resources: Resources | None = None
    attempts: int = 0
    spends: int = 0
    silent: bool = False
    is_over: bool = False
    _calls: Calls | None = None
    _draws: Draws | None = None
    _failure: Failure | None = None
    _remembers: bool = False
    _slot: Slot | None = None

    def meet(self, read: frozenset[str]) -> None:
        """Note that the step, or one below it, has met what untrusted nodes returned."""
        self.read |= read
        self.untrusted |= read

    def tell_read(self, outcome: object) -> tuple[str, ...]:
        """Tell whoever takes the step's outcome which untrusted nodes it comes from, as the step ends.

        What was refused before it did anything comes from nowhere; nobody can vouch for a conversation handed over.
        """
        node = self.activation.node
        own = {node.name} if node.untrusted and not isinstance(outcome, _REFUSALS) else NOTHING
        vouched = node.is_trusted and not isinstance(outcome, Handoff)
        self.activation.read = NOTHING if vouched else self.read | own
        return tuple(sorted(self.activation.read))

    def open(self, budgets: Iterable[Budget], caller: Step) -> None:
        """Open an account for each budget on this step, the first one outermost; raises `BudgetExceeded`."""
        node, ledger, past = self.activation.node, self.scheduler.ledger, self.past
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
        self.count(dimensions)
        self.counts = NAMES[dimensions]
        self.record(AttemptStarted(path=self.path, at=self.clock(), counts=self.counts))

    def count_call(self, node: Node[Any, Any], most: int, path: str) -> None:
        """Count one more call of a node whose limit says how many there may be (rule B1)."""
        if (made := self.called.of_node(node.name)) >= most:
            denial = BudgetExceeded(scope=path, dimension="calls", needed=1, spent=made, limit=most, path=path)
            raise denial
        self.called.note_node(node.name)

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
            self.called.note_node(node.name)
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

    def note_denied(self, activation: Activation, failure: Failure, below: Step | None) -> None:
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
            self.progress.settle([] if error is None else list(errors_in(error)))

    def note_branch(self, path: str, limit: Limit) -> None:
        """Remember the limit of a branch that begins at a path."""
        if self.account.is_capped:
            self._tracked.branches[path] = limit

    def note_unfinished(self, below: Step) -> None:
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

    def forfeit_held(self) -> None:
        """Charge whole what was neither settled nor released (rule B9): it would be held for ever, and others wait."""
        for reservation in self.held or ():
            if reservation.held:
                reservation.forfeit()

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

    @property
    def slot(self) -> Slot:
        if self._slot is None:
            self._slot = Slot(self.scheduler)
        return self._slot

    @property
    def may_run_here(self) -> bool:
        """Say whether the step's own slot is free for a step below it, and its stack not too deep."""
        return (self._slot is None or self._slot.is_free) and self.depth < _DEEPEST

    @property
    def called(self) -> Calls:
        if self._calls is None:
            self._calls = Calls(self.path)
        return self._calls

    @property
    def kind(self) -> str:
        return self.activation.node.kind

    def check_running(self) -> None:
        if self.is_over:
            raise AgentrtError(
                f"{self.path} has ended, and something it left behind still used its context: "
                "let a step wait for the tasks and threads it starts, in a task group of its own"
            )

    def count(self, dimensions: tuple[int, ...]) -> None:
        try:
            self.scheduler.ledger.count(self.account, dimensions, self.path)
        except BudgetExceeded as denial:
            self.record_denial(denial)
            raise

    def record(self, event: Event) -> None:
        self.check_running()
        if not self.silent:
            self.scheduler.record(event)

    def record_denial(self, denial: BudgetExceeded) -> None:
        now = self.scheduler.clock()
        self.scheduler.record(BudgetDenied(path=denial.path, at=now, scope=denial.scope, dimension=denial.dimension))

    def clock(self) -> float:
        return self.scheduler.clock()

    @property
    def is_recorded(self) -> bool:
        return self.scheduler.is_recorded


def check_policy(budget: Budget, node: Node[Any, Any]) -> None:
    """Raise `DefinitionError` if a budget says of a node what cannot be done there (rule E4)."""
    if budget.share is not None:
        raise DefinitionError(
            f"{node.name}: share= splits among branches: put it on edge(…, each=True, budget=) or ctx.map(…, budget=)"
        )
    if budget.on_exhausted == "wrap_up" and not node.wraps_up:
        raise DefinitionError(f"{node.name} cannot wrap up: only agents can, and graphs with Graph(…, wrap_up=node)")


def _one_error(group: ExceptionGroup[Exception]) -> Exception:
    """Return the denial inside the group of a user's own task group, else the group (rule E7)."""
    return next((error for error in errors_in(group) if isinstance(error, BudgetExceeded)), group)
