"""The step that asks a model: reserve, call, settle."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentrt import (
    Agent,
    AgentrtError,
    Budget,
    BudgetExceeded,
    Context,
    ContextOverflow,
    DefinitionError,
    ModelRequest,
    ModelResponse,
    ModelSettings,
    ModelUnavailable,
    Price,
    RateLimited,
    StepFailed,
    UnknownModel,
    Usage,
    run,
)
from agentrt import events as ev
from agentrt.messages import AssistantMessage, UserMessage
from agentrt.model import Chat, default_model, resolve_model
from agentrt.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio
REQUEST = ModelRequest(messages=(UserMessage("one two"),), settings=ModelSettings(max_tokens=10, min_tokens=4))


async def test_a_call_is_settled_at_its_usage() -> None:
    """The rest returns."""
    events: list[Any] = []
    result = await run(Chat(ScriptedModel(["a b"])), REQUEST, observers=[events.append], budget=Budget(tokens=100))
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.model_calls) == (3, 2, 1)
    assert [e.usage.tokens for e in events if isinstance(e, ev.UsageRecorded)] == [5]


async def test_a_call_is_clamped_to_what_is_left() -> None:
    """The model is asked for no more than was reserved."""
    events: list[Any] = []
    model = ScriptedModel(["word " * 20])
    result = await run(Chat(model), REQUEST, observers=[events.append], budget=Budget(tokens=8))
    assert model.requests[0].settings.max_tokens == 5
    assert (result.usage.tokens, result.output.finish_reason) == (8, "length")
    assert [(e.wanted, e.granted) for e in events if isinstance(e, ev.BudgetClamped)] == [(10, 5)]


async def test_a_call_below_its_floor_is_denied() -> None:
    """Without a request being sent."""
    model = ScriptedModel([])
    with pytest.raises(BudgetExceeded, match="at least 7 more"):
        await run(Chat(model), REQUEST, budget=Budget(tokens=6))
    model.check()


@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (RateLimited("slow"), 0),
        (ModelUnavailable("no connection", billed=False), 0),
        (ModelUnavailable("cut"), 13),
        (ValueError("a bug"), 13),
    ],
)
async def test_a_failed_call_costs_what_may_be_billed(error: Exception, tokens: int) -> None:
    """B9: nothing where that is known, else the whole reservation, marked uncertain."""
    events: list[Any] = []
    with pytest.raises(StepFailed):
        await run(Chat(ScriptedModel([error])), REQUEST, observers=[events.append])
    assert (events[-1].usage.tokens, events[-1].usage.uncertain) == (tokens, tokens)


async def test_a_cancelled_call_costs_its_reservation() -> None:
    """B9: cut without usage."""

    async def hang(request: ModelRequest) -> str:
        await anyio.sleep_forever()
        return ""

    events: list[Any] = []
    with anyio.move_on_after(0.01):
        await run(Chat(FunctionModel(hang)), REQUEST, observers=[events.append])
    assert events[-1].usage.uncertain == 13


async def test_a_bill_above_its_reservation_is_an_overrun() -> None:
    """B10: charged in full, told, and the account is closed."""
    bill = ModelResponse(message=AssistantMessage("x"), usage=Usage(input_tokens=3, output_tokens=50))
    events: list[Any] = []
    result = await run(Chat(ScriptedModel([bill])), REQUEST, budget=Budget(tokens=30), observers=[events.append])
    assert result.usage.tokens == 53
    assert [(e.reserved, e.billed) for e in events if isinstance(e, ev.BudgetOverrun)] == [(13, 53)]


async def test_a_prompt_must_fit_the_window() -> None:
    """Before anything is reserved."""
    with pytest.raises(StepFailed, match="a prompt of 3 tokens does not fit") as error:
        await run(Chat(ScriptedModel([], window=3)), REQUEST)
    assert isinstance(error.value.cause, ContextOverflow)


@pytest.mark.parametrize("name", ["gpt", "/", "openai/", ""])
def test_a_name_that_leads_nowhere_says_what_to_write(name: str) -> None:
    """provider/model, or the embedded one."""
    with pytest.raises(UnknownModel, match="write provider/model"):
        resolve_model(name)


def test_the_default_model_is_never_a_paid_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the environment names it."""
    monkeypatch.delenv("AGENTRT_MODEL", raising=False)
    assert default_model().startswith("local/")
    monkeypatch.setenv("AGENTRT_MODEL", "openai/x")
    assert default_model() == "openai/x"


def test_settings_are_made_consistent() -> None:
    """The floor is never above the cap, and the cap is at least one."""
    assert ModelSettings(max_tokens=4).min_tokens == 4
    with pytest.raises(DefinitionError, match="max_tokens=0"):
        ModelSettings(max_tokens=0)
    assert issubclass(DefinitionError, AgentrtError)


async def test_the_runtime_prices_what_a_model_reports() -> None:
    """A model that tells tokens only is charged by its price, so that a usd limit holds over several calls."""
    model = FunctionModel(lambda request: "word " * 10, price=Price.per_million(input=1, output=100))
    agent = Agent("agent", model=model, settings=ModelSettings(max_tokens=10))

    async def several(n: int, ctx: Context) -> None:
        for _ in range(n):
            await ctx.run(agent, "say ten words")

    with pytest.raises(BudgetExceeded, match="usd"):
        await run(several, 10, budget=Budget(usd=0.005))
    assert 0 < model.bill.usd <= 0.005
    result = await run(several, 2)
    assert result.usage.cost == 2 * model.price.cost(Usage(input_tokens=4, output_tokens=10))  # type: ignore[union-attr]
