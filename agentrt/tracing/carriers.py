"""Carriers: where a run is traced, as text that whoever goes on with it can read, in whatever process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentrt.tracing import conventions as c

_FORMAT: Final = TraceContextTextMapPropagator()


def leading_to(span: Span) -> Mapping[str, str]:
    """Return the carrier of a span; an empty one where it is not sampled, since nobody will see it."""
    carrier: dict[str, str] = {}
    if span.get_span_context().trace_flags.sampled:
        _FORMAT.inject(carrier, set_span_in_context(span, Context()))
    return carrier


def followed(carrier: Mapping[str, str], kind: str) -> list[Link]:
    """Return the link to where a carrier leads, if it leads anywhere."""
    context = get_current_span(_FORMAT.extract(carrier, Context())).get_span_context()
    return [Link(context, {c.LINK_TYPE: kind})] if context.is_valid else []
