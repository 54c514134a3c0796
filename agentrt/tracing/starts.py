"""Starts: where the spans of a run begin, with what is known of them then."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, TracerProvider

from agentrt.events import RunResumed, RunStarted, StepStarted
from agentrt.tracing import content
from agentrt.tracing import conventions as c
from agentrt.tracing.operations import Attributes, Operation, workflow
from agentrt.tracing.steps import Step, nanoseconds, sources


class Starts:
    """Start the spans of one run; the root's lie below `around`."""

    def __init__(self, run_id: str, provider: TracerProvider, around: Context) -> None:
        from agentrt import __version__

        self.around = around
        self.capture = content.captured()
        self._run_id = run_id
        self._tracer = provider.get_tracer("agentrt", __version__)
        self._segments = 0

    def root(self, run: RunStarted | RunResumed, at: int, links: Sequence[Link] = ()) -> Span:
        """Start the root of the next trace of this part of the run."""
        name, kind, attributes = workflow(run.name)
        self._segments += 1
        attributes |= {c.RUN_ID: self._run_id, c.CONVERSATION_ID: self._run_id, c.RUN_SEGMENT: self._segments}
        attributes[c.RUN_ATTEMPT] = run.attempt if isinstance(run, RunResumed) else 1
        if isinstance(run, RunResumed) and run.kind == "replay":
            attributes[c.RUN_REPLAYED] = True
        attributes |= {f"{c.BUDGET}{dimension}.limit": limit for dimension, limit in run.limits.items()}
        return self._tracer.start_span(name, self.around, kind, attributes, links, start_time=at)

    def node(self, step: Step, event: StepStarted, at: int, links: Sequence[Link], long_wait: float) -> None:
        """Start the span of a node; a wait of at least `long_wait` seconds before it is drawn inside."""
        attributes: Attributes = {c.RUN_ID: self._run_id, c.NODE_NAME: event.name, c.NODE_PATH: event.path}
        attributes |= sources(event)
        if event.waited > 0:
            attributes[c.QUEUE_WAIT] = 1000 * event.waited
        name = f"node {event.name}"
        step.node = step.enter(
            self._tracer.start_span(name, step.context, attributes=attributes, links=links, start_time=at)
        )
        step.outer = step.context
        if event.waited >= long_wait:
            self._wait(step, event, at)

    def _wait(self, step: Step, event: StepStarted, began: int) -> None:
        attributes = {c.RUN_ID: self._run_id, c.NODE_PATH: event.path}
        step.segment.spans += 1
        span = self._tracer.start_span(f"queue {event.name}", step.context, attributes=attributes, start_time=began)
        span.end(nanoseconds(event.at))

    def attempt(self, step: Step, number: int, at: int, links: Sequence[Link] = ()) -> Span:
        """Start the span of one attempt of a step."""
        attributes: Attributes = {c.RUN_ID: self._run_id, c.RETRY_ATTEMPT: number}
        if step.event is not None:
            attributes |= {c.NODE_NAME: step.name, c.NODE_PATH: step.event.path}
        name = f"attempt {step.name}"
        return self._tracer.start_span(name, step.outer, attributes=attributes, links=links, start_time=at)

    def operation(self, step: Step, event: StepStarted, found: Operation, at: int, links: Sequence[Link] = ()) -> None:
        """Start the span of what a step does."""
        name, kind, attributes = found
        attributes |= {c.RUN_ID: self._run_id, c.STEP_PATH: event.path}
        if step.parent is not None and step.parent.kind == "agent":
            attributes.setdefault(c.AGENT_NAME, step.parent.name)
        if event.attributes is not None and "call_id" in event.attributes:
            attributes[c.TOOL_CALL_ID] = str(event.attributes["call_id"])
        if event.untrusted:
            attributes[c.UNTRUSTED] = event.untrusted
        if event.waited > 0 and step.node is None:
            attributes[c.QUEUE_WAIT] = 1000 * event.waited
        if self.capture:
            attributes |= content.of_input(event)
        step.begins = at
        step.operation = step.enter(self._tracer.start_span(name, step.context, kind, attributes, links, start_time=at))
