"""Spans: an observer that turns a run's events into spans, with the OpenTelemetry API alone.

Parents, times and links come from the events and never from the task that happens to record them: branches run in
pooled workers, whose own context says nothing about the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Span, TracerProvider, set_span_in_context

from agentrt.events import (
    BranchDied,
    BudgetExhausted,
    Event,
    QuestionAnswered,
    QuestionAsked,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunParked,
    RunResumed,
    RunStarted,
    StepAbandoned,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepParked,
    StepRetried,
    StepStarted,
    TextDelta,
    UsageRecorded,
    outcome,
)
from agentrt.model import ModelResponse
from agentrt.tracing import content
from agentrt.tracing import conventions as c
from agentrt.tracing.carriers import leading_to
from agentrt.tracing.earlier import Earlier
from agentrt.tracing.endings import CountsDrops, close, error_status, error_type, retried, run_ended
from agentrt.tracing.operations import Attributes, answered, model_named, operation, totals
from agentrt.tracing.span_events import SpanEvent, marked, told
from agentrt.tracing.starts import Starts
from agentrt.tracing.steps import Segment, Step, continues, nanoseconds, predecessors
from agentrt.usage import Usage

if TYPE_CHECKING:
    from agentrt.options import Observer

LONG_WAIT: Final = 1.0
"""Seconds in the queue from which on a wait is drawn as a span of its own."""
MOST_SPANS: Final = 3000
"""Spans after which a run goes on in a new trace: Jaeger's critical path fails on far larger ones."""
MOST_EVENTS: Final = 128
"""Dead branches told one by one on a graph's span: what OpenTelemetry keeps of a span's events by default."""


def run_observer(run_id: str) -> Observer | None:
    """Return an observer that traces a run under the caller's current span; None if the process has no tracer."""
    provider = trace.get_tracer_provider()
    if type(provider).__module__.startswith("opentelemetry.trace"):  # the API's own providers record nothing
        return None
    return RunSpans(run_id, provider, get_current())


