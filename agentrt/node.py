"""A node: anything a step can execute; and the context through which a running node reaches the rest.

`Node` is the one interface of graphs, agents, tools, retrievers and model calls. A typed function is a node too.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import cached_property
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    overload,
)

import typing_extensions

from agentrt.arguments import Arguments
from agentrt.budget import STEPS, Budget, Limits
from agentrt.errors import DefinitionError
from agentrt.interval import Interval, Outlook, anything
from agentrt.ledger import Request
from agentrt.retry import Retry

if TYPE_CHECKING:
    from datetime import datetime
    from random import Random
    from uuid import UUID

    from agentrt.events import Event, QuestionAnswered, QuestionAsked
    from agentrt.guidance import Guidance
    from agentrt.journal import Notes
    from agentrt.model import Model
    from agentrt.partial import Partial
    from agentrt.plan import Plan
    from agentrt.remaining import Remaining
    from agentrt.usage import Usage

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")
D = typing_extensions.TypeVar("D", covariant=True, default=Any)

_RESERVED = frozenset({"chat", "START", "END"})


class Node(ABC, Generic[In, Out]):
    """Be something a step can execute.

    `kind` names the sort of step in events and traces, `counts` the dimensions of which each start spends one,
    `argument` an input that is no object, where it is written as arguments,
    `attributes` what displays and traces should know besides (a chat's model, a retriever's `k`), and `budget` caps
    every activation. `retry` tries a failed activation again; `timeout`, in seconds, ends an attempt with
    `StepTimeout`. `wraps_up` says that the node has an answer left when its budget is exhausted. `untrusted` says that
    its results come from the outside world, `is_trusted` that they are good whatever it has read. `parts` are the nodes
    it is made of, `needs` the class of deps it must be given, `handoffs` the names of the nodes it may hand its
    conversation to, `forks` those of the nodes it forks into once an item.

    Raises `DefinitionError` for a name that cannot stand in a path.
    """

    kind: str = "node"
    counts: tuple[int, ...] = (STEPS,)
    argument: ClassVar[str] = "input"
    effect: Effect | None = None
    asks_policy: bool = False
    """Whether the node itself asks the run's policy about each of its calls."""
    untrusted: bool = False
    is_trusted: bool = False
    attributes: Mapping[str, object] | None = None
    budget: Budget | None = None
    retry: Retry | None = None
    timeout: float | None = None
    wraps_up: bool = False
    needs: type[Any] | None = None
    handoffs: Sequence[str] = ()
    forks: Sequence[str] = ()
    parts: Sequence[Node[Any, Any]] = ()

    def __init__(
        self,
        name: str,
        *,
        input: Any = object,
        output: Any = object,
        description: str = "",
        budget: Budget | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
    ) -> None:
        if not name or set(name) & set("/#[]") or name in _RESERVED:
            reserved = ", ".join(sorted(_RESERVED))
            raise DefinitionError(f"{name!r} cannot name a node: use a name without / # [ ], and none of {reserved}")
        self.name = name
        self.input = input
        self.output = output
        self.description = description
        for option, given, kind in (("budget", budget, Budget), ("retry", retry, Retry)):
            if given is not None and not isinstance(given, kind):
                raise DefinitionError(f"{name}: {option}={given!r}: write {option}={kind.__name__}(…)")
        if timeout is not None and (not isinstance(timeout, int | float) or timeout <= 0):
            raise DefinitionError(f"{name}: timeout={timeout!r}: a time-out is a number of seconds above 0")
        self.budget = budget
        self.retry = retry
        self.timeout = timeout
        # Asked at every step, and found in a tenth of the time on the node itself.
        self.kind, self.counts, self.untrusted, self.attributes = (
            self.kind,
            self.counts,
            self.untrusted,
            self.attributes,
        )

    @property
    def notable_parts(self) -> Sequence[Node[Any, Any]]:
        """Return the parts that a check before a run has to look at: not plain functions, which need nothing."""
        return self.parts

    @abstractmethod
    def invoke(self, ctx: Context, value: In, /) -> Coroutine[Any, Any, Out]:
        """Do the work of one step: everything the step calls goes through `ctx`."""

    def interval(self, outlook: Outlook) -> Interval:
        """Return what one activation takes at least and at most, its own start and limits aside.

        A node of a class that does not say is taken to call anything, any number of times.
        """
        return anything(outlook.path, "calls what it likes at run time: give it a budget=")

    async def wrap_up(self, ctx: Context, value: Any, partial: Partial, /) -> Out:
        """Make an output of what there is once the node's own budget is exhausted.

        What this calls is paid from the share that was held back.
        """
        raise DefinitionError(f"{self.name} cannot wrap up")

    def limit(self, **limits: Unpack[Limits]) -> Self:
        """Return the same node under these limits, besides those it has; see `Budget`."""
        clone = copy.copy(self)
        clone.budget = replace(self.budget or Budget(), **limits)
        return clone

    def trusted(self) -> Self:
        """Return the same node, whose results are good whatever it has read: a number, say, or what people checked."""
        clone = copy.copy(self)
        clone.untrusted, clone.is_trusted = False, True
        return clone

    @property
    def tool_effect(self) -> Effect | None:
        """Return the node's effect as a tool: the worst, where it does not say and may act by itself."""
        return self.effect if self.effect is not None or self.kind in ("agent", "graph") else "unsafe"

    def input_of(self, given: Any) -> Any:
        """Return the input that a run of this node alone begins with, from what it was given."""
        return given

    @cached_property
    def arguments(self) -> Arguments:
        """Describe the node as a tool: how JSON arguments become its input."""
        return Arguments.of_type(self.name, self.input)

    def shown(self, output: Any) -> object:
        """Return what a model that has called the node as a tool should read of what it returned."""
        return output

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Context(ABC, Generic[D]):
    """Be what a running step may ask of the runtime; a function node gets it by annotating a parameter with it.

    `Context[Deps]` says of which class the run's `deps` must be; a plain `Context` takes any.
    """

    path: str
    """The path of this step (docs/design.md, "Paths")."""
    state: object
    """What the step keeps for wrapping up, if its budget is exhausted; None at the start of every attempt."""
    untrusted: frozenset[str]
    """The untrusted nodes whose results this step may have met: in its input, or from what it has called."""

    @property
    @abstractmethod
    def run_id(self) -> str:
        """Return what names the run."""

    @property
    @abstractmethod
    def deps(self) -> D:
        """Return what the run was given as `deps`: connections, settings, users; it appears in no event."""

    @property
    @abstractmethod
    def targets(self) -> Sequence[Node[Any, Any]]:
        """Return the nodes that edges lead to from here; none for a step called by code."""

    @overload
    async def run(
        self, node: Node[T, U], value: T, *, key: str | int | None = None, budget: Budget | None = None
    ) -> U: ...
    @overload
    async def run(
        self,
        node: Callable[..., Awaitable[U]],
        value: Any,
        *,
        key: str | int | None = None,
        budget: Budget | None = None,
    ) -> U: ...
    @overload
    async def run(
        self, node: Callable[..., U], value: Any, *, key: str | int | None = None, budget: Budget | None = None
    ) -> U: ...
    @abstractmethod
    async def run(self, node: Any, value: Any, *, key: str | int | None = None, budget: Budget | None = None) -> Any:
        """Run another node as a step below this one and return its output.

        Concurrent calls of one name from one step need different `key`s, so that their paths do not depend on timing.
        Raises what the node raises, and `BudgetExceeded`.
        """

    @overload
    async def map(
        self,
        node: Node[T, U],
        values: Sequence[T],
        *,
        limit: int | None = None,
        key: str | int | None = None,
        budget: Budget | None = None,
    ) -> list[U]: ...
    @overload
    async def map(
        self,
        node: Callable[..., Awaitable[U]],
        values: Sequence[Any],
        *,
        limit: int | None = None,
        key: str | int | None = None,
        budget: Budget | None = None,
    ) -> list[U]: ...
    @overload
    async def map(
        self,
        node: Callable[..., U],
        values: Sequence[Any],
        *,
        limit: int | None = None,
        key: str | int | None = None,
        budget: Budget | None = None,
    ) -> list[U]: ...
    @abstractmethod
    async def map(
        self,
        node: Any,
        values: Sequence[Any],
        *,
        limit: int | None = None,
        key: str | int | None = None,
        budget: Budget | None = None,
    ) -> list[Any]:
        """Run a node on every value, at most `limit` at once, and return the outputs in order.

        The first error cancels the rest and is raised. `budget` caps each of them. Concurrent maps of one name from
        one step need different `key`s.
        """

    @abstractmethod
    async def gather(self, calls: Sequence[tuple[Node[Any, Any], Any]]) -> list[Called]:
        """Run different nodes side by side and return, in order, what came of each: its output or its error.

        A denial by a budget around this step is raised (rule E1).
        """

    @abstractmethod
    def drive(self, plan: Plan) -> Coroutine[Any, Any, Any]:
        """Run a plan's activations as steps below this one until it has an output; raises its failure."""

    @abstractmethod
    def latest(self, node: Node[Any, T]) -> T:
        """Return the latest output of a node on this branch or one around it (rule G11); raises `LookupError`."""

    @property
    @abstractmethod
    def memory(self) -> dict[Node[Any, Any], Any]:
        """Return what nodes keep for their next visit on this branch, by node; empty for a step called by code."""

    @overload
    async def ask(
        self,
        prompt: str,
        output: type[U],
        *,
        about: Mapping[str, object] | None = None,
        timeout: float | None = None,
        default: U | None = None,
        key: str | int | None = None,
    ) -> U: ...
    @overload
    async def ask(
        self,
        prompt: str,
        *,
        about: Mapping[str, object] | None = None,
        timeout: float | None = None,
        default: str | None = None,
        key: str | int | None = None,
    ) -> str: ...
    @overload
    async def ask(
        self,
        prompt: str,
        output: Any,
        *,
        about: Mapping[str, object] | None = None,
        timeout: float | None = None,
        default: Any = None,
        key: str | int | None = None,
    ) -> Any: ...
    @abstractmethod
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
        """Ask people, and return the answer as a value of a type; the run is parked until somebody has answered.

        `about` is what they should know. After `timeout` seconds the answer is `default`. Raises `DefinitionError`
        in a run without a journal, which nobody could answer.
        """

    @property
    @abstractmethod
    def answered(self) -> tuple[QuestionAsked | None, QuestionAnswered | None]:
        """Return what this step has asked people in an earlier part of the run, and their answer."""

    @property
    @abstractmethod
    def guidance(self) -> Sequence[Guidance]:
        """Return what people had kept of their answers to questions that this step, or one below it, may ask again."""

    @property
    @abstractmethod
    def doubts(self) -> int:
        """Return how often this step may have had its effect in earlier parts of the run, which were cut off then."""

    @property
    @abstractmethod
    def is_recorded(self) -> bool:
        """Say whether a journal keeps the run."""

    @abstractmethod
    def mark_untrusted(self, *sources: str) -> None:
        """Note that this step has met what comes from outside, from the sources named."""

    @property
    @abstractmethod
    def is_guarded(self) -> bool:
        """Say whether the run has permissions: not every tool may be used as it is."""

    @abstractmethod
    def allows(self, node: Node[Any, Any]) -> bool:
        """Say whether the run allows that a tool is used at all."""

    @abstractmethod
    def must_be_approved(self, node: Node[Any, Any], arguments: Mapping[str, Any]) -> bool:
        """Say whether the run's policy has people approve a call; raises `CallDenied` for one that may not be made."""

    @abstractmethod
    async def resource(
        self,
        key: Hashable,
        open: Callable[[], AbstractAsyncContextManager[T]],
        *,
        scope: Literal["run", "agent"] = "run",
    ) -> T:
        """Return what `open()` yields, opened once and closed when its scope ends: a connection, a session.

        That is the run, or the innermost agent around this step. Whoever asks first opens it, in a task of its own;
        what has ended by an error is opened anew. A step that uses an agent's resource is gone through once more when a
        killed run goes on, so that the resource comes to the same state: what it returns must be the same again.
        Raises what `open` raises.
        """

    @property
    @abstractmethod
    def notes(self) -> Notes:
        """Return the notes kept where the run is kept; raises `DefinitionError` in a run without a journal."""

    @property
    @abstractmethod
    def goes_on(self) -> bool:
        """Say whether the run has a past: it goes on, or is gone through again."""

    @abstractmethod
    async def begin_effect(self) -> None:
        """Have it on record that this step's effect is about to happen."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Return what names this step among those of all runs: the same when its run goes on, for effects by key."""

    @property
    @abstractmethod
    def random(self) -> Random:
        """Return this step's random numbers, which come out the same when its run goes on."""

    @abstractmethod
    def uuid(self) -> UUID:
        """Return a new id, which comes out the same when the run goes on."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the time, in UTC; when the run goes on, the time it was then."""

    @abstractmethod
    def draw(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` returns, or what it had returned here when the run was recorded: plain JSON values."""

    @abstractmethod
    def emit(self, value: object) -> None:
        """Publish a value as an event of this step, for streams and displays."""

    @property
    @abstractmethod
    def budget(self) -> Remaining:
        """Tell what is left."""

    @abstractmethod
    def calls_left(self, node: Node[Any, Any]) -> int | None:
        """Return how often this step may still call a node by the node's own limit, None where it has none."""

    @abstractmethod
    def model(self, named: Model | str | None) -> Model:
        """Return the model a node should use: the run's own choice, else the named one, else the default."""

    @abstractmethod
    async def reserve(self, request: Request, *dimensions: int) -> Reservation:
        """Reserve the worst case of a leaf effect, waiting in turn if it has to; raises `BudgetExceeded`.

        Once that is granted one of each dimension is spent, as by `spend`.
        """

    @abstractmethod
    async def wait(self, until: Callable[[], Awaitable[object]]) -> None:
        """Wait for a time, a lock or a turn, lending this step's slot (`concurrency`) to others meanwhile.

        Who holds what other steps wait for, and may itself wait for a slot, lets them wait like this.
        """

    @abstractmethod
    def spend(self, *dimensions: int) -> None:
        """Spend one of each dimension at once (rule B2); raises `BudgetExceeded`, and then none is spent."""

    @abstractmethod
    def record(self, event: Event) -> None:
        """Record an event of this step, which carries its `path` and the time of its `clock`."""

    @abstractmethod
    def clock(self) -> float:
        """Return the time events carry, in seconds since the epoch."""

    @abstractmethod
    def retrying(
        self, error: Exception, *, delay: float = 0.0, model: str | None = None, attempts: int | None = None
    ) -> None:
        """Record that an attempt of this step ended in an error and another follows, which may ask another model.

        `attempts` is how many there may be.
        """

    @abstractmethod
    def text_delta(self, text: str) -> None:
        """Publish a piece of text that a model streams; an empty one says nothing."""


Effect: TypeAlias = Literal["read", "idempotent", "keyed", "unsafe"]
"""What a tool does to the world: nothing; or what may be done twice; twice with the same `ctx.key`; not twice."""


class Called(NamedTuple):
    """Hold the outcome of a call, an output or an error, and the untrusted nodes that it comes from."""

    outcome: Any
    untrusted: frozenset[str]


class Reservation(ABC):
    """Hold what a leaf may spend; end it exactly once, with `settle`, `release` or `forfeit`."""

    granted: int

    @abstractmethod
    def settle(self, usage: Usage) -> None:
        """Charge what was used and return the rest."""

    @abstractmethod
    def release(self) -> None:
        """Charge nothing: the effect is known not to be billed."""

    @abstractmethod
    def forfeit(self) -> None:
        """Charge the whole reservation, marked uncertain: nobody knows what will be billed (rule B9)."""
