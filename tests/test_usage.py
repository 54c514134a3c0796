"""Numbers: exact sums, prices as providers print them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentrt import FREE, Price, Usage
from agentrt.usage import PICO

usages = st.builds(Usage, **{n: st.integers(0, 10**12) for n in Usage.__dataclass_fields__})


@given(usages, usages, usages)
def test_usage_adds_up_exactly(a: Usage, b: Usage, c: Usage) -> None:
    """In any order."""
    assert (a + b) + c == a + (b + c) == c + b + a
    assert a + Usage() == a
    assert (a + b).tokens == a.tokens + b.tokens


def test_a_price_is_read_as_printed() -> None:
    """Dollars per million tokens; cached input has its own."""
    price = Price.per_million(input=0.15, output=0.6, cached=0.075)
    assert (price.input, price.output, price.cached) == (150_000, 600_000, 75_000)
    used = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=1_000_000)
    assert price.cost(used) == round((0.6 * 0.15 + 0.4 * 0.075 + 0.6) * PICO)
    assert Price(1, 2).cost(used) == 3_000_000
    assert FREE.cost(used) == 0


def test_usd_is_the_cost_in_dollars() -> None:
    """From pico-dollars."""
    assert Usage(cost=PICO // 2).usd == 0.5
