"""Notes: what happens to a step while it runs, as events of its span."""

from __future__ import annotations

from typing import TypeAlias

from agentrt.events import (
    BudgetClamped,
    BudgetDenied,
    BudgetExhausted,
    BudgetOverrun,
    BudgetWaited,
    CacheHit,
    RateLimitWaited,
)
from agentrt.tracing import conventions as c
from agentrt.tracing.operations import Attributes
from agentrt.tracing.steps import Step

Note: TypeAlias = (
    BudgetClamped | BudgetWaited | BudgetDenied | BudgetOverrun | BudgetExhausted | RateLimitWaited | CacheHit
)


def told(event: Note) -> tuple[str, Attributes]:
    """Return the name and the attributes of a span's event."""
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
        case RateLimitWaited() | CacheHit():
            return _of_model(event)


def _of_model(event: RateLimitWaited | CacheHit) -> tuple[str, Attributes]:
    if isinstance(event, CacheHit):
        return c.CACHE_HIT, {c.CACHE_MODEL: event.model}
    return c.RATELIMIT_WAIT, {c.RATELIMIT_SECONDS: event.seconds}


def marked(event: Note, step: Step) -> Attributes:
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
    return {}
