"""What work costs: tokens, money and counts, as whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

PICO = 10**12
"""Pico-dollars in one dollar: money is counted in whole pico-dollars, so that sums are exact."""


@dataclass(frozen=True, slots=True)
class Price:
    """Hold what one token costs, in pico-dollars (1 $ per million tokens = 1,000,000)."""

    input: int
    output: int
    cached: int | None = None

    @classmethod
    def per_million(cls, *, input: float, output: float, cached: float | None = None) -> Self:
        """Build a price from dollars per million tokens, as providers print it."""
        return cls(_pico(input), _pico(output), None if cached is None else _pico(cached))

    def cost(self, usage: Usage) -> int:
        """Return what `usage` costs, in pico-dollars."""
        cached_rate = self.input if self.cached is None else self.cached
        uncached = usage.input_tokens - usage.cached_tokens
        return uncached * self.input + usage.cached_tokens * cached_rate + usage.output_tokens * self.output


def _pico(dollars_per_million: float) -> int:
    return round(dollars_per_million * PICO / 1_000_000)


FREE = Price(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Hold what a call or a run used.

    `input_tokens` includes `cached_tokens`, `output_tokens` includes `reasoning_tokens` (as in the OpenTelemetry
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

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def usd(self) -> float:
        return self.cost / PICO

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
        )
