"""Functions as nodes."""

from __future__ import annotations

import inspect
import types
import typing
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import cached_property, partial
from typing import Any, TypeAlias, TypeVar, overload

import anyio.to_thread

from agentrt.arguments import Arguments
from agentrt.budget import Budget
from agentrt.deps import check_deps, needed_deps
from agentrt.errors import DefinitionError, InvalidArguments
from agentrt.interval import Interval, Outlook
from agentrt.node import Context, Node
from agentrt.retry import Retry

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
Runnable: TypeAlias = Node[Any, T] | Callable[..., Awaitable[T]]
"""What runs: a node, or an async function that is one."""


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
        self.is_async = _is_async(function, label)
        self._single = len(self.parameters) == 1
        self._plain = self.is_async and self._single and self._context is None
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

    def call(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Out]:
        """Call the function, in a thread if it is not async."""
        return self._call(ctx, args, kwargs)

    async def _call(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Out:
        if self._context is not None:
            check_deps(self.name, self.needs, ctx.deps)
            kwargs = {**kwargs, self._context: ctx}
        if self.is_async:
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
    if isinstance(value, type) and issubclass(value, Node):
        raise DefinitionError(f"{value.__name__} is a class: make a node of it, as in {value.__name__}(…)")
    if isinstance(value, list | tuple):
        raise DefinitionError(f"a {type(value).__name__} is not a node: write a star before it, as in *files(…)")
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
