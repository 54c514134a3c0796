"""The algebra of bounds: amounts, intervals, and what users see of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import Bound, Budget, BudgetTooSmall
from agentrt.bounds import bounds_of
from agentrt.budget import MODEL_CALLS, STEPS, TOKENS, TOOL_CALLS, USD
from agentrt.interval import NONE, NOTHING, Amount, Interval, added, anything, endless, greatest, started

values = st.one_of(st.integers(0, 50), st.just(math.inf))


@st.composite
def amounts(draw: st.DrawFn) -> Amount:
    """Draw an amount as composing makes them: finite with shares, or infinite with a name."""
    value, path = draw(values), draw(st.sampled_from("abc"))
    if value == math.inf:
        return Amount(math.inf, {}, {path: "why"})
    return Amount(value, {path: value}) if value else NOTHING


@given(amounts(), amounts(), st.integers(0, 5), values)
def test_composing_amounts_is_arithmetic(a: Amount, b: Amount, n: int, limit: float) -> None:
    """Sums add, repeating multiplies, a cap is a cap; nothing times for ever stays nothing."""
    assert (a + b).value == a.value + b.value
    assert a.times(n).value == (a.value * n if n else 0)
    assert a.capped(limit).value == min(a.value, limit)
    assert a.endless("x", "why").value == (math.inf if a.value else 0)


@given(amounts(), amounts(), values)
def test_an_infinite_amount_is_somebodys(a: Amount, b: Amount, limit: float) -> None:
    """What has no bound names the path without one, and what has a bound names nobody."""
    for amount in (a + b, a.capped(limit), (a + b).capped(limit), greatest([(a,), (b,)])[0]):
        assert bool(amount.unbounded) == (amount.value == math.inf)
        assert bool(amount.dominant) == (amount.value > 0)


def test_the_dominant_path_has_the_greatest_share() -> None:
    """Shares of one path add up."""
    total = Amount(3, {"a": 3}) + Amount(4, {"b": 4}) + Amount(2, {"a": 2})
    assert (total.value, total.dominant) == (9, "a")


def test_a_choice_takes_the_greatest_of_each_dimension() -> None:
    """The ways need not be the same one."""
    tool, call = started("a", (STEPS, TOOL_CALLS)).most, added(*[started("b", (STEPS,)).most] * 3)
    most = greatest([tool, call])
    assert (most[STEPS].value, most[TOOL_CALLS].value, most[STEPS].dominant) == (3, 1, "b")
    assert greatest([]) == NONE


def test_a_budget_caps_what_nobody_knows() -> None:
    """Tool calls are steps, so that a limit of steps bounds them too; what a step asks of models stays unknown."""
    most = anything("a", "why").within(Budget(steps=5), "a").most
    assert [most[d].value for d in (STEPS, MODEL_CALLS, TOOL_CALLS, TOKENS, USD)] == [
        5,
        math.inf,
        5,
        math.inf,
        math.inf,
    ]


def test_a_scope_that_cannot_succeed_is_infinitely_dear() -> None:
    """Unless it ends with what it has when its budget is exhausted."""
    interval = Interval(added(*[started("a", (STEPS,)).least] * 3))
    assert interval.within(Budget(steps=3), "a").least[STEPS].value == 3
    dear = interval.within(Budget(steps=2), "a").least[STEPS]
    assert (dear.value, dict(dear.unbounded)) == (math.inf, {"a": "needs at least 3 steps, and its own budget is 2"})


def test_endless_keeps_the_names_there_are() -> None:
    """A loop around something unbounded names both."""
    found = endless(anything("inner", "calls").most, "outer", "loops")[STEPS]
    assert dict(found.unbounded) == {"outer": "loops", "inner": "calls"}


def test_checking_says_what_is_needed_and_by_whom() -> None:
    """One line, with the dimension, the least, the path that needs most of it and the limit."""
    interval = Interval(added(*[started("g/a", (STEPS,)).least] * 3), added(*[started("g/a", (STEPS,)).most] * 3))
    bounds = bounds_of("g", interval, interval, {"steps": 2})
    assert not bounds.fits
    with pytest.raises(BudgetTooSmall) as caught:
        bounds.check()
    assert str(caught.value) == (
        "a run of 'g' needs at least 3 steps, most of it for g/a, and its budget is 2; raise Budget(steps=…)"
    )
    bounds_of("g", interval, interval, {"steps": 3}).check()


def test_a_bound_without_limit_fits() -> None:
    """Whatever its greatest; but nothing fits if no run can succeed."""
    assert Bound(least=1, greatest=math.inf, uncapped=math.inf).fits
    assert not Bound(least=math.inf, greatest=math.inf, uncapped=math.inf).fits
