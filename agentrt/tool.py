"""Tools: functions a model may call, and the one way any node becomes one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, final, get_args, get_origin, overload

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from agentrt.budget import STEPS, TOOL_CALLS, Budget
from agentrt.errors import DefinitionError
from agentrt.function import FunctionNode, as_node
from agentrt.interval import NONE, Interval, Outlook, started
from agentrt.messages import ToolSpec, tool_name
from agentrt.node import Context, Effect, Node
from agentrt.partial import Partial
from agentrt.question import happened, never, permitted
from agentrt.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Approval: TypeAlias = bool | Callable[[Mapping[str, Any]], bool]


class Tool(FunctionNode[R], Generic[P, R]):
    """Offer a typed function to models; called directly it is still the function.

    The JSON schema comes from the signature, the description from the docstring. `timeout` is in seconds; a tool
    that takes longer is cancelled and raises `StepTimeout`, but the thread of a plain `def` goes on. `retry` tries it
    again when it fails, such a one beside the first.
    effect: what it does to the world. `read` is nothing. Of the others it says what it means to do it twice, for a run
        whose process was killed meanwhile: `idempotent` is used again, `keyed` too, and gives the other side `ctx.key`,
        by which it knows the call; for `unsafe` a person is asked.
        What the function does before it asks people itself (`ctx.ask`) it does again when they have answered.
    approval: whether a person has to approve each call, or a function of the arguments that says so of this call.
    untrusted: whether its result comes from the outside world, and may hold what others want a model to do.

    A run of a tool alone takes its arguments by name, `run(price, {"hotel": "Zura Inn"})`, or the one it has as it is.

    Raises `DefinitionError` for a parameter without a type, and for a function that makes tools.
    """

    kind = "tool"
    counts = (STEPS, TOOL_CALLS)
    asks_policy = True

    def __init__(
        self,
        function: Callable[P, Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        budget: Budget | None = None,
        effect: Effect = "unsafe",
        approval: Approval = False,
        untrusted: bool = False,
    ) -> None:
        super().__init__(function, name=name, budget=budget, retry=retry, timeout=timeout)
        if effect not in get_args(Effect):
            raise DefinitionError(f"tool {self.name!r}: effect={effect!r}: use one of {', '.join(get_args(Effect))}")
        _check_no_maker(self)
        self.effect = effect
        self.approval = approval
        self.untrusted = untrusted
        self._plain = False  # an effect wants more around it than a plain function
        self.description = description or self.description
        self.attributes = {"description": self.description}
        self.arguments  # noqa: B018 - builds the schema now, so that a missing type is told where the tool is defined

    def interval(self, outlook: Outlook) -> Interval:
        """Add the question whether a call may be made to what the function takes."""
        asks = started(f"{outlook.path}/approve", (STEPS,)) if self.approval is not False else Interval()
        return super().interval(outlook) + Interval(NONE if self.approval is not True else asks.least, asks.most)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self.function(*args, **kwargs)

    @final
    def call(
        self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, why: str = ""
    ) -> Coroutine[Any, Any, R]:
        """Have the tool's effect, once it is allowed, approved and on record that it begins."""
        if self.approval is False and not ctx.is_recorded and not ctx.is_guarded:
            return self.use(ctx, args, kwargs, why=why)
        return self._call_on_record(ctx, args, kwargs, why)

    async def _call_on_record(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any], why: str) -> R:
        given = dict(await permitted(ctx, self, self._all_arguments(args, kwargs), why, approval=self._wants_approval))
        if ctx.doubts and self.effect == "unsafe" and (answer := await happened(ctx, self, given)) is not None:
            return self.read_output(answer.value)
        await ctx.begin_effect()
        return await self.use(ctx, (), given, why=why)

    def input_of(self, given: Any) -> Any:
        """Take arguments by name, as of several parameters, for one whose type takes no such mapping as it is.

        Raises `InvalidArguments` where they do not fit.
        """
        if not self._single or not isinstance(given, Mapping):
            return given
        try:
            TypeAdapter(self.input).validate_python(given, strict=True)
        except ValidationError:
            (value,) = self.arguments.parse(given).values()
            return value
        return given

    def _wants_approval(self, arguments: Mapping[str, Any]) -> bool:
        return self.approval(arguments) if callable(self.approval) else self.approval

    def use(
        self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, why: str = ""
    ) -> Coroutine[Any, Any, R]:
        """Do what the tool does, now that it may; `why` is what a model said as it asked for that."""
        if self.untrusted:  # from here on an error, too, may say what others want
            ctx.mark_untrusted(self.name)
        return self._call(ctx, args, kwargs)

    def _all_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, with the defaults, as `approval` and policies look at them."""
        defaults = {p.name: p.default for p in self.parameters if p.default is not p.empty}
        return {**defaults, **dict(zip((p.name for p in self.parameters), args, strict=False)), **kwargs}

    def read_output(self, value: object) -> R:
        """Read an output that a person stated."""
        output: R = TypeAdapter(self.output).validate_python(value)
        return output


class ToolMaker(Protocol):
    """Make a tool of a typed function, with the options that were given."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Tool[P, R]: ...


def _check_no_maker(tool: Tool[..., Any]) -> None:
    """Raise `DefinitionError` for a function whose values are tools: it was meant to be called by who defines."""
    parts = [get_origin(part) or part for part in (tool.output, *get_args(tool.output))]
    nodes = [isinstance(part, type) and issubclass(part, Node) for part in parts]
    if not any(nodes):
        return
    needed = ", ".join(p.name for p in tool.parameters if p.default is p.empty)
    call = f"{'*' * (not nodes[0])}{'await ' * tool.is_async}{tool.name}({needed})"
    raise DefinitionError(f"{tool.name} is no tool, but makes {'one' if nodes[0] else 'several'}: write {call}")


@overload
def tool(function: Callable[P, Awaitable[R]], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    retry: Retry | None = None,
    budget: Budget | None = None,
    effect: Effect = ...,
    approval: Approval = ...,
    untrusted: bool = ...,
) -> ToolMaker: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function; use it bare or with options.

    Raises `DefinitionError` for a signature that a model could not be told.
    """
    if function is None:
        return lambda f: Tool(f, **options)
    return Tool(function, **options)


def as_tool(value: Node[Any, Any] | Callable[..., Any]) -> Node[Any, Any]:
    """Return the node a model calls for this tool: any node serves, a plain function becomes a `Tool`."""
    node = as_node(value)
    return Tool(node.function) if type(node) is FunctionNode else node


def tool_spec(node: Node[Any, Any]) -> ToolSpec:
    """Describe a node to a model: its name, its description and the JSON schema of its input."""
    if not node.description:
        raise DefinitionError(f"{node.name!r} needs a description (or a docstring) to be used as a tool")
    return ToolSpec(tool_name(node.name), node.description, node.arguments.schema)


class ToolUse(Node[str, Any]):
    """Run a node as a tool on the JSON arguments a model wrote: one step, under the node's own name and kind.

    `call_id` is what the model calls this call, `why` what it said with it.

    Raises `InvalidArguments` where they do not fit; the arguments a person gave would be checked the same way.
    """

    counts = (STEPS, TOOL_CALLS)
    asks_policy = True

    def __init__(self, node: Node[Any, Any], call_id: str, why: str = "") -> None:
        self.why = why
        self.name, self.description, self.input, self.output = node.name, node.description, object, node.output
        self.budget, self.retry, self.timeout = node.budget, node.retry, node.timeout
        self.attributes = {**(node.attributes or {}), "call_id": call_id}
        self.kind = node.kind
        self.node = node
        self.effect, self.untrusted, self.is_trusted = node.tool_effect, node.untrusted, node.is_trusted
        self.wraps_up = node.wraps_up

    async def wrap_up(self, ctx: Context, value: Any, partial: Partial, /) -> Any:
        return await self.node.wrap_up(ctx, self.node.arguments.parse(value), partial)

    async def invoke(self, ctx: Context, value: str, /) -> Any:
        arguments = self.node.arguments.parse(value)
        if isinstance(self.node, Tool):
            return await self.node.call(ctx, (), arguments, why=self.why)
        if isinstance(self.node, FunctionNode):
            return await self.node.call(ctx, (), arguments)
        if ctx.is_guarded and self.effect is not None and not self.node.asks_policy:
            arguments = await permitted(ctx, self.node, arguments, self.why, approval=never)
        return await self.node.invoke(ctx, arguments)


def as_text(value: object) -> str:
    """Return a value as a model should read it: text as it is, else JSON of it, or of its `for_model()`."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # lone surrogates cannot be sent
    return to_json(_for_model(value), fallback=str, bytes_mode="base64", serialize_unknown=True).decode()


def _for_model(value: object) -> object:
    """Return what a model should read of a value, or of each in a list, where its class says so by `for_model`."""
    if isinstance(value, list | tuple):
        return [_read(one) for one in value]
    return _read(value)


def _read(value: object) -> object:
    read = getattr(type(value), "for_model", None)
    return value if read is None else read(value)
