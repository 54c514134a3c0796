"""Every provider litellm knows, by its name `provider/model`.

litellm takes five to ten seconds to import, so it is loaded by the first call, in a thread. Prices are read from the
table it ships, without loading it and without touching the network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from agentrt.errors import (
    ModelError,
)
from agentrt.messages import AssistantMessage, Message, ToolCall, ToolMessage
from agentrt.model import ModelRequest, ModelResponse, unbilled
from agentrt.models import prices, tokens
from agentrt.models.coalesce import Coalescer, Draw
from agentrt.models.provider import OWN_MACHINE, check_key, close, load, translated, unknown_provider
from agentrt.usage import FREE, Price, Usage

MOST_DRAWS: Final = 8
"""Draws asked for in one request; Gemini takes no more."""

_LONG_TEXT: Final = 100_000
"""Characters from which counting tokens takes long enough, 20 ms, to be done in a thread."""


class LitellmModel:
    """Ask a model of any provider litellm knows: `openai/gpt-5-mini`, `anthropic/…`, `ollama/llama3.2`.

    Keys come from the provider's environment variables, or `api_key`; `api_base` leads to a server of one's own.
    `price` overrides litellm's table. Concurrent draws of one prompt are one request where the provider can do that:
    it bills the prompt once, and gives the draws seeds of its own choosing. A `LitellmModel` belongs to one event loop.
    """

    def __init__(
        self, name: str, *, api_base: str | None = None, api_key: str | None = None, price: Price | None = None
    ) -> None:
        self._name = name
        self._provider = name.partition("/")[0]
        self._api_base, self._api_key = api_base, api_key
        self._own_price = price
        self._draws = Coalescer(self._send, most=MOST_DRAWS)
        self._supported: frozenset[str] | None = None
        self._loading = anyio.Lock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def price(self) -> Price | None:
        if self._own_price is not None:
            return self._own_price
        if self._provider in OWN_MACHINE:
            return FREE
        return prices.price(self._name)

    def __repr__(self) -> str:
        return f"<LitellmModel {self._name!r}>"

    async def count_tokens(self, request: ModelRequest) -> int:
        """Return how many input tokens will be billed, at most; raises `UnknownModel`."""
        await self._load()
        if len(tokens.written(request)) > _LONG_TEXT:
            return await anyio.to_thread.run_sync(tokens.count_request, self._name, request)
        return tokens.count_request(self._name, request)

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        """Return what litellm's table says, else what is asked for: an unknown model refuses too much by itself."""
        entry = prices.entry(self._name)
        window = entry.get("max_input_tokens") or entry.get("max_tokens")
        most = entry.get("max_output_tokens") or entry.get("max_tokens") or request.settings.max_tokens
        return int(most) if window is None else min(int(most), int(window) - input_tokens)

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Answer; several draws at once come whole, a single one streams. Raises `ModelError`s."""
        with unbilled():
            await self._load()
            check_key(self._name, self._api_key)
        if "n" in self._params and request.settings.idle_timeout is None:  # what comes whole shows no life before
            return await self._draws.generate(request, on_text)
        return await Coalescer(self._send, most=1).generate(request, on_text)

    async def aclose(self) -> None:
        """Close litellm's connections and stop its logging, which all its models in this process share."""
        if self._supported is not None:
            self._supported = None
            await close()

    @property
    def _params(self) -> frozenset[str]:
        return self._supported or frozenset()

    async def _load(self) -> None:
        if self._supported is None:
            async with self._loading:
                if self._supported is None:
                    self._supported = await anyio.to_thread.run_sync(self._supported_params)

    def _supported_params(self) -> frozenset[str]:
        litellm = load()
        try:
            params = litellm.get_supported_openai_params(self._name)
        except Exception as error:
            raise translated(error, self._name, has_key=self._api_key is not None) from error
        if params is None:
            raise unknown_provider(self._name)
        return frozenset(params)

    async def _send(self, request: ModelRequest, draws: Sequence[Draw]) -> None:
        try:
            if len(draws) == 1:
                await self._stream(request, draws[0])
            else:
                await self._ask_together(request, draws)
        except ModelError:
            raise
        except Exception as error:
            raise translated(error, self._name, has_key=self._api_key is not None) from error

    async def _stream(self, request: ModelRequest, draw: Draw) -> None:
        answer, asked = _Answer(), perf_counter()
        stream = await load().acompletion(**self._asking(request), stream=True, stream_options=_WITH_USAGE)
        try:
            async for chunk in stream:
                if piece := answer.add(chunk):
                    answer.first_chunk = answer.first_chunk or perf_counter() - asked
                draw.text(piece)  # an empty one still says that the stream is alive
        finally:
            with anyio.CancelScope(shield=True):  # the provider stops generating once the connection is closed
                await stream.aclose()
        usage = _usage(answer.usage) if answer.usage is not None else self._worst_usage(request)
        draw.finish(answer.response(self._name, usage))

    async def _ask_together(self, request: ModelRequest, draws: Sequence[Draw]) -> None:
        """Ask for several draws, not streaming: litellm's stream ends when the first of them does."""
        reply = await load().acompletion(**self._asking(request), n=len(draws))
        bill, messages = _usage(reply.usage), [choice.message for choice in reply.choices]
        shares = _shares(bill, [tokens.count_text(self._name, _said(m)) for m in messages], request.settings.max_tokens)
        for draw, choice, usage in zip(draws, reply.choices, shares, strict=False):
            answer = _Answer(
                text=choice.message.content or "",
                calls=[_Call(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()],
                reason=choice.finish_reason or "stop",
                id=reply.id or "",
            )
            draw.text(answer.text)
            draw.finish(answer.response(self._name, usage))

    def _asking(self, request: ModelRequest) -> dict[str, Any]:
        settings, can = request.settings, self._params
        asked = {
            "model": self._name,
            "messages": _messages(request, schema_in_prompt="response_format" not in can),
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": settings.seed if "seed" in can else None,  # a seed is a wish; elsewhere nobody takes it
            "stop": list(settings.stop) or None,
            "tools": [_function(tool.name, tool.description, tool.parameters) for tool in request.tools] or None,
            "response_format": _response_format(request) if "response_format" in can else None,
            "api_base": self._api_base,
            "api_key": self._api_key,
        }
        # No retries here: each would be a call that the budget did not reserve.
        return {k: v for k, v in asked.items() if v is not None} | {"num_retries": 0, "max_retries": 0}

    def _worst_usage(self, request: ModelRequest) -> Usage:
        """Return the whole reservation: a stream without usage says nothing of the reasoning it will be billed for."""
        prompt, output = tokens.count_request(self._name, request), request.settings.max_tokens
        return Usage(input_tokens=prompt, output_tokens=output, uncertain=prompt + output)


_WITH_USAGE: Final = {"include_usage": True}


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class _Answer:
    """Gather an answer from its chunks."""

    text: str = ""
    calls: list[_Call] = field(default_factory=list)
    reason: str = "stop"
    id: str = ""
    usage: Any = None
    first_chunk: float | None = None

    def add(self, chunk: Any) -> str:
        """Take a chunk and return its piece of text."""
        self.id = self.id or chunk.id or ""
        self.usage = getattr(chunk, "usage", None) or self.usage
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.reason = choice.finish_reason or self.reason
        for delta in choice.delta.tool_calls or ():
            self._add_call(delta)
        piece: str = choice.delta.content or ""
        self.text += piece
        return piece

    def _add_call(self, delta: Any) -> None:
        while len(self.calls) <= (delta.index or 0):
            self.calls.append(_Call())
        call = self.calls[delta.index or 0]
        call.id = call.id or delta.id or ""
        call.name += delta.function.name or ""
        call.arguments += delta.function.arguments or ""

    def response(self, model: str, usage: Usage) -> ModelResponse:
        calls = tuple(ToolCall(c.id or f"{self.id}-{i}", c.name, c.arguments) for i, c in enumerate(self.calls))
        return ModelResponse(
            message=AssistantMessage(self.text, calls),
            usage=usage,
            finish_reason=self.reason,
            model=model,
            id=self.id,
            first_chunk=self.first_chunk,
        )


def _messages(request: ModelRequest, *, schema_in_prompt: bool) -> list[dict[str, Any]]:
    rendered = _conversation(request)
    if schema_in_prompt and request.output_schema is not None:
        wish = f"Reply with nothing but a JSON object that fits this schema: {json.dumps(request.output_schema)}"
        rendered.insert(0, {"role": "system", "content": wish})
    return rendered


def _conversation(request: ModelRequest) -> list[dict[str, Any]]:
    """Return the messages; chat models get a raw prompt as the one thing the user says."""
    if request.prompt is not None:
        return [{"role": "user", "content": request.prompt}]
    return [_rendered(message) for message in request.messages]


def _rendered(message: Message) -> dict[str, Any]:
    if isinstance(message, ToolMessage):
        text = f"Error: {message.text}" if message.failed else message.text
        return {"role": "tool", "tool_call_id": message.call_id, "name": message.name, "content": text}
    if isinstance(message, AssistantMessage) and message.tool_calls:
        calls = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ]
        return {"role": "assistant", "content": message.text or None, "tool_calls": calls}
    return {"role": message.role, "content": message.text}


