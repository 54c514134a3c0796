"""Prices and windows from the tables on this machine."""

import sys
from decimal import Decimal
from types import ModuleType, SimpleNamespace

import pytest

from agentrt.models import prices
from agentrt.usage import PICO, Price, Usage

TABLE = {
    "p/flat": {"input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6},
    "p/tiers": {
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 4e-6,
        "cache_read_input_token_cost": 1e-7,
        "cache_creation_input_token_cost": 125e-8,
        "output_cost_per_reasoning_token": 6e-6,
        "input_cost_per_token_above_200k_tokens": 2e-6,
        "output_cost_per_token_above_200k_tokens": 8e-6,
        "input_cost_per_token_above_500k_tokens": 3e-6,
    },
    "perplexity/search": {
        "input_cost_per_token": 0.0,
        "output_cost_per_token": 0.0,
        "search_context_cost_per_query": {"search_context_size_low": 0.005, "search_context_size_high": 0.012},
    },
    "p/half": {"input_cost_per_token": 1e-6},
    "bare": {"input_cost_per_token": 5e-6, "output_cost_per_token": 5e-6, "litellm_provider": "p"},
}


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "_table", lambda: TABLE)


def test_a_price_is_in_whole_pico_dollars() -> None:
    """A dollar a million tokens is a million of them."""
    assert prices.price("p/flat") == Price(1_000_000, 4_000_000)


def test_long_prompts_have_their_own_rates() -> None:
    """From each threshold on, for the whole call; a tier keeps the rates it does not name."""
    price = prices.price("p/tiers")
    assert price is not None
    assert [price.at(n).input for n in (1, 200_000, 200_001, 500_001)] == [10**6, 10**6, 2 * 10**6, 3 * 10**6]
    assert price.at(200_001).output == 8_000_000
    assert (price.at(300_000).cached, price.at(300_000).cache_write, price.reasoning) == (100_000, 1_250_000, 6_000_000)


def test_a_model_that_always_searches_charges_for_it() -> None:
    """At the dearest of its sizes, since nobody says which was used."""
    price = prices.price("perplexity/search")
    assert price is not None
    assert price.cost(Usage()) == round(0.012 * PICO)


@pytest.mark.parametrize(("name", "known"), [("p/half", False), ("p/bare", True), ("q/bare", False), ("bare", True)])
def test_a_bare_name_counts_for_its_own_provider(name: str, known: bool) -> None:
    """And half a price is none."""
    assert (prices.price(name) is not None) is known


@pytest.fixture
def genai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for genai-prices: what its `calc_price` returns, and raises."""
    tiers = SimpleNamespace(base=Decimal(1), tiers=[SimpleNamespace(start=200_000, price=Decimal("2.5"))])
    found = SimpleNamespace(input_mtok=tiers, output_mtok=Decimal(10), cache_read_mtok=None, requests_kcount=Decimal(5))

    def calc_price(usage: object, *, model_ref: str, provider_id: str) -> SimpleNamespace:
        if (provider_id, model_ref) != ("p", "new"):
            raise LookupError(model_ref)
        return SimpleNamespace(model_price=found)

    module = ModuleType("genai_prices")
    module.__spec__ = SimpleNamespace(name="genai_prices")  # type: ignore[assignment]
    vars(module).update(calc_price=calc_price, Usage=lambda: None)
    monkeypatch.setitem(sys.modules, "genai_prices", module)


@pytest.mark.usefixtures("genai")
def test_genai_prices_is_asked_where_litellm_does_not_know() -> None:
    """At the highest tier, and with the fee of each request."""
    assert prices.price("p/new") == Price(2_500_000, 10_000_000, request=PICO // 200)
    assert prices.price("p/unheard-of") is None
    assert prices.price("p/flat") == Price(1_000_000, 4_000_000)


def test_without_litellm_no_table_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be left out where only embedded models run; nothing fails for it."""
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    prices._table.cache_clear()
    try:
        assert prices.price("openai/gpt-5-mini") is None
    finally:
        prices._table.cache_clear()


def test_a_price_without_rates_of_tokens_is_none() -> None:
    """As of models that charge by the picture."""
    assert prices.of_model_price(SimpleNamespace(requests_kcount=Decimal(5))) is None
