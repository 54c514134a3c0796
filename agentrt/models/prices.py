"""Prices and windows: what the tables on this machine say of a provider's model, without loading litellm or a network.

litellm ships the first table; where it has no price, `genai-prices` is asked if it is installed (`agentrt[prices]`).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from agentrt.usage import PICO, Price

Entry: TypeAlias = Mapping[str, Any]

_TIER: Final = re.compile(r"input_cost_per_token(_above_(\d+)k_tokens)")
_MEGA: Final = 1_000_000


def entry(name: str) -> Entry:
    """Return what litellm's table says of a model: under its whole name, or the bare one if the provider fits."""
    if found := _table().get(name):
        return found
    provider, _, bare = name.partition("/")
    found = _table().get(bare, {})
    return found if found.get("litellm_provider") == provider else {}


def price(name: str) -> Price | None:
    """Return the price of `provider/model`; None if no table knows it."""
    return _of_entry(name, entry(name)) or _of_genai_prices(name)


@cache
def _table() -> dict[str, dict[str, Any]]:
    spec = importlib.util.find_spec("litellm")  # finds it without running it
    if spec is None or spec.origin is None:
        return {}
    table = Path(spec.origin).with_name("model_prices_and_context_window_backup.json")
    loaded: dict[str, dict[str, Any]] = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
    return loaded


def _of_entry(name: str, entry: Entry) -> Price | None:
    if entry.get("input_cost_per_token") is None or entry.get("output_cost_per_token") is None:
        return None
    fee = _fee(name, entry)
    above: tuple[int, Price] | None = None
    for tokens, suffix in sorted(_tiers(entry), reverse=True):
        above = (tokens, replace(_rates(entry, suffix), request=fee, above=above))
    return replace(_rates(entry, ""), request=fee, above=above)


def _tiers(entry: Entry) -> list[tuple[int, str]]:
    """Return from how many input tokens on a call costs more, with the suffix of those rates."""
    matches = (_TIER.fullmatch(key) for key in entry)
    return [(int(m[2]) * 1000, m[1]) for m in matches if m is not None]


def _rates(entry: Entry, suffix: str) -> Price:
    """Return the rates with a suffix; those that a tier does not name are as below it."""

    def rate(kind: str) -> int | None:
        dollars = entry.get(kind + suffix)
        dollars = entry.get(kind) if dollars is None else dollars
        return None if dollars is None else round(dollars * PICO)

    return Price(
        rate("input_cost_per_token") or 0,
        rate("output_cost_per_token") or 0,
        rate("cache_read_input_token_cost"),
        rate("cache_creation_input_token_cost"),
        rate("output_cost_per_reasoning_token"),
    )


def _fee(name: str, entry: Entry) -> int:
    """Return what each call costs besides its tokens: models that always search charge for that."""
    fee = entry.get("input_cost_per_request") or 0
    if name.startswith("perplexity/") or "search-preview" in name:
        fee += max((entry.get("search_context_cost_per_query") or {"none": 0}).values())
    return round(fee * PICO)


def _of_genai_prices(name: str) -> Price | None:
    if importlib.util.find_spec("genai_prices") is None:
        return None
    genai: Any = importlib.import_module("genai_prices")
    provider, _, model = name.partition("/")
    try:
        found = genai.calc_price(genai.Usage(), model_ref=model, provider_id=provider).model_price
    except LookupError:
        return None
    return of_model_price(found)


def of_model_price(found: Any) -> Price | None:
    """Return the price that genai-prices found, at the highest of its tiers; None if it has no token rates."""
    reading, writing = _highest(found, "input_mtok"), _highest(found, "output_mtok")
    if reading is None or writing is None:
        return None
    thousand = getattr(found, "requests_kcount", None) or 0
    cached, cache_write = _highest(found, "cache_read_mtok"), _highest(found, "cache_write_mtok")
    return Price(reading, writing, cached, cache_write, request=round(Decimal(thousand) * PICO / 1000))


def _highest(found: Any, kind: str) -> int | None:
    dollars = getattr(found, kind, None)
    if dollars is None:
        return None
    if hasattr(dollars, "tiers"):
        dollars = max(dollars.base, *(tier.price for tier in dollars.tiers))
    return round(Decimal(dollars) * PICO / _MEGA)
