"""Spans: an observer that turns a run's events into spans, with the OpenTelemetry API alone.

Parents, times and links come from the events and never from the task that happens to record them: branches run in
pooled workers, whose own context says nothing about the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Token
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    set_span_in_context,
)

from agentrt.events import (
    BranchDied,
    BudgetClamped,
    BudgetDenied,
    BudgetOverrun,
    BudgetWaited,
    ErrorInfo,
    Event,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    UsageRecorded,
)
from agentrt.model import ModelResponse
from agentrt.tracing import content
from agentrt.tracing import conventions as c
from agentrt.tracing.operations import Attributes, answered, billed, operation, totals, workflow
from agentrt.usage import Usage

if TYPE_CHECKING:
    from agentrt.runtime import Observer

LONG_WAIT: Final = 1.0
"""Seconds in the queue from which on a wait is drawn as a span of its own."""
MOST_SPANS: Final = 3000
"""Spans after which a run's root is ended and a new trace begun: Jaeger's critical path fails on far larger ones."""
MOST_PREDECESSORS: Final = 131_072
"""Ended activations that one graph remembers for links to them; the oldest is forgotten first."""
MOST_EVENTS: Final = 128
"""Dead branches told one by one on a graph's span: what OpenTelemetry keeps of a span's events by default."""

_NOTHING: Final = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)


def run_observer(run_id: str) -> Observer | None:
    """Return an observer that traces a run under the caller's current span; None if the process has no tracer."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, _NOTHING):
        return None
    return RunSpans(run_id, provider, get_current())


@runtime_checkable
class CountsDrops(Protocol):
    """Be a provider that knows how many spans it has lost, as the one of `configure` does."""

    @property
    def dropped(self) -> int: ...


class Step:
    """Hold the spans of one open step; for an activation of a graph `node` is the span around `span`."""

    __slots__ = ("context", "dead", "ended", "kind", "name", "node", "parent", "span", "streams", "token", "usage")

    def __init__(self, name: str, kind: str, span: Span, context: Context) -> None:
        self.name = name
        self.kind = kind
        self.span = span
        self.context = context
        self.parent: Step | None = None
        self.node: Span | None = None
        self.token: Token[Context] | None = None
        self.streams = False
        self.usage: Usage | None = None
        self.dead = 0
        self.ended: dict[str, SpanContext] = {}

    def charge(self, usage: Usage) -> None:
        self.usage = usage if self.usage is None else self.usage + usage

    def remember(self, path: str, activation: Step) -> None:
        """Keep what links to an ended activation need, while its graph runs."""
        self.ended[path] = (activation.node or activation.span).get_span_context()
        if len(self.ended) > MOST_PREDECESSORS:
            del self.ended[next(iter(self.ended))]


