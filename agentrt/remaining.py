"""What is left of the budgets around a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agentrt.budget import DIMENSIONS, USD
from agentrt.errors import number
from agentrt.ledger import Account
from agentrt.usage import PICO


class Remaining:
    """Tell what a step may still spend: for each capped dimension the least that any account around it has left."""

    def __init__(
        self, account: Account, deadline: float = float("inf"), now: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._account = account
        self._deadline = deadline
        self._now = now

    @property
    def spent(self) -> dict[str, float]:
        """Return what the innermost scope with a budget has spent, by dimension; `usd` in dollars."""
        return _in_units(self._account.spent)

    @property
    def spent_by_run(self) -> dict[str, float]:
        """Return what the whole run has spent, by dimension; `usd` in dollars."""
        return _in_units(self._account.chain[-1].spent)

    @property
    def remaining(self) -> dict[str, float]:
        """Return what is left by dimension, reservations in flight taken off; uncapped dimensions are absent."""
        left: dict[str, float] = {}
        for scope in self._account.chain:
            for d, limit in scope.caps(self._account):
                room = max(0, limit - scope.spent[d] - scope.reserved[d])
                amount = room / PICO if d == USD else room
                left[DIMENSIONS[d]] = min(amount, left.get(DIMENSIONS[d], amount))
        if self._deadline < float("inf"):
            left["seconds"] = max(0.0, self._deadline - self._now())
        return left

    def __str__(self) -> str:
        """Tell a model, or a person: "3,120 tokens, 4 model calls, 20 s left"."""
        left = self.remaining
        return f"{in_words(left)} left" if left else "no limit"


def _in_units(spent: Sequence[int]) -> dict[str, float]:
    amounts = zip(DIMENSIONS, spent, strict=True)
    return {name: amount / PICO if name == "usd" else amount for name, amount in amounts}


def in_words(amounts: Mapping[str, float]) -> str:
    """Return amounts by dimension as people read them."""
    return ", ".join(_amount(name, amount) for name, amount in amounts.items())


def _amount(name: str, amount: float) -> str:
    if name == "usd":
        if amount >= 1 or not amount:
            return f"${amount:,.2f}"
        return f"${amount:.4f}" if amount >= 0.001 else f"${number(amount)}"
    if name == "seconds":
        return f"{amount:,.0f} s" if amount >= 1 else f"{amount:.1f} s"
    words = name.replace("_", " ")
    return f"{amount:,.0f} {words.removesuffix('s') if amount == 1 else words}"
