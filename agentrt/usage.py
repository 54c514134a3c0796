"""What work costs: tokens, money and counts, as whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from agentrt.value import Value

PICO = 10**12
"""Pico-dollars in one dollar: money is counted in whole pico-dollars, so that sums are exact."""


@dataclass(frozen=True, slots=True)
class Price:
    """Hold what one token costs, in pico-dollars (1 $ per million tokens = 1,000,000).

    cached, cache_write: of prompt tokens read from, or written to, the provider's cache; None: as any input.
    reasoning: of output tokens spent on reasoning; None: as any output.
    request: of every call besides.
    above: (n, price) charges a call with more than n input tokens at another price, the whole of it.
    """

    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    request: int = 0
    above: tuple[int, Price] | None = None

    @classmethod
    def per_million(
        cls,
        *,
        input: float,
        output: float,
        cached: float | None = None,
        cache_write: float | None = None,
        reasoning: float | None = None,
    ) -> Self:
        """Build a price from dollars per million tokens, as providers print it."""
        read, written, thought = (None if rate is None else _pico(rate) for rate in (cached, cache_write, reasoning))
        return cls(_pico(input), _pico(output), read, written, thought)

    @classmethod
    def highest(cls, prices: Sequence[Price]) -> Price:
        """Return a price that no call is above at any of these."""
        tiers = [tier for price in prices for tier in price.tiers]
        return cls(
            max(max(t.input, t.cached or 0, t.cache_write or 0) for t in tiers),
            max(max(t.output, t.reasoning or 0) for t in tiers),
            request=max(t.request for t in tiers),
        )

    @property
    def tiers(self) -> tuple[Price, ...]:
        """Return this price and those for ever longer prompts."""
        return (self,) if self.above is None else (self, *self.above[1].tiers)

    def at(self, input_tokens: int) -> Price:
        """Return the price of a call with so many input tokens."""
        if self.above is not None and input_tokens > self.above[0]:
            return self.above[1].at(input_tokens)
        return self

    def cost(self, usage: Usage) -> int:
        """Return what `usage` of one call costs, in pico-dollars."""
        rates = self.at(usage.input_tokens)
        fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        plain = usage.output_tokens - usage.reasoning_tokens
        return (
            rates.request
            + fresh * rates.input
            + usage.cached_tokens * _or(rates.cached, rates.input)
            + usage.cache_write_tokens * _or(rates.cache_write, rates.input)
            + plain * rates.output
            + usage.reasoning_tokens * _or(rates.reasoning, rates.output)
        )


def _or(rate: int | None, otherwise: int) -> int:
    return otherwise if rate is None else rate


def _pico(dollars_per_million: float) -> int:
    return round(dollars_per_million * PICO / 1_000_000)


FREE = Price(0, 0)


class Usage(Value):
    """Hold what a call or a run used.

    `input_tokens` includes `cached_tokens`, read from the provider's cache, and `cache_write_tokens`, written to it;
    `output_tokens` includes `reasoning_tokens` (as in the OpenTelemetry
    GenAI conventions). `cost` is in pico-dollars; `usd` is the same in dollars. `uncertain` is the part of
    `tokens` that was charged at its reservation because the provider never said what it used.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    steps: int = 0
    uncertain: int = 0
    cache_write_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def usd(self) -> float:
        return self.cost / PICO

    def __repr__(self) -> str:
        """Show what there is of it, money in dollars."""
        amounts = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = [f"usd={self.usd:.12f}".rstrip("0") if name == "cost" else f"{name}={n}" for name, n in amounts if n]
        return f"Usage({', '.join(shown)})"

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost=self.cost + other.cost,
            model_calls=self.model_calls + other.model_calls,
            tool_calls=self.tool_calls + other.tool_calls,
            steps=self.steps + other.steps,
            uncertain=self.uncertain + other.uncertain,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )
