"""Guardrails: nodes that look at what goes into another node, or comes out of it, and may refuse it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar, overload

from msgspec.structs import replace

from agentrt.arguments import Arguments
from agentrt.errors import DefinitionError, GuardrailTripped
from agentrt.forecast import step_interval
from agentrt.function import FunctionNode, as_node
from agentrt.handoff import Handoff
from agentrt.interval import NONE, Interval, Outlook, repeated
from agentrt.node import Context, Node
from agentrt.partial import Partial
from agentrt.validation import fits, type_name

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
U = TypeVar("U")

Guardrail: TypeAlias = Node[Any, Any] | Callable[..., Any]
"""A function of the value, or any node, that returns None or True where all is well, else False or the reason."""


class Guarded(Node[In, Out], Generic[In, Out]):
    """Run a node between guardrails, as one step under the node's own name.

    What guardrails spend counts on the node's budget; its time-out and its retries are for all of them together.
    Raises `DefinitionError` for a guardrail that takes another plain class than the node is given, or gives.
    """

    def __init__(self, node: Node[In, Out], before: Sequence[Guardrail], after: Sequence[Guardrail]) -> None:
        super().__init__(
            node.name,
            input=node.input,
            output=node.output,
            description=node.description,
            budget=node.budget,
            retry=node.retry,
            timeout=node.timeout,
        )
        self.kind = node.kind
        self.counts = node.counts
        self.attributes = node.attributes
        self.effect, self.untrusted, self.is_trusted = node.effect, node.untrusted, node.is_trusted
        self.asks_policy = node.asks_policy  # it is invoked within this step
        self.handoffs = node.handoffs
        self.wraps_up = node.wraps_up
        self.node = node
        self.before = tuple(as_node(g) for g in before)
        self.after = tuple(as_node(g) for g in after)
        self.parts = (node, *self.before, *self.after)
        wrong = [
            *(_misfit(g, node, "is given", node.input) for g in self.before),
            *(_misfit(g, node, "gives", node.output) for g in self.after),
        ]
        if any(wrong):
            raise DefinitionError("; ".join(filter(None, wrong)))

    @cached_property
    def arguments(self) -> Arguments:
        inner = self.node.arguments
        if not isinstance(self.node, FunctionNode) or len(self.node.parameters) != 1:
            return inner
        name = self.node.parameters[0].name  # a function of one parameter takes the value itself

        def read(data: str | Mapping[str, Any]) -> Any:
            return inner.parse(data)[name]

        return Arguments(inner.schema, read)

    def interval(self, outlook: Outlook) -> Interval:
        """Return the node's interval and its guardrails'; those of the output run again after wrapping up."""
        later = replace(outlook, given=None)
        before = [step_interval(g, outlook) for g in self.before]
        after = sum((step_interval(g, later) for g in self.after), Interval())
        least = NONE if self.handoffs else after.least  # a handoff is no output
        after = Interval(least, repeated(after.most, 1 + outlook.wraps), after.call)
        return sum(before, Interval()) + self.node.interval(outlook) + after

    async def invoke(self, ctx: Context, value: In, /) -> Out:
        await self._check(ctx, self.before, value.input if isinstance(value, Handoff) else value)
        output = await self.node.invoke(ctx, value)
        if self.untrusted:  # before others look at it
            ctx.mark_untrusted(self.name)
        if not isinstance(output, Handoff):  # no answer yet: the conversation goes on elsewhere
            await self._check(ctx, self.after, output)
        return output

    async def wrap_up(self, ctx: Context, value: Any, partial: Partial, /) -> Out:
        output = await self.node.wrap_up(ctx, value, partial)
        await self._check(ctx, self.after, output)
        return output

    async def _check(self, ctx: Context, guardrails: Sequence[Node[Any, Any]], value: object) -> None:
        inner = unguarded(self.node)  # a graph's nodes have the paths that its guardrails of their names would have
        inside = {n.name for n in inner.parts} if inner.kind == "graph" else ()
        for guardrail in guardrails:
            try:
                verdict = await ctx.run(guardrail, value, key="guardrail" if guardrail.name in inside else None)
            except GuardrailTripped as trip:
                if trip.guardrail:
                    raise
                raise GuardrailTripped(trip.reason, guardrail=guardrail.name, node=self.name) from trip
            if (reason := _reason(guardrail.name, verdict)) is not None:
                raise GuardrailTripped(reason, guardrail=guardrail.name, node=self.name)


def unguarded(node: Node[Any, Any]) -> Node[Any, Any]:
    """Return the node inside the guardrails around it."""
    while isinstance(node, Guarded):
        node = node.node
    return node


def _misfit(guardrail: Node[Any, Any], node: Node[Any, Any], what: str, value: Any) -> str:
    """Say what is wrong with a guardrail that cannot take the value it is to look at; nothing if it can."""
    if fits(value, guardrail.input):
        return ""
    return f"guardrail {guardrail.name!r} takes {type_name(guardrail.input)}, but {node.name} {what} {type_name(value)}"


def _reason(name: str, verdict: object) -> str | None:
    if verdict is None or verdict is True:
        return None
    if verdict is False or isinstance(verdict, str):
        return verdict or "refused"
    raise DefinitionError(
        f"guardrail {name!r} returned {type(verdict).__name__}: return None or True where all is well, else False or "
        "the reason as text"
    )


@overload
def guarded(
    node: Node[T, U], *, before: Sequence[Guardrail] = (), after: Sequence[Guardrail] = ()
) -> Guarded[T, U]: ...
@overload
def guarded(
    node: Callable[..., Awaitable[U]], *, before: Sequence[Guardrail] = (), after: Sequence[Guardrail] = ()
) -> Guarded[Any, U]: ...
@overload
def guarded(
    node: Callable[..., U], *, before: Sequence[Guardrail] = (), after: Sequence[Guardrail] = ()
) -> Guarded[Any, U]: ...
def guarded(node: Any, *, before: Sequence[Guardrail] = (), after: Sequence[Guardrail] = ()) -> Guarded[Any, Any]:
    """Return a node that checks what goes into this one and what comes out, and raises `GuardrailTripped`.

    before: guardrails of the input, one after the other; the node does not start once one trips.
    after: guardrails of the output. A handoff is no output; the input of a handoff is what its conversation began with.

    A guardrail is a function of the value, which may take `ctx`, or any node. It returns None or True where all is
    well, False or a reason otherwise, or raises `GuardrailTripped`. Each is a step below the node.
    """
    return Guarded(as_node(node), before, after)
