"""The step that asks a model: reserve, call, settle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
    Fallback,
    Model,
    ModelRequest,
    ModelResponse,
    ModelSettings,
    ModelUnavailable,
    Price,
    RateLimited,
    StepFailed,
    UnknownModel,
    UnknownPrice,
    Usage,
    Wrapper,
    ask,
    run,
)
from agentrt import events as ev
from agentrt.messages import AssistantMessage, UserMessage
from agentrt.model import Chat, default_model, resolve_model, unbilled
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


async def test_a_call_cancelled_before_it_was_sent_costs_nothing() -> None:
    """B9: its model says so, also of a cancellation."""

    async def waits_its_turn(request: ModelRequest) -> str:
        with unbilled():
            await anyio.sleep_forever()
        return ""

    events: list[Any] = []
    with anyio.move_on_after(0.01):
        await run(Chat(FunctionModel(waits_its_turn)), REQUEST, observers=[events.append])
    assert (events[-1].usage.tokens, events[-1].usage.model_calls) == (0, 1)


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


class Twice(Wrapper):
    """Ask every question twice and give the second answer."""

    async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
        await ask(ctx, self.model, request)
        return await ask(ctx, self.model, request)


async def test_a_wrapper_pays_for_each_of_its_calls() -> None:
    """One step, two model calls."""
    result = await run(Chat(Twice(ScriptedModel(["a", "b c"]))), REQUEST)
    assert result.output.message.text == "b c"
    assert (result.usage.model_calls, result.usage.steps, result.usage.tokens) == (2, 1, 9)


async def test_names_within_are_resolved_by_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each, whatever is around them, and closed at its end; the wrapper itself can be used again."""
    opened: list[FunctionModel] = []
    closed: list[str] = []

    class Closing(FunctionModel):
        async def aclose(self) -> None:
            closed.append(self.name)

    def resolve(name: str) -> FunctionModel:
        opened.append(Closing(lambda request: "x", name=name))
        return opened[-1]

    monkeypatch.setattr("agentrt.model.resolve_model", resolve)
    model = Twice(Twice("test/a"))
    for _ in range(2):
        result = await run(Agent("agent", model=model), "go")
        assert result.usage.model_calls == 4
    assert [m.name for m in opened] == closed == ["test/a", "test/a"]
    assert (await run(Agent("agent", model="test/b"), "go", model=model)).usage.model_calls == 4
    assert closed[-1] == "test/a"


async def test_a_wrapper_says_what_the_models_within_say() -> None:
    """The name of the first, the most tokens, the highest price; None where one is not known."""
    cheap, dear = (FunctionModel(lambda r: "", name=n, price=Price(*p), window=w) for n, p, w in (
        ("test/a", (1, 5), 50), ("test/b", (3, 2), 20)))  # fmt: skip
    both = Twice(cheap, dear)
    assert (both.name, both.price, both.max_output(REQUEST, 10)) == ("test/a", Price(3, 5), 40)
    assert await both.count_tokens(REQUEST) == 3
    assert Twice(cheap, FunctionModel(lambda r: "", price=None)).price is None
    assert Twice("openai/x").price is None
    assert isinstance(both, Model)


async def test_a_wrapper_is_asked_within_a_step_only() -> None:
    """Nobody could pay for its calls else; and a name must have been resolved."""
    with pytest.raises(DefinitionError, match="ask\\(ctx"):
        await Twice(ScriptedModel([])).generate(REQUEST, print)
    with pytest.raises(StepFailed, match="openai/x in <Twice openai/x> is only a name"):
        await run(Chat(Twice("openai/x")), REQUEST)


async def test_a_denied_call_is_no_model_call() -> None:
    """B2: it is counted as it starts; and where the count is refused, the tokens return."""
    with pytest.raises(BudgetExceeded) as denial:
        await run(Chat(ScriptedModel([])), REQUEST, budget=Budget(tokens=6))
    events: list[Any] = []
    with pytest.raises(BudgetExceeded, match="model_calls"):
        await run(Chat(ScriptedModel([])), REQUEST, budget=Budget(model_calls=0), observers=[events.append])
    assert denial.value.dimension == "tokens"
    assert (events[-1].usage.model_calls, events[-1].usage.tokens) == (0, 0)
    assert [e.dimension for e in events if isinstance(e, ev.BudgetDenied)] == ["model_calls"]


class Stalling(FunctionModel):
    """Stream pieces, the empty ones too, each after a while, and then nothing more."""

    def __init__(self, *pieces: str) -> None:
        super().__init__(lambda request: "done")
        self.pieces = pieces

    async def generate(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelResponse:
        for piece in self.pieces:
            await anyio.sleep(0.01)
            on_text(piece)
        if not self.pieces[-1]:
            return await super().generate(request, on_text)
        await anyio.sleep_forever()
        raise AssertionError


async def test_a_stream_that_stalls_is_ended() -> None:
    """And costs its reservation: cut without usage (B9)."""
    request = replace(REQUEST, settings=replace(REQUEST.settings, idle_timeout=0.03))
    events: list[Any] = []
    with pytest.raises(StepFailed, match=r"stalled: nothing arrived for 0\.03 s") as failure:
        await run(Chat(Stalling("a")), request, observers=[events.append])
    assert isinstance(failure.value.cause, ModelUnavailable)
    assert (events[-1].usage.tokens, events[-1].usage.uncertain) == (13, 13)


async def test_whatever_arrives_keeps_a_stream_alive() -> None:
    """With no text in it, too; such pieces are no events."""
    request = replace(REQUEST, settings=replace(REQUEST.settings, idle_timeout=0.03))
    events: list[Any] = []
    result = await run(Chat(Stalling("", "", "a ", "", "")), request, observers=[events.append])
    assert result.output.message.text == "done"
    assert [e.text for e in events if isinstance(e, ev.TextDelta)] == ["a ", "done"]
    with pytest.raises(DefinitionError, match="idle_timeout"):
        ModelSettings(idle_timeout=0)


async def test_a_wrapper_closes_the_models_it_was_given() -> None:
    """Those given by name are the run's to close."""
    closed: list[str] = []

    class Closing(FunctionModel):
        async def aclose(self) -> None:
            closed.append(self.name)

    given = Closing(lambda request: "x", name="test/given")
    await Fallback("openai/gpt-5-mini", given).aclose()
    assert closed == ["test/given"]


async def test_a_model_that_code_chooses_needs_a_price_at_its_first_call() -> None:
    """Under a usd limit: no graph told of it before."""
    dear = FunctionModel(lambda request: "x", name="test/dear", price=None)

    async def choose(x: str, ctx: Context) -> str:
        return (await ask(ctx, dear, REQUEST)).message.text

    with pytest.raises(StepFailed, match="test/dear") as failure:
        await run(choose, "go", budget=Budget(usd=1))
    assert isinstance(failure.value.cause, UnknownPrice)
    assert dear.requests == []
    assert (await run(choose, "go")).output == "x"
