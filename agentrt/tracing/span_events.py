"""Span events: what happens to a step while it runs."""

from __future__ import annotations

from typing import TypeAlias

from agentrt.events import (
    BudgetClamped,
    BudgetDenied,
    BudgetExhausted,
    BudgetOverrun,
    BudgetWaited,
    CacheHit,
    CallRefused,
    PersonEvent,
    QuestionAnswered,
    QuestionAsked,
    RateLimitWaited,
)
from agentrt.tracing import conventions as c
from agentrt.tracing.operations import Attributes
from agentrt.tracing.steps import Step

BudgetSpanEvent: TypeAlias = BudgetClamped | BudgetWaited | BudgetDenied | BudgetOverrun | BudgetExhausted
ModelSpanEvent: TypeAlias = RateLimitWaited | CacheHit
SpanEvent: TypeAlias = BudgetSpanEvent | ModelSpanEvent | PersonEvent | CallRefused


def told(event: SpanEvent) -> tuple[str, Attributes]:
    """Return the name and the attributes of a span's event."""
    if isinstance(event, PersonEvent):
        return _of_person(event)
    if isinstance(event, CallRefused):
        return c.CALL_REFUSED, {c.CALL_TOOL: event.tool, c.CALL_REASON: event.because}
    return _of_model(event) if isinstance(event, ModelSpanEvent) else _of_budget(event)


def _of_budget(event: BudgetSpanEvent) -> tuple[str, Attributes]:
    match event:
        case BudgetClamped():
            return c.BUDGET_CLAMPED, {c.BUDGET + "wanted": event.wanted, c.BUDGET + "granted": event.granted}
        case BudgetWaited():
            return c.BUDGET_WAITED, {c.BUDGET + "seconds": event.seconds}
        case BudgetDenied():
            return c.BUDGET_DENIED, {c.BUDGET + "scope": event.scope, c.BUDGET + "dimension": event.dimension}
        case BudgetOverrun():
            return c.BUDGET_OVERRUN, {c.BUDGET + "reserved": event.reserved, c.BUDGET + "billed": event.billed}
        case BudgetExhausted():
            return c.BUDGET_EXHAUSTED, {c.BUDGET + "dimension": event.dimension, c.BUDGET + "policy": event.policy}


def _of_model(event: ModelSpanEvent) -> tuple[str, Attributes]:
    if isinstance(event, CacheHit):
        return c.CACHE_HIT, {c.CACHE_MODEL: event.model}
    return c.RATELIMIT_WAIT, {c.RATELIMIT_SECONDS: event.seconds}


def _of_person(event: PersonEvent) -> tuple[str, Attributes]:
    if isinstance(event, QuestionAsked):
        timeout = {} if event.until is None else {c.QUESTION_TIMEOUT: 1000 * (event.until - event.at)}
        return c.QUESTION_ASKED, {c.QUESTION_KIND: event.kind, **timeout}
    said: Attributes = {c.QUESTION_VERDICT: event.verdict, c.QUESTION_BY: event.by}
    return c.QUESTION_ANSWERED, {**said, c.QUESTION_WAIT: 1000 * event.waited}


def marked(event: SpanEvent, step: Step) -> Attributes:
    """Return what is to be found by searching spans, which no tool does for a span's events."""
    match event:
        case BudgetClamped():
            return {c.REQUEST_MAX_TOKENS: event.granted}
        case BudgetExhausted():
            return {c.BUDGET + "policy": event.policy}
        case RateLimitWaited():
            step.waited += event.seconds
            return {c.RATELIMIT_WAITED: 1000 * step.waited}
        case CacheHit():
            return {c.CHAT_CACHED: True}
        case QuestionAsked() | QuestionAnswered():
            return _of_person(event)[1]
    return {}
