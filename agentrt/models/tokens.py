"""Tokens: how many of them a request has for a provider's model, never fewer than will be billed.

A model whose vocabulary tiktoken knows is counted in it, with what the chat format adds. For every other model the
text is counted in OpenAI's older vocabulary and a margin added, since the providers keep theirs to themselves.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from agentrt.messages import AssistantMessage, Message
from agentrt.model import ModelRequest

_SHIPPED: Final = frozenset({"cl100k_base", "o200k_base", "o200k_harmony"})
"""Vocabularies that litellm brings along; others would be fetched from the network."""
_UNKNOWN: Final = "cl100k_base"
_PER_MESSAGE: Final = 4
_PER_TOOL: Final = 12
_TOOL_PREAMBLE: Final = 800
"""Tokens of instructions that Anthropic and others put before tools, at most."""


def count_text(model: str, text: str) -> int:
    """Return how many tokens a text has in the model's vocabulary, or the one that stands in for it.

    litellm must be loaded: it says where the vocabularies lie.
    """
    return len(_encoding(vocabulary(model) or _UNKNOWN).encode_ordinary(text))


def count_request(model: str, request: ModelRequest) -> int:
    """Return how many input tokens a request will be billed, at most."""
    counted = count_text(model, written(request)) + _PER_MESSAGE * (len(request.messages) + 1)
    counted += _PER_TOOL * len(request.tools)
    if vocabulary(model) is not None:
        return counted + counted // 20 + 16
    return counted + counted * 3 // 5 + 32 + (_TOOL_PREAMBLE if request.tools else 0)


def count_texts(model: str, texts: Iterable[str]) -> int:
    """Return how many tokens texts to be embedded will be billed, at most."""
    counted = sum(count_text(model, text) + 2 for text in texts)
    return counted + (counted // 20 if vocabulary(model) is not None else counted * 3 // 5)


def written(request: ModelRequest) -> str:
    """Return all the text of a request."""
    said = [request.prompt] if request.prompt is not None else [_said(m) for m in request.messages]
    tools = [json.dumps([t.name, t.description, t.parameters], ensure_ascii=False) for t in request.tools]
    schema = [json.dumps(request.output_schema, ensure_ascii=False)] if request.output_schema is not None else []
    return "\n".join([*said, *tools, *schema])


@cache
def vocabulary(model: str) -> str | None:
    """Return the name of the model's vocabulary if it is OpenAI's, whoever serves it; None if nobody says."""
    tiktoken: Any = importlib.import_module("tiktoken")
    try:
        name: str = tiktoken.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return None
    return name if name in _SHIPPED else None


@cache
def _encoding(name: str) -> Any:
    return importlib.import_module("tiktoken").get_encoding(name)


def _said(message: Message) -> str:
    if not isinstance(message, AssistantMessage):
        return message.text
    return "\n".join([message.text, *(f"{c.id} {c.name} {c.arguments}" for c in message.tool_calls)])
