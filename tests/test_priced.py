"""A model at a stated price."""

from __future__ import annotations

import pytest

from agentrt import Agent, Budget, BudgetExceeded, Fallback, ModelUnavailable, Price, Priced, run
from agentrt.testing import ScriptedModel

pytestmark = pytest.mark.anyio


async def test_the_stated_price_is_reserved_and_charged() -> None:
    """In place of the model's own, or of none."""
    for own in (None, Price(9, 9)):
        agent = Agent("a", model=Priced(ScriptedModel(["x y"], price=own), Price(10**6, 10**7)))
        result = await run(agent, "go", budget=Budget(usd=1))
        assert result.usage.cost == result.usage.input_tokens * 10**6 + 2 * 10**7


async def test_the_limit_holds_at_the_stated_price() -> None:
    """The model's own would allow it."""
    model = ScriptedModel([])
    with pytest.raises(BudgetExceeded, match="usd"):
        await run(Agent("a", model=Priced(model, Price(10**12, 10**12))), "go", budget=Budget(usd=1))
    model.check()


async def test_a_price_holds_for_every_model_within() -> None:
    """And the outermost price counts."""
    models = [ScriptedModel([said], price=None) for said in (ModelUnavailable("x", billed=False), "x")]
    model = Priced(Fallback(*(Priced(m, Price(5, 5)) for m in models)), Price(3, 3))
    result = await run(Agent("a", model=model), "go", budget=Budget(usd=1))
    assert result.usage.cost == result.usage.tokens * 3
