"""Models: what they are asked, what they answer, and the step that asks one within the budget."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, runtime_checkable

from agentrt.budget import DIMENSIONS, INPUT, MODEL_CALLS, OUTPUT, STEPS, TOKENS, USD, Request
from agentrt.errors import ContextOverflow, DefinitionError, ModelError, UnknownModel, UnknownPrice
from agentrt.messages import AssistantMessage, Message, ToolSpec
from agentrt.node import Context, Node
from agentrt.usage import FREE, Price, Usage

EMBEDDED_MODEL: Final = "local/smollm2-135m"
ENOUGH_TOKENS: Final = 512
"""An answer clamped to this many output tokens is still useful: such a call need not wait for more (rule B5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Say how to sample. `max_tokens` is always sent; a call the budget cannot give `min_tokens` is denied."""

    max_tokens: int = 4096
    min_tokens: int = 16
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.min_tokens <= self.max_tokens:
            object.__setattr__(self, "min_tokens", max(1, min(self.min_tokens, self.max_tokens)))
            if self.max_tokens < 1:
                raise DefinitionError(f"ModelSettings(max_tokens={self.max_tokens}): ask for at least one token")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """Hold one request: a conversation, or with `prompt` a raw text to be continued (then `messages` says the same
    for the record). `output_schema` is the JSON schema of an object that the answer must fit."""

    messages: tuple[Message, ...]
    prompt: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    output_schema: dict[str, Any] | None = None
    settings: ModelSettings = field(default_factory=ModelSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResponse:
    """Hold one answer.

    The runtime prices `usage`, unless the model states its `cost` itself. `first_chunk` is the time to the first
    piece of the answer, in seconds, if it was streamed.
    """

    message: AssistantMessage
    usage: Usage
    finish_reason: str = "stop"
    model: str = ""
    id: str = ""
    first_chunk: float | None = None


@runtime_checkable
class Model(Protocol):
    """Answer requests. Implementations raise `ModelError`s only, each vendor error mapped once.

    `name` is `provider/model`; `price` is None where nobody knows it, `FREE` where nothing is charged.
    """

    @property
    def name(self) -> str: ...

    @property
    def price(self) -> Price | None: ...

    async def count_tokens(self, request: ModelRequest) -> int:
        """Return how many input tokens the request will be billed, never fewer."""
        ...

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        """Return how many output tokens the model can give after so many input tokens; below 1 they do not fit."""
        ...

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Answer; `on_text` gets each piece of text as it comes. Cancelling the call stops the generation."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


_ADAPTERS: Final = {"local": "agentrt.models.local:LocalModel"}
_ANY_PROVIDER: Final = "agentrt.models.litellm:LitellmModel"


def resolve_model(name: str) -> Model:
    """Return a new model for `provider/model`, or `local/NAME` for one that runs in this process.

    Raises `UnknownModel` saying what to write instead, or which extra to install.
    """
    provider, slash, rest = name.partition("/")
    if not slash or not rest:
        raise UnknownModel(
            f"unknown model {name!r}: write provider/model, like openai/gpt-5-mini or ollama/llama3.2, "
            f"or {EMBEDDED_MODEL} for the embedded one"
        )
    module, _, attribute = _ADAPTERS.get(provider, _ANY_PROVIDER).partition(":")
    model: Model = getattr(importlib.import_module(module), attribute)(name)
    return model


def default_model() -> str:
    """Return the name used where nothing names a model: `AGENTRT_MODEL`, else the embedded one; never a paid one."""
    return os.environ.get("AGENTRT_MODEL") or EMBEDDED_MODEL


class Chat(Node[ModelRequest, ModelResponse]):
    """Ask a model once: reserve the worst case, call, settle what was used."""

    kind = "chat"
    counts = (STEPS, MODEL_CALLS)
    name: str = "chat"

    def __init__(self, model: Model) -> None:
        self.input, self.output = ModelRequest, ModelResponse
        self.description, self.budget = "", None
        self.attributes = {"model": model.name}
        self.model = model

    async def invoke(self, ctx: Context, value: ModelRequest, /) -> ModelResponse:
        model, settings = self.model, value.settings
        prompt = await model.count_tokens(value)
        most = min(settings.max_tokens, model.max_output(value, prompt))
        if most < 1:
            raise ContextOverflow(f"a prompt of {prompt:,} tokens does not fit; shorten it", model=model.name)
        reservation = await ctx.reserve(_worst_case(model, prompt, most, settings.min_tokens, ctx))
        if reservation.granted != settings.max_tokens:
            value = replace(value, settings=replace(settings, max_tokens=reservation.granted))
        try:
            response = await model.generate(value, ctx.text_delta)
        except ModelError as error:
            if error.billed is False:
                reservation.release()
            else:
                reservation.forfeit()
            raise
        except BaseException:
            reservation.forfeit()
            raise
        usage = response.usage
        if model.price is not None and not usage.cost:
            usage = replace(usage, cost=model.price.cost(usage))
            response = replace(response, usage=usage)
        reservation.settle(usage)
        return response


def _worst_case(model: Model, prompt: int, most: int, least: int, ctx: Context) -> Request:
    price = model.price
    if price is None:
        if "usd" in ctx.budget.remaining:
            raise UnknownPrice(
                "no known price, so a usd limit cannot be kept; limit tokens instead, or give the model a price",
                model=model.name,
            )
        price = FREE
    fixed, unit = [0] * len(DIMENSIONS), [0] * len(DIMENSIONS)
    fixed[INPUT] = fixed[TOKENS] = prompt
    fixed[USD] = prompt * price.input
    unit[OUTPUT] = unit[TOKENS] = 1
    unit[USD] = price.output
    return Request(fixed, unit, floor=min(least, most), want=most, enough=ENOUGH_TOKENS)
