"""Operations: the span that the GenAI conventions give to each kind of step, with what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from agentrt.events import StepStarted
from agentrt.model import ModelRequest, ModelResponse
from agentrt.tracing import conventions as c
from agentrt.usage import Usage

Attributes: TypeAlias = dict[str, AttributeValue]
Operation: TypeAlias = tuple[str, SpanKind, Attributes]
"""A span's name, its kind and its attributes."""


def operation(event: StepStarted) -> Operation | None:
    """Return the span of what a step does; None for a function, whose work no convention names.

    Any node that a model called, of a kind of its own, is a tool.
    """
    describe = _OPERATIONS.get(event.kind)
    if describe is None and _known(event, "call_id") is not None:
        describe = _tool
    return None if describe is None else describe(event)


def _workflow(event: StepStarted) -> Operation:
    return workflow(event.name)


def workflow(name: str) -> Operation:
    """Return the span of a graph, and of a run."""
    return (
        f"invoke_workflow {name}",
        SpanKind.INTERNAL,
        {c.OPERATION_NAME: "invoke_workflow", c.WORKFLOW_NAME: name},
    )


def _agent(event: StepStarted) -> Operation:
    attributes: Attributes = {c.OPERATION_NAME: "invoke_agent", c.AGENT_NAME: event.name}
    _text(attributes, c.AGENT_DESCRIPTION, _known(event, "description"))
    return f"invoke_agent {event.name}", SpanKind.INTERNAL, attributes


def _tool(event: StepStarted) -> Operation:
    attributes: Attributes = {c.OPERATION_NAME: "execute_tool", c.TOOL_NAME: event.name, c.TOOL_TYPE: "function"}
    _text(attributes, c.TOOL_DESCRIPTION, _known(event, "description"))
    return f"execute_tool {event.name}", SpanKind.INTERNAL, attributes


def _retrieval(event: StepStarted) -> Operation:
    attributes: Attributes = {c.OPERATION_NAME: "retrieval", c.DATA_SOURCE: event.name}
    if isinstance(k := _known(event, "k"), int):
        attributes[c.TOP_K] = k
    return f"retrieval {event.name}", SpanKind.CLIENT, attributes


def _chat(event: StepStarted) -> Operation:
    name, kind, attributes = _asked(event, "chat")
    if isinstance(event.input, ModelRequest):
        attributes.update(_request(event.input))
    return name, kind, attributes


def _embeddings(event: StepStarted) -> Operation:
    name, kind, attributes = _asked(event, "embeddings")
    if isinstance(dimensions := _known(event, "dimensions"), int):
        attributes[c.DIMENSION_COUNT] = dimensions
    return name, kind, attributes


_HERE: Final = frozenset({"local", "wordllama"})
"""The providers of models that run in this process."""


def _asked(event: StepStarted, operation: str) -> Operation:
    """Return the span of a call of a model."""
    provider, _, model = str(_known(event, "model") or "").partition("/")
    attributes: Attributes = {
        c.OPERATION_NAME: operation,
        c.PROVIDER_NAME: c.PROVIDERS.get(provider, provider) or "unknown",
        c.REQUEST_MODEL: model or provider,
    }
    kind = SpanKind.INTERNAL if provider in _HERE else SpanKind.CLIENT
    return f"{operation} {model or provider}", kind, attributes


def _request(request: ModelRequest) -> Attributes:
    s = request.settings
    attributes: Attributes = {
        c.REQUEST_MAX_TOKENS: s.max_tokens,
        c.OUTPUT_TYPE: "text" if request.output_schema is None else "json",
    }
    for name, value in ((c.REQUEST_TEMPERATURE, s.temperature), (c.REQUEST_TOP_P, s.top_p), (c.REQUEST_SEED, s.seed)):
        if value is not None:
            attributes[name] = value
    if s.stop:
        attributes[c.REQUEST_STOP] = s.stop
    return attributes


def answered(response: ModelResponse) -> Attributes:
    """Return what a model's answer adds to its span; its usage comes with the bill."""
    attributes: Attributes = {c.RESPONSE_FINISH_REASONS: (response.finish_reason,)}
    _text(attributes, c.RESPONSE_MODEL, response.model)
    _text(attributes, c.RESPONSE_ID, response.id)
    if response.first_chunk is not None:
        attributes[c.RESPONSE_TIME_TO_FIRST_CHUNK] = response.first_chunk
    return attributes


def billed(usage: Usage) -> Attributes:
    """Return a model call's usage, or the sum of an agent's."""
    attributes: Attributes = {c.INPUT_TOKENS: usage.input_tokens, c.OUTPUT_TOKENS: usage.output_tokens}
    if usage.cached_tokens:
        attributes[c.CACHE_READ_TOKENS] = usage.cached_tokens
    if usage.cache_write_tokens:
        attributes[c.CACHE_WRITE_TOKENS] = attributes[c.CACHE_CREATION_TOKENS] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        attributes[c.REASONING_TOKENS] = usage.reasoning_tokens
    if usage.cost:
        attributes[c.COST] = usage.usd
    if usage.uncertain:
        attributes[c.USAGE + "uncertain_tokens"] = usage.uncertain
    return attributes


def totals(usage: Usage) -> Attributes:
    """Return the sum of what was used below a graph, a function or a run."""
    return {
        c.USAGE + "input_tokens": usage.input_tokens,
        c.USAGE + "output_tokens": usage.output_tokens,
        c.COST: usage.usd,
    }


def model_named(event: StepStarted, model: str) -> StepStarted:
    """Return a step as it is when it asks another model."""
    return msgspec.structs.replace(event, attributes={**(event.attributes or {}), "model": model})


def _known(event: StepStarted, name: str) -> object:
    return None if event.attributes is None else event.attributes.get(name)


def _text(attributes: Attributes, name: str, value: object) -> None:
    if value:
        attributes[name] = str(value)


_OPERATIONS: Final[Mapping[str, Callable[[StepStarted], Operation]]] = {
    "agent": _agent,
    "chat": _chat,
    "embeddings": _embeddings,
    "graph": _workflow,
    "retrieval": _retrieval,
    "tool": _tool,
}
