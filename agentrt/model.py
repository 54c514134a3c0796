"""Models: what they are asked, what they answer, and the step that asks one within the budget."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pkgutil import resolve_name
from typing import Any, ClassVar, Final, Protocol, Self, cast, runtime_checkable

import anyio
import msgspec

from agentrt.budget import DIMENSIONS, INPUT, MODEL_CALLS, OUTPUT, TOKENS, USD
from agentrt.errors import (
    ContextOverflow,
    DefinitionError,
    ModelUnavailable,
    UnknownModel,
    UnknownPrice,
)
from agentrt.ledger import Request
from agentrt.messages import AssistantMessage, Message, ToolSpec
from agentrt.node import Context, Node, Reservation
from agentrt.usage import FREE, Price, Usage

EMBEDDED_MODEL: Final = "local/smollm2-135m"
ENOUGH_TOKENS: Final = 512
"""An answer clamped to this many output tokens is still useful: such a call need not wait for more (rule B5)."""
UNPRICED: Final = (
    "no known price, so a usd limit cannot be kept; limit tokens instead, or say what it costs: Priced(model, Price(…))"
)
_CLOSING_SECONDS: Final = 10.0
_logger = logging.getLogger("agentrt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Say how to sample. `max_tokens` is always sent; a call the budget cannot give `min_tokens` is denied.

    With `idle_timeout` a call ends with `ModelUnavailable` once nothing has arrived for so many seconds, the wait for
    the first piece included.
    """

    max_tokens: int = 4096
    min_tokens: int = 16
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    idle_timeout: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.min_tokens <= self.max_tokens:
            object.__setattr__(self, "min_tokens", max(1, min(self.min_tokens, self.max_tokens)))
            if self.max_tokens < 1:
                raise DefinitionError(f"ModelSettings(max_tokens={self.max_tokens}): ask for at least one token")
        if self.idle_timeout is not None and self.idle_timeout <= 0:
            raise DefinitionError(f"ModelSettings(idle_timeout={self.idle_timeout}): give some time, in seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """Hold one request: a conversation, or with `prompt` a raw text to be continued (then `messages` says the same
    for the record). `output_schema` is the JSON schema of an object that the answer must fit."""

    is_recorded_by_new_messages: ClassVar[bool] = True  # the rest is on record before

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
        """Answer; `on_text` gets each piece of text as it comes, and "" for what arrives without text.

        Cancelling the call stops the generation.
        """
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
    model: Model = resolve_name(_ADAPTERS.get(provider, _ANY_PROVIDER))(name)
    return model


def default_model() -> str:
    """Return the name used where nothing names a model: `AGENTRT_MODEL`, else the embedded one; never a paid one."""
    return os.environ.get("AGENTRT_MODEL") or EMBEDDED_MODEL


class Models:
    """Find the models of one run: each name is resolved once, and what was resolved here is closed here."""

    def __init__(self, override: Model | str | None) -> None:
        self.override = override
        self._open: dict[str, Model] = {}

    def __call__(self, named: Model | str | None) -> Model:
        return bound(self.override or named or default_model(), self._named)

    def _named(self, name: str) -> Model:
        if name not in self._open:
            self._open[name] = resolve_model(name)
        return self._open[name]

    async def aclose(self) -> None:
        """Close each, whatever becomes of the others; run it in a task of its own, which no cancellation reaches."""
        opened, self._open = self._open, {}
        for name, model in opened.items():
            try:
                with anyio.move_on_after(_CLOSING_SECONDS, shield=True) as scope:
                    await model.aclose()
                if scope.cancelled_caught:
                    _logger.warning(
                        "model %s did not close within %g s; the run ends without it", name, _CLOSING_SECONDS
                    )
            except Exception:
                _logger.exception("model %s could not be closed; the run's outcome stands", name)


class Wrapper(ABC):
    """Be a model made of other models: it asks them, through `ask`, as often as it likes.

    So every attempt is reserved, charged and traced on its own, and waiting holds no budget (rule B9). Wrappers nest
    in any order. A model may be given by its name, which the run resolves; until then it can be asked nothing.
    A wrapper's own state is shared by the copies that runs make of it.

    `attempts` is how often it asks each model within for one answer at most, None where nobody knows; `spares` says
    that it may ask none.
    """

    attempts: int | None = None
    spares: bool = True

    def __init__(self, *models: Model | str) -> None:
        self.models = models

    @abstractmethod
    async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
        """Answer by asking the models within, any number of times; raises `ModelError`s and `BudgetExceeded`."""

    def over(self, models: Iterable[Model | str]) -> Self:
        """Return the same wrapper around other models."""
        other = copy(self)
        other.models = tuple(models)
        return other

    def bind(self, resolve: Callable[[str], Model]) -> Self:
        """Return the wrapper with every name in it resolved."""
        return self.over(bound(model, resolve) for model in self.models)

    @property
    def model(self) -> Model:
        """Return the first model within."""
        return self.bound_models[0]

    @property
    def bound_models(self) -> tuple[Model, ...]:
        """Return the models within; raises `DefinitionError` while one is only a name."""
        for model in self.models:
            if isinstance(model, str):
                raise DefinitionError(f"{model} in {self!r} is only a name: names of models are resolved by a run")
        return cast("tuple[Model, ...]", self.models)

    @property
    def asked(self) -> tuple[Model, ...]:
        """Return the models within as they are asked."""
        return self.bound_models

    @property
    def name(self) -> str:
        first = self.models[0]
        return first if isinstance(first, str) else first.name

    @property
    def price(self) -> Price | None:
        """Return the highest rates of the models within; None if one is unknown."""
        prices = [None if isinstance(model, str) else model.price for model in self.models]
        known = [price for price in prices if price is not None]
        return Price.highest(known) if len(known) == len(prices) else None

    async def count_tokens(self, request: ModelRequest) -> int:
        """Return the most that any model within counts."""
        return max([await model.count_tokens(request) for model in self.bound_models])

    def max_output(self, request: ModelRequest, input_tokens: int) -> int:
        return max(model.max_output(request, input_tokens) for model in self.bound_models)

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Raise `DefinitionError`: without a step nobody could pay for each attempt."""
        raise DefinitionError(f"{self!r} is asked within a step, `await ask(ctx, model, request)`, not by generate")

    async def aclose(self) -> None:
        """Release what the models within hold; models given by name are the run's to close."""
        for model in self.models:
            if not isinstance(model, str):
                await model.aclose()

    def __repr__(self) -> str:
        names = ", ".join(model if isinstance(model, str) else repr(model) for model in self.models)
        return f"<{type(self).__name__} {names}>"


def bound(model: Model | str, resolve: Callable[[str], Model]) -> Model:
    """Return the model of a name, and a wrapper with all its names resolved."""
    if isinstance(model, str):
        return resolve(model)
    return model.bind(resolve) if isinstance(model, Wrapper) else model


async def ask(ctx: Context, model: Model, request: ModelRequest) -> ModelResponse:
    """Ask a model within the budget of a step: reserve the worst case, call, settle what was used.

    A wrapper is asked in its own way. A call whose bill nobody learns (cancelled, stalled, broken off) is charged
    its whole reservation, the prompt and every output token granted, marked uncertain (rule B9), unless its model says
    with `unbilled` that nothing had been sent. Raises `ModelError`s and `BudgetExceeded`.
    """
    if isinstance(model, Wrapper):
        return await model.ask(ctx, request)
    reservation, request = await _reserved(ctx, model, request)
    try:
        response = await _answer(ctx, model, request)
    except BaseException as error:
        if is_unbilled(error):
            reservation.release()
        else:
            reservation.forfeit()
        raise
    usage, price = response.usage, model.price
    if price is not None and not usage.cost and (cost := price.cost(usage)):
        usage = msgspec.structs.replace(usage, cost=cost)
        response = replace(response, usage=usage)
    reservation.settle(usage)
    return response


@contextmanager
def unbilled(still: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Mark what ends this block, cancellation included, as not billed, if nothing of the request is sent by then."""
    try:
        yield
    except BaseException as error:
        if still():
            error.billed = False  # type: ignore[attr-defined]
        raise


def is_unbilled(error: BaseException) -> bool:
    """Say whether what ended a call is known not to be billed."""
    return getattr(error, "billed", None) is False


async def _reserved(ctx: Context, model: Model, request: ModelRequest) -> tuple[Reservation, ModelRequest]:
    """Reserve a request's worst case and count the call; return the request with the output tokens granted."""
    settings = request.settings
    prompt = await model.count_tokens(request)
    most = min(settings.max_tokens, model.max_output(request, prompt))
    if most < 1:
        raise ContextOverflow(f"a prompt of {prompt:,} tokens does not fit; shorten it", model=model.name)
    # The call counts at its start (rule B2): a denied one, or a cache's answer, is none.
    reservation = await ctx.reserve(_worst_case(model, prompt, most, settings.min_tokens, ctx), MODEL_CALLS)
    if reservation.granted != settings.max_tokens:
        request = replace(request, settings=replace(settings, max_tokens=reservation.granted))
    return reservation, request


async def _answer(ctx: Context, model: Model, request: ModelRequest) -> ModelResponse:
    """Let the model answer; raises `ModelUnavailable` once nothing has arrived for the request's `idle_timeout`."""
    idle = request.settings.idle_timeout
    if idle is None:
        return await model.generate(request, ctx.text_delta)

    def heard(text: str) -> None:
        scope.deadline = anyio.current_time() + idle
        ctx.text_delta(text)

    with anyio.move_on_after(idle) as scope:
        return await model.generate(request, heard)
    raise ModelUnavailable(f"stalled: nothing arrived for {idle:g} s", model=model.name)


class Chat(Node[ModelRequest, ModelResponse]):
    """Ask a model, as a step of its own."""

    kind = "chat"
    name: str = "chat"

    def __init__(self, model: Model) -> None:
        self.input, self.output = ModelRequest, ModelResponse
        self.description, self.budget = "", None
        self.attributes = {"model": model.name}
        self.model = model

    async def invoke(self, ctx: Context, value: ModelRequest, /) -> ModelResponse:
        return await ask(ctx, self.model, value)


def _worst_case(model: Model, prompt: int, most: int, least: int, ctx: Context) -> Request:
    price = model.price
    if price is None:
        if "usd" in ctx.budget.remaining:
            raise UnknownPrice(UNPRICED, model=model.name)
        price = FREE
    rates = price.at(prompt)
    fixed, unit = [0] * len(DIMENSIONS), [0] * len(DIMENSIONS)
    fixed[INPUT] = fixed[TOKENS] = prompt
    fixed[USD] = price.request + prompt * rates.input
    unit[OUTPUT] = unit[TOKENS] = 1
    unit[USD] = max(rates.output, rates.reasoning or 0)
    return Request(fixed, unit, floor=min(least, most), want=most, enough=ENOUGH_TOKENS)
