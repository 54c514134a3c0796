"""Endings: how steps, attempts and runs end, on their spans."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from opentelemetry.trace import Span, Status, StatusCode

from agentrt.events import (
    ErrorInfo,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunParked,
    RunResumed,
    RunStarted,
    StepRetried,
)
from agentrt.tracing import content
from agentrt.tracing import conventions as c
from agentrt.tracing.operations import Attributes, totals
from agentrt.usage import Usage


@runtime_checkable
class CountsDrops(Protocol):
    """Be a provider that knows how many spans of a run it has lost, as the one of `configure` does."""

    def dropped_of(self, run_id: str) -> int: ...


def close(span: Span, at: int, attributes: Attributes, error: ErrorInfo | None = None) -> None:
    """End a span; without an error it is none, cancelled or not."""
    if error is not None:
        attributes[c.ERROR_TYPE] = error_type(error)
        span.set_status(error_status(error))
    span.set_attributes(attributes)
    span.end(at)


def retried(event: StepRetried) -> Attributes:
    """Describe an attempt that failed; the delay is the one before the next."""
    attributes: Attributes = {
        c.RETRY_ATTEMPT: event.attempt,
        c.RETRY_DELAY: 1000 * event.delay,
        c.RETRY_REASON: event.error.message[: content.MOST_BYTES],
    }
    if event.attempts is not None:
        attributes[c.RETRY_MAX] = event.attempts
    if event.model is not None:
        attributes[c.RETRY_MODEL] = event.model
    return attributes


def run_ended(
    run: RunStarted | RunResumed, event: RunFinished | RunFailed | RunCancelled | RunParked, exhausted: str
) -> Attributes:
    """Return how a part of a run ended, what it counted, and what it used of every limit it had.

    What was used before it began is left out: the roots of one run add up to its bill.
    """
    reason = stop_reason(event)
    before = run.usage if isinstance(run, RunResumed) else Usage()
    own = Usage(**{name: getattr(event.usage, name) - getattr(before, name) for name in Usage.__struct_fields__})
    attributes: Attributes = {c.RUN_STATUS: reason, c.RUN_STOP_REASON: reason, **totals(own)}
    attributes |= {c.USAGE + name: getattr(own, name) for name in ("model_calls", "tool_calls", "steps")}
    for dimension in run.limits:
        used = event.at - run.at if dimension == "seconds" else getattr(event.usage, dimension)
        attributes[f"{c.BUDGET}{dimension}.used"] = used
    if exhausted or reason == c.BUDGET_EXCEEDED:
        attributes[c.ERROR_TYPE] = c.BUDGET_EXCEEDED
    if isinstance(event, RunFailed):
        attributes |= {c.ERROR_TYPE: error_type(event.error), c.ERROR_PATH: event.path}
    return attributes


def stop_reason(event: RunFinished | RunFailed | RunCancelled | RunParked) -> str:
    """Say in one word how a part of a run ended."""
    if isinstance(event, RunCancelled | RunParked):
        return "cancelled" if isinstance(event, RunCancelled) else "waiting"
    return str(event.stop_reason)


def error_status(error: ErrorInfo) -> Status:
    """Return the status of a span that failed."""
    return Status(StatusCode.ERROR, error.message[: content.MOST_BYTES])


def error_type(error: ErrorInfo) -> str:
    """Return what the conventions call the type of an error."""
    return c.BUDGET_EXCEEDED if error.type == "BudgetExceeded" else error.type
