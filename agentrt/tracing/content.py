"""Content of spans: what models and tools were told and said, kept only where the user asks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json

from agentrt.events import QuestionAnswered, QuestionAsked
from agentrt.messages import AssistantMessage, Message, ToolMessage, new_messages
from agentrt.model import ModelRequest, ModelResponse
from agentrt.passage import Passage
from agentrt.tracing import conventions as c

if TYPE_CHECKING:
    from agentrt.events import StepStarted

VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
MOST_BYTES: Final = 8192
"""The most one attribute holds: a whole batch of spans is lost if it exceeds 4 MiB over gRPC."""

_ON: Final = frozenset({"true", "1", "span_only", "span_and_event"})


def captured() -> bool:
    """Say whether the environment asks for content on spans."""
    return os.environ.get(VARIABLE, "").strip().lower() in _ON


def of_input(event: StepStarted) -> dict[str, str | bool]:
    """Return the attributes that hold a step's input."""
    match event.kind:
        case "chat" if isinstance(event.input, ModelRequest):
            return _fitted(c.INPUT_MESSAGES, [_message(m) for m in new_messages(event.input.messages)])
        case "tool":
            return _fitted(c.TOOL_ARGUMENTS, event.input)
        case "retrieval":
            return _fitted(c.QUERY_TEXT, event.input)
    return {}


def of_output(kind: str, output: object) -> dict[str, str | bool]:
    """Return the attributes that hold a step's output."""
    match kind:
        case "chat" if isinstance(output, ModelResponse):
            said = {**_message(output.message), "finish_reason": output.finish_reason}
            return _fitted(c.OUTPUT_MESSAGES, [said])
        case "tool":
            return _fitted(c.TOOL_RESULT, output)
        case "retrieval" if isinstance(output, list):
            return _fitted(c.DOCUMENTS, [_document(p) for p in output if isinstance(p, Passage)])
        case "question":
            return of_question(output) if isinstance(output, QuestionAnswered) else _fitted(c.QUESTION_VALUE, output)
    return {}


def of_question(event: QuestionAsked | QuestionAnswered) -> dict[str, str | bool]:
    """Return the attributes that hold what people were asked or shown, or what they said."""
    if isinstance(event, QuestionAsked):
        return _fitted(c.QUESTION_PROMPT, event.prompt) | _fitted(c.QUESTION_ABOUT, event.about)
    said = {c.QUESTION_VALUE: event.value, c.QUESTION_BECAUSE: event.because or None}
    return {k: v for name, text in said.items() if text is not None for k, v in _fitted(name, text).items()}


def _message(message: Message) -> dict[str, object]:
    return {"role": message.role, "parts": _parts(message)}


def _parts(message: Message) -> Sequence[dict[str, object]]:
    if isinstance(message, ToolMessage):
        return [{"type": "tool_call_response", "id": message.call_id, "response": message.text}]
    parts: list[dict[str, object]] = [{"type": "text", "content": message.text}] if message.text else []
    calls = message.tool_calls if isinstance(message, AssistantMessage) else ()
    parts.extend({"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments} for call in calls)
    return parts


def _document(passage: Passage) -> dict[str, object]:
    return {"id": passage.id, "score": passage.score, "content": passage.text}


def _fitted(name: str, value: object) -> dict[str, str | bool]:
    """Return the value under its name as text of at most `MOST_BYTES`, marked if something was cut off.

    JSON stays JSON: the texts inside are cut, ever shorter, until the whole fits.
    """
    plain = value if isinstance(value, str) else _plain(value)
    text = whole = _text(plain)
    longest = 2 * MOST_BYTES
    while _bytes(text) > MOST_BYTES and longest > 16:
        longest //= 2
        text = _text(_cut(plain, longest))
    if _bytes(text) > MOST_BYTES:  # too many parts, not too long ones
        text = text.encode(errors="replace")[:MOST_BYTES].decode(errors="ignore")
    return {name: text} if text is whole else {name: text, c.TRUNCATED: True}


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _plain(value: object) -> object:
    plain: object = json.loads(to_json(value, fallback=repr, serialize_unknown=True, inf_nan_mode="strings"))
    return plain


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(value: object, longest: int) -> object:
    match value:
        case str():
            return value[:longest]
        case list():
            return [_cut(item, longest) for item in value]
        case dict():
            return {key: _cut(item, longest) for key, item in value.items()}
    return value
