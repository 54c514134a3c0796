"""Numbers: exact sums, prices as providers print them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agentrt import FREE, Price, Usage
from agentrt.usage import PICO

usages = st.builds(Usage, **{n: st.integers(0, 10**12) for n in Usage.__struct_fields__})


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


def test_every_kind_of_token_has_its_rate() -> None:
    """Read from the cache, written to it, reasoned; and a fee for the call."""
    used = Usage(input_tokens=100, cached_tokens=40, cache_write_tokens=10, output_tokens=20, reasoning_tokens=5)
    price = Price(10, 100, cached=1, cache_write=12, reasoning=200, request=7)
    assert price.cost(used) == 7 + 50 * 10 + 40 * 1 + 10 * 12 + 15 * 100 + 5 * 200


@given(
    st.lists(st.builds(Price, *[st.integers(0, 99)] * 2, *[st.none() | st.integers(0, 99)] * 3), min_size=1),
    st.booleans(),
)
def test_no_call_costs_more_than_the_highest_price(prices: list[Price], longer: bool) -> None:
    """Whatever is cached, written or reasoned, and however long the prompt."""
    used = Usage(input_tokens=100, cached_tokens=30, cache_write_tokens=30, output_tokens=50, reasoning_tokens=20)
    if longer:
        prices = [replace(prices[0], above=(99, price)) for price in prices]
    highest = Price.highest(prices)
    assert all(price.cost(used) <= highest.cost(used) for price in prices)


def test_a_usage_shows_dollars() -> None:
    """And only what there is of it."""
    assert repr(Usage(input_tokens=3, cost=PICO // 2)) == "Usage(input_tokens=3, usd=0.5)"
    assert repr(Usage(cost=1)) == "Usage(usd=0.000000000001)"
    assert repr(Usage()) == "Usage()"
