"""A node: anything a step can execute; and the context through which a running node reaches the rest.

`Node` is the one interface of graphs, agents, tools, retrievers and model calls. A typed function is a node too.
"""

from __future__ import annotations

import copy
import inspect
import types
import typing
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, ParamSpec, Self, TypeAlias, TypeVar, Unpack, overload

import anyio.to_thread
import typing_extensions
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError

from agentrt.budget import DIMENSIONS, STEPS, USD, Budget, Limits
from agentrt.deps import check_deps, needed_deps
from agentrt.errors import DefinitionError, InvalidArguments, number
from agentrt.interval import Interval, Outlook, anything
from agentrt.ledger import Account, Request
from agentrt.retry import Retry
from agentrt.usage import PICO

if TYPE_CHECKING:
    from datetime import datetime
    from random import Random
    from uuid import UUID

    from agentrt.events import Event, QuestionAnswered, QuestionAsked
    from agentrt.model import Model
    from agentrt.partial import Partial
    from agentrt.plan import Plan
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
    `attributes` what displays and traces should know besides (a chat's model, a retriever's `k`), and `budget` caps
    every activation. `retry` tries a failed activation again; `timeout`, in seconds, ends an attempt with
    `StepTimeout`. `wraps_up` says that the node has an answer left when its budget is exhausted. `parts` are the nodes
    it is made of, `needs` the class of deps it must be given, `handoffs` the names of the nodes it may hand its
    conversation to, `forks` those of the nodes it forks into once an item.

    Raises `DefinitionError` for a name that cannot stand in a path.
    """

    kind: ClassVar[str] = "node"
    counts: ClassVar[tuple[int, ...]] = (STEPS,)
    effect: Effect | None = None
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

    @cached_property
    def arguments(self) -> Arguments:
        """Describe the node as a tool: how JSON arguments become its input."""
        return Arguments.of_type(self.name, self.input)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Arguments:
    """Turn JSON arguments into a node's input: the one rule by which any node is a tool.

    A function takes its own parameters. Any other node whose input type is an object (a pydantic model, a dataclass,
    a typed dict) takes that object's fields, and every other input is the single field `input`.
    """

    def __init__(self, schema: dict[str, Any], read: Callable[[str | Mapping[str, Any]], Any]) -> None:
        self.schema = schema
        self._read = read

    def parse(self, arguments: str | Mapping[str, Any]) -> Any:
        """Return the input; raises `InvalidArguments` with one line a mistake, for a model to act on."""
        try:
            return self._read(arguments)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()]
            raise InvalidArguments("; ".join(lines)) from error

    @classmethod
    def of_type(cls, name: str, annotation: Any) -> Arguments:
        annotation = str if annotation in (object, Any, inspect.Parameter.empty) else annotation
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            schema = adapter.json_schema()
        except PydanticSchemaGenerationError as error:
            raise DefinitionError(f"{name!r} cannot be a tool: no JSON schema for its input {annotation!r}") from error
        if schema.get("type") == "object":
            return cls(schema, partial(_read_json, adapter.validate_json, adapter.validate_python))
        model = create_model(name, input=(annotation, ...))
        return cls(_schema(model), lambda data: _read_model(model, data).input)  # type: ignore[attr-defined]

    @classmethod
    def of_function(cls, name: str, parameters: Sequence[inspect.Parameter], notes: Mapping[str, str]) -> Arguments:
        from pydantic import Field

        fields: dict[str, Any] = {}
        for p in parameters:
            if p.annotation is inspect.Parameter.empty:
                raise DefinitionError(
                    f"parameter {p.name!r} of tool {name!r} has no type: write `def {name}({p.name}: str)`, "
                    "since the model is told the types"
                )
            default = ... if p.default is inspect.Parameter.empty else p.default
            fields[p.name] = (p.annotation, Field(default, description=notes.get(p.name)))
        try:
            model = create_model(name, __config__={"extra": "forbid", "arbitrary_types_allowed": False}, **fields)
            schema = _schema(model)
        except PydanticSchemaGenerationError as error:
            raise DefinitionError(f"tool {name!r}: {error.message}") from error
        names = [p.name for p in parameters]

        def read(data: str | Mapping[str, Any]) -> dict[str, Any]:
            parsed = _read_model(model, data)
            return {n: getattr(parsed, n) for n in names}

        return cls(schema, read)


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("title", None)
    return schema


def _read_json(from_json: Callable[..., Any], from_python: Callable[..., Any], data: str | Mapping[str, Any]) -> Any:
    return from_json(data or "{}") if isinstance(data, str) else from_python(data)


def _read_model(model: type[BaseModel], data: str | Mapping[str, Any]) -> BaseModel:
    parsed: BaseModel = _read_json(model.model_validate_json, model.model_validate, data)
    return parsed


class FunctionNode(Node[Any, Out]):
    """Run a typed function as a node; a plain `def` runs in a thread.

    A parameter annotated `Context`, or `Context[Deps]`, gets the step's context. A function of one other parameter
    gets the input as it is; of several, a mapping by name or a tuple in order.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        budget: Budget | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
    ) -> None:
        label = name or str(getattr(function, "__name__", type(function).__name__))
        if label == "<lambda>":
            raise DefinitionError("a lambda has no name to stand in paths: use `def`, or FunctionNode(f, name=…)")
        hints = _hints(function, label)
        parameters = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in _parameters(function, label)]
        contexts = {
            p.name: p.annotation for p in parameters if Context in (p.annotation, typing.get_origin(p.annotation))
        }
        self.parameters = [p for p in parameters if p.name not in contexts]
        self.function = function
        self._context = next(iter(contexts), None)
        self.needs = needed_deps(contexts[self._context]) if self._context else None
        self._is_async = _is_async(function, label)
        self._single = len(self.parameters) == 1
        self._plain = self._is_async and self._single and self._context is None
        super().__init__(
            label,
            input=_stated(self.parameters[0]) if self._single else object,
            output=hints.get("return", object),
            description=inspect.cleandoc(function.__doc__ or "").split("\n\n")[0],
            budget=budget,
            retry=retry,
            timeout=timeout,
        )

    @cached_property
    def arguments(self) -> Arguments:
        return Arguments.of_function(self.name, self.parameters, _parameter_notes(self.function))

    def interval(self, outlook: Outlook) -> Interval:
        return super().interval(outlook) if self._context is not None else Interval()

    def invoke(self, ctx: Context, value: Any, /) -> Coroutine[Any, Any, Out]:
        """Return what the function will do; a plain one has no layer of its own around it."""
        if self._plain:
            plain: Coroutine[Any, Any, Out] = self.function(value)
            return plain
        return self._invoke(ctx, value)

    async def _invoke(self, ctx: Context, value: Any) -> Out:
        if self._single:
            return await self.call(ctx, (value,), {})
        return await self.call(ctx, *self._spread(value))

    async def call(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Out:
        """Call the function, in a thread if it is not async."""
        if self._context is not None:
            check_deps(self.name, self.needs, ctx.deps)
            kwargs = {**kwargs, self._context: ctx}
        if self._is_async:
            result: Out = await self.function(*args, **kwargs)
            return result
        return await anyio.to_thread.run_sync(partial(self.function, *args, **kwargs), abandon_on_cancel=True)

    def _spread(self, value: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        if not self.parameters:
            return (), {}
        if isinstance(value, Mapping):
            return (), value
        if isinstance(value, (tuple, list)):
            return tuple(value), {}
        names = ", ".join(p.name for p in self.parameters)
        raise InvalidArguments(f"{self.name} takes {names}: send a mapping or a tuple, not {type(value).__name__}")


def _stated(parameter: inspect.Parameter) -> Any:
    return object if parameter.annotation is inspect.Parameter.empty else parameter.annotation


def _is_async(function: Callable[..., Any], label: str) -> bool:
    # An object with an async __call__ is a function too; a wrapper may be what it wraps, or may be async itself.
    forms = (function, inspect.unwrap(function), getattr(function, "__call__", None))  # noqa: B004
    if any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in forms):
        raise DefinitionError(f"{label!r} is a generator; return a list, or publish as you go with ctx.emit")
    return any(inspect.iscoroutinefunction(f) for f in forms)


def _parameters(function: Callable[..., Any], label: str) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{label!r} cannot be a node: {error}") from error
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise DefinitionError(f"{label!r} cannot be a node: name each parameter instead of {p}")
    return parameters


def _hints(function: Callable[..., Any], label: str) -> dict[str, Any]:
    target = function if isinstance(function, types.FunctionType | types.MethodType) else type(function).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError) as error:
        raise DefinitionError(f"the types of {label!r} cannot be read: {error}; define them at module level") from error


