"""Budgets: what can be said, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from agentrt import Budget, DefinitionError


@pytest.mark.parametrize("limits", [{"tokens": -1}, {"usd": float("nan")}, {"usd": float("inf")}, {"seconds": -0.1}])
def test_an_impossible_limit_is_refused(limits: dict[str, Any]) -> None:
    """Negative and infinite limits are mistakes, and told as such."""
    with pytest.raises(DefinitionError, match=next(iter(limits))):
        Budget(**limits)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("", Budget()),
        ("usd=0.5,tokens=20k,seconds=60", Budget(usd=0.5, tokens=20_000, seconds=60.0)),
        (" tokens = 1.5M ", Budget(tokens=1_500_000)),
    ],
)
def test_a_budget_is_read_from_text(text: str, budget: Budget) -> None:
    """As the command line takes it."""
    if "=" in text:
        text = text.replace(" = ", "=")
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["tokens", "tokens=", "tokens=x", "tokens=1.5", "money=3", "tokens=-5", "usd=inf"])
def test_a_wrong_part_is_named(text: str) -> None:
    """Raises `DefinitionError` with the part or the dimension in it."""
    with pytest.raises(DefinitionError, match=text.partition("=")[0]):
        Budget.parse(f"steps=3,{text}")


@pytest.mark.parametrize("wrong", [{"hold_back": 1}, {"on_exhausted": "explode"}, {"share": "most"}, {"calls": -1}])
def test_policies_are_checked_where_they_are_written(wrong: dict[str, Any]) -> None:
    """The option is named."""
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        Budget(**wrong)


def test_an_equal_share_is_what_is_left_by_the_branches() -> None:
    """B11: rounded down, and never above a limit of its own."""
    shared = Budget(share="equal", steps=3).divided({"tokens": 10, "usd": 1.0, "steps": 100, "seconds": 9}, 4)
    assert shared == Budget(tokens=2, usd=0.25, steps=3)


@pytest.mark.parametrize("limits", [{"tokens": 1.5}, {"steps": 0.1}, {"calls": 2.5}])
def test_what_is_counted_is_counted_in_whole_numbers(limits: dict[str, Any]) -> None:
    """Dollars, seconds and shares are not."""
    with pytest.raises(DefinitionError, match="counted in whole numbers"):
        Budget(**limits)
    Budget(usd=0.1, seconds=0.5, hold_back=0.25)