class RunSpans:
    """Turn the events of one run into spans, below the span that is current in `around`."""

    def __init__(self, run_id: str, provider: TracerProvider, around: Context) -> None:
        from agentrt import __version__

        self._run_id = run_id
        self._provider = provider
        self._tracer = provider.get_tracer("agentrt", __version__)
        self._around = around
        self._capture = content.captured()
        self._dropped = _dropped(provider)
        self._open: dict[str, Step] = {}
        self._spans = 0
        self._segment = 0
        self._run: RunStarted
        self._root: Step

    def __call__(self, event: Event) -> None:
        match event:
            case TextDelta():
                self._first_chunk(event)
            case StepStarted():
                self._start(event)
            case StepFinished() | StepFailed() | StepCancelled():
                self._end(event)
            case UsageRecorded():
                self._charge(event)
            case BudgetClamped() | BudgetWaited() | BudgetDenied() | BudgetOverrun():
                self._tell(event)
            case BranchDied():
                self._branch_died(event)
            case RunStarted():
                self._start_run(event)
            case RunFinished() | RunFailed() | RunCancelled():
                self._end_run(event)
            case _:
                pass

    def _start_run(self, event: RunStarted) -> None:
        self._run = event
        span = self._start_root(_nanoseconds(event.at), ())
        self._root = Step(event.name, "run", span, set_span_in_context(span, self._around))
        self._open[event.name] = self._root

    def _start_root(self, at: int, links: Sequence[Link]) -> Span:
        name, kind, attributes = workflow(self._run.name)
        self._segment += 1
        attributes |= {c.RUN_ID: self._run_id, c.CONVERSATION_ID: self._run_id, c.RUN_SEGMENT: self._segment}
        attributes |= {f"{c.BUDGET}{dimension}.limit": limit for dimension, limit in self._run.limits.items()}
        return self._tracer.start_span(name, self._around, kind, attributes, links, start_time=at)

    def _next_segment(self, at: int) -> None:
        """End the root, and begin another with a link to it, which further steps of the run go below."""
        root, earlier = self._root, self._root.span
        earlier.set_attribute(c.RUN_STATUS, "continued")
        root.span = self._start_root(at, [Link(earlier.get_span_context(), {c.LINK_TYPE: "segment"})])
        root.context = set_span_in_context(root.span, self._around)
        earlier.end(at)
        self._spans = 0

    def _end_run(self, event: RunFinished | RunFailed | RunCancelled) -> None:
        span = self._root.span
        attributes: Attributes = {c.RUN_STATUS: "cancelled", **totals(event.usage), **self._spent(event)}
        if self._dropped is not None:
            attributes[c.SPANS_DROPPED] = (_dropped(self._provider) or 0) - self._dropped
        if self._root.dead:
            attributes[c.BRANCHES_DIED] = self._root.dead
        if not isinstance(event, RunCancelled):
            attributes[c.RUN_STATUS] = str(event.stop_reason)
        if isinstance(event, RunFailed):
            attributes |= {c.ERROR_TYPE: _error_type(event.error), c.ERROR_PATH: event.path}
            span.set_status(_error_status(event.error))
        span.set_attributes(attributes)
        span.end(_nanoseconds(event.at))

    def _spent(self, event: RunFinished | RunFailed | RunCancelled) -> Attributes:
        """Return what the run counted, and what it used of every limit it had."""
        counts = ("model_calls", "tool_calls", "steps")
        attributes: Attributes = {c.USAGE + name: getattr(event.usage, name) for name in counts}
        for dimension in self._run.limits:
            used = event.at - self._run.at if dimension == "seconds" else getattr(event.usage, dimension, None)
            if used is not None:
                attributes[f"{c.BUDGET}{dimension}.used"] = used
        return attributes

    def _start(self, event: StepStarted) -> None:
        if event.path == self._run.name and event.kind == "graph":
            step = self._root  # a graph that is run is the root itself
            step.kind = event.kind
        else:
            step = self._open[event.path] = self._step(event)
        step.token = attach(step.context)

    def _step(self, event: StepStarted) -> Step:
        """Start the spans of a step."""
        parent = self._nearest(event.path.rpartition("/")[0])
        if not parent.span.is_recording():
            return Step(event.name, event.kind, parent.span, parent.context)
        if parent is self._root and self._spans >= MOST_SPANS:
            self._next_segment(_nanoseconds(event.at - event.waited))
        found = operation(event)
        step = Step(event.name, event.kind, parent.span, parent.context)
        step.parent = parent
        if found is None or parent.kind == "graph":
            step.node = step.span = self._start_node(event, parent)
            step.context = set_span_in_context(step.span, step.context)
        if found is not None:
            name, kind, attributes = found
            step.span = self._start_operation(event, step, name, kind, attributes)
            step.context = set_span_in_context(step.span, step.context)
        return step

    def _start_node(self, event: StepStarted, parent: Step) -> Span:
        began = _nanoseconds(event.at - event.waited)
        attributes: Attributes = {c.RUN_ID: self._run_id, c.NODE_NAME: event.name, c.NODE_PATH: event.path}
        attributes |= _sources(event)
        if event.waited > 0:
            attributes[c.QUEUE_WAIT] = 1000 * event.waited
        links = _links(event, parent)
        self._spans += 1
        span = self._tracer.start_span(
            f"node {event.name}", parent.context, attributes=attributes, links=links, start_time=began
        )
        if event.waited >= LONG_WAIT:
            self._draw_wait(event, set_span_in_context(span, parent.context), began)
        return span

    def _draw_wait(self, event: StepStarted, context: Context, began: int) -> None:
        attributes = {c.RUN_ID: self._run_id, c.NODE_PATH: event.path}
        self._spans += 1
        span = self._tracer.start_span(f"queue {event.name}", context, attributes=attributes, start_time=began)
        span.end(_nanoseconds(event.at))

    def _start_operation(
        self, event: StepStarted, step: Step, name: str, kind: SpanKind, attributes: Attributes
    ) -> Span:
        attributes |= {c.RUN_ID: self._run_id, c.STEP_PATH: event.path}
        if step.parent is not None and step.parent.kind == "agent":
            attributes.setdefault(c.AGENT_NAME, step.parent.name)
        if event.attributes is not None and "call_id" in event.attributes:
            attributes[c.TOOL_CALL_ID] = str(event.attributes["call_id"])
        if event.waited > 0 and step.node is None:
            attributes[c.QUEUE_WAIT] = 1000 * event.waited
        if self._capture:
            attributes |= content.of_input(event)
        self._spans += 1
        return self._tracer.start_span(name, step.context, kind, attributes, start_time=_nanoseconds(event.at))

    def _end(self, event: StepFinished | StepFailed | StepCancelled) -> None:
        step = self._open.pop(event.path, None)
        if step is None:
            return
        if step.token is not None:
            detach(step.token)
        if step.parent is None:  # the root, which ends with the run, or a step of a run that is not sampled
            return
        outcome, attributes = self._outcome(step, event)
        if step.span is not step.node:
            _close(step.span, event, {c.STEP_OUTCOME: outcome, **attributes})
            attributes = {}
        if step.node is not None:
            _close(step.node, event, {c.NODE_OUTCOME: outcome, **attributes})
        if step.parent.kind == "graph":
            step.parent.remember(event.path, step)

    def _outcome(self, step: Step, event: StepFinished | StepFailed | StepCancelled) -> tuple[str, Attributes]:
        """Return how a step ended, and what is known of it only now."""
        attributes: Attributes = {c.BRANCHES_DIED: step.dead} if step.dead else {}
        if step.usage is not None and step.parent is not None:
            step.parent.charge(step.usage)
            attributes |= billed(step.usage) if step.kind in {"agent", "chat"} else totals(step.usage)
        match event:
            case StepFailed():
                return "failed", attributes
            case StepCancelled():
                return "cancelled", attributes
        if step.kind == "chat" and isinstance(event.output, ModelResponse):
            attributes |= answered(event.output)
        if self._capture:
            attributes |= content.of_output(step.kind, event.output)
        return "finished", attributes

    def _charge(self, event: UsageRecorded) -> None:
        self._nearest(event.path).charge(event.usage)

    def _first_chunk(self, event: TextDelta) -> None:
        step = self._open.get(event.path)
        if step is not None and not step.streams:
            step.streams = True
            step.span.set_attribute(c.REQUEST_STREAM, True)
            step.span.add_event(c.FIRST_CHUNK, timestamp=_nanoseconds(event.at))

    def _tell(self, event: BudgetClamped | BudgetWaited | BudgetDenied | BudgetOverrun) -> None:
        """Tell what the budget did, on the step's span; a step that was refused before it began has none of its own."""
        span = self._nearest(event.path).span
        if isinstance(event, BudgetClamped):
            span.set_attribute(c.REQUEST_MAX_TOKENS, event.granted)
        name, attributes = _budget_event(event)
        span.add_event(name, {c.STEP_PATH: event.path, **attributes}, _nanoseconds(event.at))

    def _branch_died(self, event: BranchDied) -> None:
        graph = self._nearest(event.path.rpartition("/")[0])
        graph.dead += 1
        if graph.dead <= MOST_EVENTS:
            attributes: Attributes = {c.STEP_PATH: event.path}
            if event.error is not None:
                attributes[c.ERROR_TYPE] = _error_type(event.error)
            graph.span.add_event(c.BRANCH_DIED, attributes, _nanoseconds(event.at))

    def _nearest(self, path: str) -> Step:
        """Return the open step at a path, else the nearest around it: a step may be refused before it begins."""
        while path:
            if (step := self._open.get(path)) is not None:
                return step
            path = path.rpartition("/")[0]
        return self._root


