"""Steps: the spans of one open step, and what is known of it until it ends."""

from __future__ import annotations

from contextvars import Token
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, set_span_in_context

from agentrt.events import StepStarted
from agentrt.tracing import conventions as c
from agentrt.tracing.endings import close
from agentrt.tracing.operations import Attributes, billed, totals
from agentrt.usage import Usage

MOST_PREDECESSORS: Final = 131_072
"""Ended activations that one graph remembers for links to them; the oldest is forgotten first."""


class Segment:
    """Count the spans of one trace of a run."""

    __slots__ = ("spans",)

    def __init__(self) -> None:
        self.spans = 0


class Step:
    """Hold the spans of one open step, from the outside in those of `node`, `attempt` and `operation` that it has.

    `span` is the innermost of them and `context` what steps below start in; `outer` is what attempts start in. A step
    without a parent is the run, or belongs to a run that is not sampled. `usage` is what the current attempt used;
    `begins` is when the operation does, which is later than now for an attempt that is still held back.
    """

    __slots__ = (
        "attempt", "attempts", "begins", "context", "dead", "ended", "event", "exhausted", "kind", "name", "node",
        "operation", "outer", "parent", "segment", "span", "streams", "token", "total", "usage", "waited",
    )  # fmt: skip

    def __init__(self, name: str, kind: str, span: Span, context: Context, segment: Segment) -> None:
        self.name = name
        self.kind = kind
        self.span = span
        self.context = self.outer = context
        self.segment = segment
        self.event: StepStarted | None = None
        self.parent: Step | None = None
        self.node: Span | None = None
        self.attempt: Span | None = None
        self.operation: Span | None = None
        self.token: Token[Context] | None = None
        self.attempts = 1
        self.begins = 0
        self.streams = False
        self.waited = 0.0
        self.usage: Usage | None = None
        self.total: Usage | None = None
        self.dead = 0
        self.exhausted = ""
        self.ended: dict[str, SpanContext] = {}

    @classmethod
    def below(cls, parent: Step, event: StepStarted) -> Step:
        """Return a step that has no span of its own yet."""
        step = cls(event.name, event.kind, parent.span, parent.context, parent.segment)
        step.event = event
        step.parent = parent
        return step

    def enter(self, span: Span) -> Span:
        """Go on inside a span that was just started."""
        self.segment.spans += 1
        self.span = span
        self.context = set_span_in_context(span, self.context)
        return span

    def charge(self, usage: Usage) -> None:
        self.usage = usage if self.usage is None else self.usage + usage

    def billed(self) -> Attributes:
        """Return what the attempt used, and charge it to the step around."""
        used, self.usage = self.usage, None
        if used is None:
            return {}
        self.total = used if self.total is None else self.total + used
        if self.parent is not None:
            self.parent.charge(used)
        return billed(used) if self.kind in {"agent", "chat", "embeddings"} else totals(used)

    def remember(self, path: str, activation: Step) -> None:
        """Keep what links to an ended activation need, while its graph runs."""
        self.ended[path] = (activation.node or activation.span).get_span_context()
        if len(self.ended) > MOST_PREDECESSORS:
            del self.ended[next(iter(self.ended))]

    def break_off(self, outcome: str, at: int) -> None:
        """End every span of the step, which has no end of its own here."""
        if self.operation is not None:
            close(self.operation, max(at, self.begins), {c.STEP_OUTCOME: outcome})
        for span in (self.attempt, self.node):
            if span is not None:
                close(span, at, {c.NODE_OUTCOME: outcome})


def sources(event: StepStarted) -> Attributes:
    """Name the predecessors: links alone are not enough, since Jaeger does not show their attributes."""
    if event.join is not None:
        arrived, expected = event.join
        return {c.JOIN_SOURCES: event.after, c.JOIN_EXPECTED: expected, c.JOIN_ARRIVED: arrived}
    if event.after and not event.path.startswith(event.after[0] + "/"):  # what follows START follows its graph
        return {c.EDGE_SOURCE: event.after[0]}
    return {}


def predecessors(event: StepStarted, graph: Step) -> list[Link]:
    """Return links to the steps of a graph that a step follows."""
    attributes = {c.LINK_TYPE: "edge" if event.join is None else "join"}
    return [Link(graph.ended[path], attributes) for path in event.after if path in graph.ended]


def continues(earlier: Span) -> list[Link]:
    """Link a span to the one in an earlier trace that it goes on from."""
    return [Link(earlier.get_span_context(), {c.LINK_TYPE: "segment"})]


def nanoseconds(at: float) -> int:
    """Return seconds since the epoch as OpenTelemetry counts them."""
    return int(at * 1_000_000_000)
