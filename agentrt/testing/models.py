"""Models for tests: they answer from a script or a function, count tokens predictably and keep a bill of their own.

A token is a word: what whitespace separates. So that tests of budgets can compare, `bill` is kept apart from the
runtime's ledger and as a provider would: what it was asked, what it wrote, and the worst case of every call that
ended without an answer.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

import msgspec

from agentrt.messages import AssistantMessage, Message, ToolCall
from agentrt.model import ModelRequest, ModelResponse
from agentrt.usage import FREE, Price, Usage

Reply: TypeAlias = str | AssistantMessage | ToolCall | Sequence[ToolCall] | ModelResponse | Exception

_TOKEN = re.compile(r"\s*\S+")


class ScriptMismatch(AssertionError):
    """Say that a model was asked more, or less, than its script holds."""


def text(words: str) -> AssistantMessage:
    """Build a reply that is text."""
    return AssistantMessage(words)


def call(name: str, /, **arguments: Any) -> ToolCall:
    """Build a reply that calls a tool; the model numbers it when it is said."""
    return ToolCall("", name, json.dumps(arguments))


def count(words: str) -> int:
    """Return how many tokens a text has."""
    return len(_TOKEN.findall(words))


class FunctionModel:
    """Answer with what a function of the request returns; the function may be async.

    A reply is text, an `AssistantMessage`, one or several `ToolCall`s, an exception to raise, or a `ModelResponse`,
    which goes out as it is, its usage too. Any other reply that is longer than `max_tokens` is cut there. `window`
    is in tokens. `requests` holds what was asked, `bill` what a provider would have charged.
    """

    def __init__(
        self,
        function: Callable[[ModelRequest], Reply | Awaitable[Reply]],
        *,
        name: str = "test/function",
        price: Price | None = FREE,
        window: int = 1_000_000,
    ) -> None:
        self.name = name
        self.price = price
        self.window = window
        self.requests: list[ModelRequest] = []
        self.bill = Usage()
        self._function = function
        self._calls = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, asked {len(self.requests)} times>"

    async def count_tokens(self, request: ModelRequest) -> int:
        """Return the words of the prompt or of every message, one more a message, and the words of the tools."""
        said = [request.prompt] if request.prompt is not None else [_said(m) for m in request.messages]
        tools = [f"{t.name} {t.description} {json.dumps(t.parameters)}" for t in request.tools]
        return sum(1 + count(s) for s in (*said, *tools))

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        return self.window - input_tokens

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Answer, streaming word by word; raises the reply if it is an exception."""
        self.requests.append(request)
        prompt = await self.count_tokens(request)
        try:
            reply = self._function(request)
            if inspect.isawaitable(reply):
                reply = await reply
            if isinstance(reply, Exception):
                raise reply
        except BaseException as error:
            if getattr(error, "billed", None) is not False:
                self._charge(Usage(input_tokens=prompt, output_tokens=request.settings.max_tokens))
            raise
        response = reply if isinstance(reply, ModelResponse) else self._respond(request, prompt, reply)
        self._charge(response.usage)
        for piece in _TOKEN.findall(response.message.text):
            on_text(piece)
        return response

    async def aclose(self) -> None:
        """Release nothing."""

    def _respond(
        self, request: ModelRequest, prompt: int, reply: str | AssistantMessage | ToolCall | Sequence[ToolCall]
    ) -> ModelResponse:
        message = self._numbered(_message(reply))
        written = _length(message)
        finish_reason = "tool_calls" if message.tool_calls else "stop"
        if written > request.settings.max_tokens:
            written = request.settings.max_tokens
            message, finish_reason = _cut(message, written), "length"
        return ModelResponse(
            message=message,
            usage=Usage(input_tokens=prompt, output_tokens=written),
            finish_reason=finish_reason,
            model=self.name,
            id=f"response-{len(self.requests)}",
            first_chunk=0.0,
        )

    def _numbered(self, message: AssistantMessage) -> AssistantMessage:
        return AssistantMessage(message.text, tuple(self._number(c) for c in message.tool_calls))

    def _number(self, asked: ToolCall) -> ToolCall:
        self._calls += 1
        return asked if asked.id else ToolCall(f"call-{self._calls}", asked.name, asked.arguments)

    def _charge(self, usage: Usage) -> None:
        """Bill what was used, priced as a provider would, whatever the runtime makes of it."""
        self.bill += usage if usage.cost else msgspec.structs.replace(usage, cost=(self.price or FREE).cost(usage))


class ScriptedModel(FunctionModel):
    """Answer from a script, in order; raises `ScriptMismatch` where it is asked once too often.

    Use it as a context manager, or call `check`, to be told of replies that nobody asked for.
    """

    def __init__(
        self,
        replies: Iterable[Reply],
        *,
        name: str = "test/scripted",
        price: Price | None = FREE,
        window: int = 1_000_000,
    ) -> None:
        self._replies = list(replies)
        super().__init__(self._next, name=name, price=price, window=window)

    def check(self) -> None:
        """Raise `ScriptMismatch` unless every reply was asked for, and no more."""
        asked, scripted = len(self.requests), len(self._replies)
        if asked < scripted:
            rest = "; ".join(repr(r) for r in self._replies[asked:])
            raise ScriptMismatch(f"{self.name}: asked {asked} times of {scripted}; nobody asked for: {rest}")
        if asked > scripted:
            raise ScriptMismatch(f"{self.name}: asked {asked} times, but the script holds {scripted} replies")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.check()

    def _next(self, request: ModelRequest) -> Reply:
        if len(self.requests) > len(self._replies):
            last = request.messages[-1] if request.messages else request.prompt
            raise ScriptMismatch(
                f"{self.name}: asked once too often: the script holds {len(self._replies)} replies; "
                f"the last message is {last!r}"
            )
        return self._replies[len(self.requests) - 1]


def _message(reply: str | AssistantMessage | ToolCall | Sequence[ToolCall]) -> AssistantMessage:
    if isinstance(reply, str):
        return AssistantMessage(reply)
    if isinstance(reply, AssistantMessage):
        return reply
    calls = (reply,) if isinstance(reply, ToolCall) else reply
    if not isinstance(calls, Sequence) or not all(isinstance(call, ToolCall) for call in calls):
        raise TypeError(
            f"a fake model cannot say {reply!r:.80}: let it answer with text (JSON for an output type), call(…), an "
            "AssistantMessage, a ModelResponse or an exception"
        )
    return AssistantMessage("", tuple(calls))


def _said(message: Message) -> str:
    if not isinstance(message, AssistantMessage):
        return message.text
    return " ".join([message.text, *(f"{c.name} {c.arguments}" for c in message.tool_calls)])


def _length(message: AssistantMessage) -> int:
    return max(1, count(_said(message)))


def _cut(message: AssistantMessage, tokens: int) -> AssistantMessage:
    """Keep the first tokens; a call of a tool that does not fit whole is left out."""
    pieces = _TOKEN.findall(message.text)[:tokens]
    left = tokens - len(pieces)
    kept: list[ToolCall] = []
    for asked in message.tool_calls:
        left -= count(f"{asked.name} {asked.arguments}")
        if left < 0:
            break
        kept.append(asked)
    return AssistantMessage("".join(pieces), tuple(kept))