def _sources(event: StepStarted) -> Attributes:
    """Name the predecessors: links alone are not enough, since Jaeger does not show their attributes."""
    if event.join is not None:
        arrived, expected = event.join
        return {c.JOIN_SOURCES: event.after, c.JOIN_EXPECTED: expected, c.JOIN_ARRIVED: arrived}
    if event.after and not event.path.startswith(event.after[0] + "/"):  # what follows START follows its graph
        return {c.EDGE_SOURCE: event.after[0]}
    return {}


def _links(event: StepStarted, graph: Step) -> list[Link]:
    attributes = {c.LINK_TYPE: "edge" if event.join is None else "join"}
    return [Link(graph.ended[path], attributes) for path in event.after if path in graph.ended]


def _budget_event(event: BudgetClamped | BudgetWaited | BudgetDenied | BudgetOverrun) -> tuple[str, Attributes]:
    match event:
        case BudgetClamped():
            return c.BUDGET_CLAMPED, {c.BUDGET + "wanted": event.wanted, c.BUDGET + "granted": event.granted}
        case BudgetWaited():
            return c.BUDGET_WAITED, {c.BUDGET + "seconds": event.seconds}
        case BudgetDenied():
            return c.BUDGET_DENIED, {c.BUDGET + "scope": event.scope, c.BUDGET + "dimension": event.dimension}
        case BudgetOverrun():
            return c.BUDGET_OVERRUN, {c.BUDGET + "reserved": event.reserved, c.BUDGET + "billed": event.billed}


def _close(span: Span, event: StepFinished | StepFailed | StepCancelled, attributes: Attributes) -> None:
    """End a span; cancelled is no error."""
    if isinstance(event, StepFailed):
        attributes[c.ERROR_TYPE] = _error_type(event.error)
        span.set_status(_error_status(event.error))
    span.set_attributes(attributes)
    span.end(_nanoseconds(event.at))


def _error_status(error: ErrorInfo) -> Status:
    return Status(StatusCode.ERROR, error.message[: content.MOST_BYTES])


def _error_type(error: ErrorInfo) -> str:
    return c.BUDGET_EXCEEDED if error.type == "BudgetExceeded" else error.type


def _dropped(provider: TracerProvider) -> int | None:
    return provider.dropped if isinstance(provider, CountsDrops) else None


def _nanoseconds(at: float) -> int:
    return int(at * 1_000_000_000)