class RunSpans:
    """Turn the events of one run into spans, below the span that is current in `around`."""

    def __init__(self, run_id: str, provider: TracerProvider, around: Context) -> None:
        self._run_id = run_id
        self._provider = provider
        self._starts = Starts(run_id, provider, around)
        self._open: dict[str, Step] = {}
        self._recording = False
        self._run: RunStarted | RunResumed
        self._earlier: Earlier
        self._root: Step
        self.carrier: Mapping[str, str] = {}

    def __call__(self, event: Event) -> None:
        if (take := _TAKERS.get(type(event))) is not None:
            take(self, event)

    def start_run(self, event: RunStarted | RunResumed) -> None:
        self._run = event
        self._earlier = Earlier(event)
        span = self._starts.root(event, nanoseconds(event.at), self._earlier.links)
        self.carrier = leading_to(span)
        self._recording = span.is_recording()
        self._root = Step(event.name, "run", span, set_span_in_context(span, self._starts.around), Segment())
        self._open[event.name] = self._root

    def end_run(self, event: RunFinished | RunFailed | RunCancelled | RunParked) -> None:
        at = nanoseconds(event.at)
        for step in reversed(self._open.values()):  # left behind by code that lost its tasks
            step.break_off("cancelled", at)
        self._open.clear()
        span = self._root_span
        attributes = run_ended(self._run, event, self._root.exhausted)
        if isinstance(self._provider, CountsDrops):
            attributes[c.SPANS_DROPPED] = self._provider.dropped_of(self._run_id)
        if self._root.dead:
            attributes[c.BRANCHES_DIED] = self._root.dead
        span.set_attributes(attributes)
        if isinstance(event, RunFailed):
            span.set_status(error_status(event.error))
        span.end(at)

    @property
    def _root_span(self) -> Span:
        return trace.get_current_span(self._root.outer)

    def start(self, event: StepStarted) -> None:
        if event.path == self._run.name and event.kind == "graph":
            step = self._root  # a graph that is run is the root itself
            step.kind, step.event = event.kind, event
        else:
            if event.path != self._run.name and (lost := self._open.pop(event.path, None)) is not None:
                lost.break_off("cancelled", nanoseconds(event.at))
            step = self._open[event.path] = self._step(event)
        step.token = attach(step.context)
        if (answer := self._earlier.answer(event)) is not None:
            self.tell(answer)

    def _step(self, event: StepStarted) -> Step:
        """Start the spans of a step."""
        parent = self._nearest(event.path.rpartition("/")[0])
        if not self._recording:
            return Step(event.name, event.kind, parent.span, parent.context, parent.segment)
        began = nanoseconds(event.at - event.waited)
        if parent.segment.spans >= MOST_SPANS:
            self._move(parent, began, nanoseconds(event.at))
        step = Step.below(parent, event)
        found = operation(event)
        if found is None or parent.kind == "graph":
            self._starts.node(step, event, began, predecessors(event, parent), LONG_WAIT)
        if found is not None:
            self._starts.operation(step, event, found, nanoseconds(event.at))
        return step

    def retry(self, event: StepRetried) -> None:
        """End the spans of an attempt that failed, and start those of the next.

        Nobody knows of the first attempt that there will be another, so what it did lies below the step itself, and its
        own span is drawn beside that when it has failed.
        """
        step = self._open.get(event.path)
        if step is None or step.event is None or not self._recording:
            return
        at = nanoseconds(event.at)
        attributes = step.billed()
        if step.operation is not None:
            close(step.operation, at, {c.STEP_OUTCOME: "failed", **attributes}, event.error)
            attributes = {}
        if step.attempt is None:
            step.segment.spans += 1
            step.attempt = self._starts.attempt(step, event.attempt, nanoseconds(step.event.at))
        close(step.attempt, at, {c.NODE_OUTCOME: "failed", **retried(event), **attributes}, event.error)
        if event.model is not None:
            step.event = model_named(step.event, event.model)
        self._start_again(step, step.event, event)

    def _start_again(self, step: Step, begun: StepStarted, event: StepRetried) -> None:
        """Start the spans of the next attempt: it is due now, and does something after the delay."""
        if step.token is not None:
            detach(step.token)
        step.attempts, step.streams, step.context = event.attempt + 1, False, step.outer
        step.attempt = step.enter(self._starts.attempt(step, step.attempts, nanoseconds(event.at)))
        had, step.operation = step.operation, None
        if had is not None and (found := operation(begun)) is not None:
            self._starts.operation(step, begun, found, nanoseconds(event.at + event.delay))
        step.token = attach(step.context)

    def _move(self, step: Step, began: int, now: int) -> None:
        """Go on with a step in the run's latest trace, or in a new one if that is full as well.

        What is new has been due since `began`. Steps between the run and this one stay where they are, and end there:
        a deep chain of them would fill every new trace with itself.
        """
        if self._root.segment.spans >= MOST_SPANS:
            self._next_segment(began, now)
        if step is not self._root and step.event is not None:
            self._continue(step, step.event, began, now)

    def _next_segment(self, began: int, now: int) -> None:
        """End the root, and begin another with a link to it, which further steps of the run go below."""
        root, earlier, attempt = self._root, self._root_span, self._root.attempt
        root.break_off("continued", now)
        close(earlier, now, {c.RUN_STATUS: "continued"})
        root.span = self._starts.root(self._run, began, continues(earlier))
        self.carrier = leading_to(root.span)
        root.segment = Segment()
        root.context = root.outer = set_span_in_context(root.span, self._starts.around)
        if attempt is not None:
            root.attempt = root.enter(self._starts.attempt(root, root.attempts, began, continues(attempt)))

    def _continue(self, step: Step, event: StepStarted, began: int, now: int) -> None:
        """End the spans of an open step, and start them again below the run's latest root."""
        node, attempt, earlier = step.node, step.attempt, step.operation
        step.break_off("continued", now)
        step.node = step.attempt = step.operation = None
        step.segment, step.context = self._root.segment, self._root.context
        step.outer = step.context
        if node is not None:
            self._starts.node(step, event, began, continues(node), float("inf"))
        if attempt is not None:
            step.attempt = step.enter(self._starts.attempt(step, step.attempts, began, continues(attempt)))
        if earlier is not None and (found := operation(event)) is not None:
            self._starts.operation(step, event, found, began, continues(earlier))

    def end(self, event: StepFinished | StepFailed | StepCancelled | StepParked) -> None:
        step = self._open.get(event.path)
        if step is None or (step is self._root and step.token is None):
            return
        if step.token is not None:
            detach(step.token)
            step.token = None
        if step is not self._root:
            del self._open[event.path]
        if self._recording:
            self._close(step, event)

    def _close(self, step: Step, event: StepFinished | StepFailed | StepCancelled | StepParked) -> None:
        """End the spans of a step, from the inside out; the root's own ends with the run."""
        at, how = nanoseconds(event.at), outcome(event, step.exhausted)
        error = event.error if isinstance(event, StepFailed) else None
        attributes = self._known(step, event)
        if step.operation is not None:
            close(step.operation, max(at, step.begins), {c.STEP_OUTCOME: how, **attributes}, error)
            attributes = {}
        if step.attempt is not None:
            close(step.attempt, at, {c.NODE_OUTCOME: how, **attributes}, error)
            step.attempt = None
            attributes = {c.NODE_ATTEMPTS: step.attempts, **(totals(step.total) if step.total else {})}
        if step.node is not None:
            close(step.node, at, {c.NODE_OUTCOME: how, **attributes}, error)
        if step.parent is not None and step.parent.kind == "graph":
            step.parent.remember(event.path, step)

    def _known(self, step: Step, event: StepFinished | StepFailed | StepCancelled | StepParked) -> Attributes:
        """Return what is known of a step only when it ends."""
        attributes: Attributes = {c.BRANCHES_DIED: step.dead} if step.dead else {}
        attributes |= step.billed()
        if isinstance(event, StepFinished | StepFailed) and event.untrusted:
            attributes[c.UNTRUSTED_OUTPUT] = event.untrusted
        if isinstance(event, StepFinished):
            if step.kind == "chat" and isinstance(event.output, ModelResponse):
                attributes |= answered(event.output)
            if self._starts.capture:
                attributes |= content.of_output(step.kind, event.output)
        return attributes

    def charge(self, event: UsageRecorded) -> None:
        """Charge a step, or the run for one that was cut off in an earlier part, and whose bill nobody knows."""
        step = self._nearest(event.path)
        step.charge(event.usage)
        if step.event is None and event.usage != Usage():
            step.span.set_attributes(self._earlier.doubt(event.usage))

    def abandon(self, _: StepAbandoned) -> None:
        self._root.span.set_attributes(self._earlier.abandon())

    def stream(self, event: TextDelta) -> None:
        step = self._open.get(event.path)
        if step is not None and not step.streams:
            step.streams = True
            step.span.set_attribute(c.REQUEST_STREAM, True)
            step.span.add_event(c.FIRST_CHUNK, timestamp=nanoseconds(event.at))

    def tell(self, event: SpanEvent) -> None:
        """Tell what held a step back, on its span; one that was refused before it began has none of its own."""
        step = self._nearest(event.path)
        if isinstance(event, BudgetExhausted):
            step.exhausted = event.policy
            if event.path == self._run.name:
                self._root.exhausted = event.policy
        name, attributes = told(event)
        if self._starts.capture and isinstance(event, QuestionAsked | QuestionAnswered):
            attributes |= content.of_question(event)
        step.span.set_attributes(marked(event, step))
        step.span.add_event(name, {c.STEP_PATH: event.path, **attributes}, nanoseconds(event.at))

    def lose_branch(self, event: BranchDied) -> None:
        graph = self._nearest(event.path.rpartition("/")[0])
        graph.dead += 1
        if graph.dead <= MOST_EVENTS:
            attributes: Attributes = {c.STEP_PATH: event.path}
            if event.error is not None:
                attributes[c.ERROR_TYPE] = error_type(event.error)
            graph.span.add_event(c.BRANCH_DIED, attributes, nanoseconds(event.at))

    def _nearest(self, path: str) -> Step:
        """Return the open step at a path, else the nearest around it: a step may be refused before it begins."""
        while path:
            if (step := self._open.get(path)) is not None:
                return step
            path = path.rpartition("/")[0]
        return self._root


_TAKERS: Final[Mapping[type[Event], Callable[[RunSpans, Any], None]]] = {
    **dict.fromkeys((RunStarted, RunResumed), RunSpans.start_run),
    StepStarted: RunSpans.start,
    StepRetried: RunSpans.retry,
    StepAbandoned: RunSpans.abandon,
    UsageRecorded: RunSpans.charge,
    TextDelta: RunSpans.stream,
    BranchDied: RunSpans.lose_branch,
    **dict.fromkeys(SpanEvent.__args__, RunSpans.tell),
    **dict.fromkeys((StepFinished, StepFailed, StepCancelled, StepParked), RunSpans.end),
    **dict.fromkeys((RunFinished, RunFailed, RunCancelled, RunParked), RunSpans.end_run),
}