def _parameter_notes(function: Callable[..., Any]) -> dict[str, str]:
    from docstring_parser import parse

    return {p.arg_name: p.description for p in parse(function.__doc__ or "").params if p.description}


_MARK = "__agentrt_node__"
_marked: weakref.WeakKeyDictionary[Callable[..., Any], FunctionNode[Any]] = weakref.WeakKeyDictionary()
"""The nodes of what takes no attributes: built-in functions and bound methods."""


@overload
def as_node(value: Node[In, Out]) -> Node[In, Out]: ...
@overload
def as_node(value: Callable[..., Awaitable[T]]) -> Node[Any, T]: ...
@overload
def as_node(value: Callable[..., T]) -> Node[Any, T]: ...
def as_node(value: Any) -> Node[Any, Any]:
    """Return the value if it is a node, else the node of a typed function, always the same one.

    Raises `DefinitionError` for anything else.
    """
    if isinstance(value, Node):
        return value
    if not callable(value) or isinstance(value, type):
        raise DefinitionError(f"{value!r} is not a node: use an Agent, a Graph, a tool or a typed function")
    return _node_of(value)


def _node_of(function: Callable[..., Any]) -> FunctionNode[Any]:
    """Return the one node of a function, kept on the function itself, so that a closure goes with its node."""
    node: FunctionNode[Any] | None = getattr(function, _MARK, None)
    if isinstance(node, FunctionNode) and node.function is function:  # wrappers and methods show the mark inside them
        return node
    if not hasattr(function, "__dict__") or isinstance(function, types.MethodType):
        if (node := _marked.get(function)) is None:
            node = _marked[function] = FunctionNode(function)
        return node
    node = FunctionNode(function)
    setattr(function, _MARK, node)
    return node