def _function(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _response_format(request: ModelRequest) -> dict[str, Any] | None:
    if request.output_schema is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": request.output_schema}}


def _said(message: Any) -> str:
    calls = (f"{c.function.name}{c.function.arguments}" for c in message.tool_calls or ())
    return "".join([message.content or "", *calls]) or "."


def _usage(bill: Any) -> Usage:
    prompt, output = bill.prompt_tokens or 0, bill.completion_tokens or 0
    read, thought = bill.prompt_tokens_details, bill.completion_tokens_details
    output = max(output, (bill.total_tokens or 0) - prompt)  # some leave the reasoning out of the completion
    cached = min(getattr(read, "cached_tokens", 0) or 0, prompt)
    return Usage(
        input_tokens=prompt,
        cached_tokens=cached,
        cache_write_tokens=min(getattr(read, "cache_creation_tokens", 0) or 0, prompt - cached),
        output_tokens=output,
        reasoning_tokens=min(getattr(thought, "reasoning_tokens", 0) or 0, output),
    )


def _shares(bill: Usage, weights: Sequence[int], most: int) -> Iterator[Usage]:
    """Split a bill for several draws: the prompt to the first, the output by length, at most `most` to each.

    The whole is charged, whatever the rounding.
    """
    total = sum(weights) or 1
    parts = [min(most, bill.output_tokens * w // total) for w in weights]
    rest = bill.output_tokens - sum(parts)
    for i, part in enumerate(parts):
        more = min(rest, most - part)
        parts[i], rest = part + more, rest - more
    parts[0] += rest
    thought = [bill.reasoning_tokens * part // (bill.output_tokens or 1) for part in parts]
    for i, (part, reasoning) in enumerate(zip(parts, thought, strict=True)):
        prompt = bill if i == 0 else Usage()
        yield msgspec.structs.replace(prompt, output_tokens=part, reasoning_tokens=reasoning)
