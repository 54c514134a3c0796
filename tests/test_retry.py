"""Retries: what is tried again, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import BudgetExceeded, DefinitionError, ModelUnavailable, RateLimited, Retry

DENIED = BudgetExceeded(scope="a", dimension="tokens", needed=1, spent=1, limit=1, path="a/b")


@given(st.integers(1, 1000), st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_delay_doubles_up_to_the_longest(attempt: int, backoff: float, longest: float) -> None:
    """Up to half of it is taken off."""
    delay = Retry(attempts=1001, backoff=backoff, longest=longest).delay(attempt, ModelUnavailable("x"))
    whole = min(backoff * 2.0 ** min(attempt - 1, 64), longest)
    assert delay is not None
    assert whole / 2 <= delay <= whole


def test_the_last_attempt_is_not_followed() -> None:
    """attempts counts the first one too."""
    assert Retry(attempts=2).delay(1, RateLimited("x")) is not None
    assert Retry(attempts=2).delay(2, RateLimited("x")) is None


def test_a_provider_that_names_a_time_is_obeyed() -> None:
    """retry_after counts where it is longer than the back-off."""
    assert Retry(backoff=0.1).delay(1, RateLimited("x", retry_after=30)) == 30
    assert Retry(backoff=10).delay(1, RateLimited("x", retry_after=0.1)) != 0.1


def test_only_what_is_named_is_tried_again() -> None:
    """By class or by a function."""
    assert Retry().delay(1, ValueError("x")) is None
    assert Retry(on=ValueError).delay(1, ValueError("x")) is not None
    assert Retry(on=lambda e: "again" in str(e)).delay(1, ValueError("again")) is not None


def test_a_denial_is_never_tried_again() -> None:
    """The money will not come back by asking."""
    assert Retry(on=Exception).delay(1, DENIED) is None


@pytest.mark.parametrize("options", [{"attempts": 0}, {"backoff": -1}, {"longest": -1}])
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    """At once, where they are written."""
    with pytest.raises(DefinitionError):
        Retry(**options)  # type: ignore[arg-type]