class Context(ABC, Generic[D]):
    """Be what a running step may ask of the runtime; a function node gets it by annotating a parameter with it.

    `Context[Deps]` says of which class the run's `deps` must be; a plain `Context` takes any.
    """

    path: str
    """The path of this step (docs/design.md, "Paths")."""
    run_id: str
    state: object
    """What the step keeps for wrapping up, if its budget is exhausted; None at the start of every attempt."""

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
    async def gather(self, calls: Sequence[tuple[Node[Any, Any], Any]]) -> list[Any]:
        """Run different nodes side by side and return, in order, the output or the error of each.

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
    def doubts(self) -> int:
        """Return how often this step may have had its effect in earlier parts of the run, which were cut off then."""

    @property
    @abstractmethod
    def is_recorded(self) -> bool:
        """Say whether a journal keeps the run."""

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


Effect: TypeAlias = Literal["idempotent", "keyed", "unsafe"]
"""What it means to have a tool's effect twice: nothing; nothing with the same `ctx.key`; harm."""


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


class Remaining:
    """Tell what a step may still spend: for each capped dimension the least that any account around it has left."""

    def __init__(
        self, account: Account, deadline: float = float("inf"), now: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._account = account
        self._deadline = deadline
        self._now = now

    @property
    def spent(self) -> dict[str, float]:
        """Return what the innermost scope with a budget has spent, by dimension; `usd` in dollars."""
        amounts = zip(DIMENSIONS, self._account.spent, strict=True)
        return {name: amount / PICO if name == "usd" else amount for name, amount in amounts}

    @property
    def remaining(self) -> dict[str, float]:
        """Return what is left by dimension, reservations in flight taken off; uncapped dimensions are absent."""
        left: dict[str, float] = {}
        for scope in self._account.chain:
            for d, limit in scope.caps(self._account):
                room = max(0, limit - scope.spent[d] - scope.reserved[d])
                amount = room / PICO if d == USD else room
                left[DIMENSIONS[d]] = min(amount, left.get(DIMENSIONS[d], amount))
        if self._deadline < float("inf"):
            left["seconds"] = max(0.0, self._deadline - self._now())
        return left

    def __str__(self) -> str:
        """Tell a model, or a person: "3,120 tokens, 4 model calls, 20 s left"."""
        left = self.remaining
        return ", ".join(_amount(name, left[name]) for name in left) + " left" if left else "no limit"


def _amount(name: str, amount: float) -> str:
    if name == "usd":
        if amount >= 1 or not amount:
            return f"${amount:,.2f}"
        return f"${amount:.4f}" if amount >= 0.001 else f"${number(amount)}"
    if name == "seconds":
        return f"{amount:,.0f} s" if amount >= 1 else f"{amount:.1f} s"
    words = name.replace("_", " ")
    return f"{amount:,.0f} {words.removesuffix('s') if amount == 1 else words}"
