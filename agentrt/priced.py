"""A model at a price its user states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from agentrt.model import Model, ModelRequest, ModelResponse, Wrapper, ask
from agentrt.node import Context
from agentrt.usage import Price


class Priced(Wrapper):
    """Say what a model costs, where no table knows it or your contract says otherwise.

    Around another wrapper the price is that of every model within.
    """

    attempts, spares = 1, False

    def __init__(self, model: Model | str, price: Price) -> None:
        super().__init__(model)
        self._price = price

    @property
    def price(self) -> Price | None:
        return self._price

    @property
    def asked(self) -> tuple[Model, ...]:
        return (_at(self.model, self._price),)

    async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
        return await ask(ctx, self.asked[0], request)


def _at(model: Model, price: Price) -> Model:
    if isinstance(model, Priced):  # the price stated outermost counts
        return _at(model.model, price)
    if isinstance(model, Wrapper):
        return model.over(_at(m, price) for m in model.bound_models)
    return _PricedModel(model, price)


class _PricedModel:
    """Be a model in everything but its price."""

    def __init__(self, model: Model, price: Price) -> None:
        self._model = model
        self.name = model.name
        self.price: Price | None = price
        self.count_tokens = model.count_tokens
        self.max_output = model.max_output
        self.aclose = model.aclose

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        """Answer as the model does, leaving the cost to be worked out at the stated price."""
        response = await self._model.generate(request, on_text)
        return replace(response, usage=msgspec.structs.replace(response.usage, cost=0))
