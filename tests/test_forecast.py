"""The bounds of agents and model calls: windows, prices, turns, tools."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrt import (
    END,
    START,
    Agent,
    Bounds,
    Budget,
    Cached,
    Context,
    DefinitionError,
    Fallback,
    Graph,
    ModelRequest,
    ModelResponse,
    ModelSettings,
    Price,
    Priced,
    Retried,
    Retriever,
    Retry,
    Wrapper,
    ask,
    collect,
    tool,
)
from agentrt.forecast import foresee, words_in, worst_call
from agentrt.stores import FullTextIndex
from agentrt.testing import FunctionModel, count

PRICE = Price.per_million(input=1, output=5, cached=0.1)


@tool
async def look(word: str) -> str:
    """Look it up."""
    return word


def model(window: int = 1000, price: Price | None = PRICE) -> FunctionModel:
    return FunctionModel(lambda request: "x", window=window, price=price)


def bounds(budget: Budget | None = None, *, input: object = "two words", **options: Any) -> Bounds:
    return foresee(Agent("a", **{"model": model(), **options}), input, budget)


def test_an_agent_takes_one_to_all_its_turns() -> None:
    """A step and a model call a turn, and its own step."""
    found = bounds(max_turns=3)
    assert (found.model_calls.least, found.model_calls.greatest) == (1, 3)
    assert (found.steps.least, found.steps.greatest) == (2, 4)
    assert (found.tool_calls.greatest, found.dominant) == (0, "a")


def test_the_least_counts_the_words_that_are_known() -> None:
    """Instructions and input, at the price of cached tokens; a function's instructions are not known."""
    found = bounds(instructions="Be brief.")
    assert (found.tokens.least, found.input_tokens.least, found.output_tokens.least) == (4, 4, 0)
    assert found.usd.least == pytest.approx(4 * 0.1e-6)
    assert bounds(instructions=lambda value: "").tokens.least == 2
    assert bounds(input="").tokens.least == 1


@pytest.mark.parametrize(("most", "tokens", "usd"), [(100, 1000, 900e-6 + 500e-6), (4096, 1000, 5e-3)])
def test_the_greatest_is_a_full_window(most: int, tokens: int, usd: float) -> None:
    """Prompt and answer share it; the dear answer is as long as `max_tokens` and the window let it be."""
    found = bounds(max_turns=1, settings=ModelSettings(max_tokens=most))
    assert (found.tokens.greatest, found.input_tokens.greatest) == (tokens, 999)
    assert found.usd.greatest == pytest.approx(usd)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 9), st.integers(0, 9), st.data())
def test_no_call_is_above_the_worst(window: int, most: int, read: int, write: int, data: st.DataObject) -> None:
    """Whatever prompt fits, and whatever answer fits behind it."""
    fake, settings = model(window, Price(read, write)), ModelSettings(max_tokens=most)
    worst = worst_call(fake, settings)
    prompt = data.draw(st.integers(0, window - 1))
    answer = data.draw(st.integers(0, min(most, window - prompt)))
    assert prompt <= worst.input_tokens
    assert answer <= worst.output_tokens
    assert prompt + answer <= worst.tokens <= window
    assert prompt * read + answer * write <= worst.usd <= worst.tokens * worst.rate


def test_unknown_prices_and_windows_are_named() -> None:
    """Only a limit bounds them; an unknown model leaves both unknown."""
    unpriced = bounds(model=model(price=None))
    assert (unpriced.usd.greatest, unpriced.tokens.greatest) == (math.inf, 10_000)
    assert "asks test/function, whose price is not known" in unpriced.usd.unbounded["a"]
    wide = bounds(model=model(2**40))
    assert (wide.input_tokens.greatest, wide.output_tokens.greatest) == (math.inf, 40_960)
    lost = bounds(model="nowhere")
    assert (lost.tokens.greatest, lost.usd.greatest, lost.model_calls.greatest) == (math.inf, math.inf, 10)


def test_wrappers_ask_the_models_within() -> None:
    """Again, one after the other, or not at all; at the price that is stated."""
    retried = bounds(model=Retried(model(), Retry(attempts=3)), max_turns=2)
    assert (retried.model_calls.least, retried.model_calls.greatest, retried.steps.greatest) == (1, 6, 3)
    either = bounds(model=Fallback(model(100), model(50)), max_turns=1)
    assert (either.tokens.least, either.tokens.greatest) == (2, 150)
    cached = bounds(model=Cached(model(100)), max_turns=1)
    assert (cached.tokens.least, cached.model_calls.least, cached.tokens.greatest) == (0, 0, 100)
    priced = bounds(model=Priced(model(100, None), Price(1, 1, request=3)), max_turns=1)
    assert (priced.usd.least, priced.usd.greatest) == pytest.approx((5e-12, 103e-12))


def test_a_wrapper_that_does_not_say_how_often_is_named() -> None:
    """One of your own, until it says `attempts`."""

    class Mine(Wrapper):
        async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
            return await ask(ctx, self.model, request)

    found = bounds(model=Mine(model()), max_turns=1)
    assert (found.tokens.least, found.tokens.greatest, found.steps.greatest) == (0, math.inf, 2)
    assert "does not say how often" in found.model_calls.unbounded["a"]


def test_a_model_of_the_run_takes_every_models_place() -> None:
    """As in `run`."""
    agent = Agent("a", model="nowhere", max_turns=1)
    assert foresee(agent, "hi", model=model(50)).tokens.greatest == 50


def test_tools_without_a_limit_are_named_by_their_agent() -> None:
    """A model may ask for any number of tools at once; limits of calls, tools or steps bound that."""
    found = bounds(tools=[look])
    assert (found.tool_calls.greatest, found.tokens.greatest) == (math.inf, 10_000)
    assert dict(found.steps.unbounded) == {"a": "may call its tools any number of times: limit its tool_calls"}
    assert bounds(tools=[look], budget=Budget(tool_calls=3)).steps.greatest == 1 + 10 + 3
    assert bounds(Budget(tool_calls=2), tools=[look]).steps.greatest == 1 + 10 + 2


def test_limits_of_counts_bound_money() -> None:
    """No more calls than steps, no more tokens than calls, no more money than tokens."""
    helper = Agent("helper", model=model(), description="Help.", max_turns=2)
    assert bounds(tools=[helper]).usd.greatest == math.inf
    assert bounds(Budget(model_calls=3), tools=[helper]).tokens.greatest == 3000
    assert bounds(Budget(tokens=500), tools=[helper]).usd.greatest == pytest.approx(500 * 5e-6)


def test_the_dearest_tools_come_first() -> None:
    """Each as often as it may be called, all within the limit."""
    helper = Agent("helper", model=model(100), description="Help.", max_turns=1).limit(calls=2)
    found = bounds(Budget(tool_calls=5), model=model(10), max_turns=1, tools=[helper, look])
    assert (found.tokens.greatest, found.model_calls.greatest) == (10 + 2 * 100, 1 + 2)


def test_one_more_call_may_wrap_up() -> None:
    """A budget that lets the agent wrap up makes nothing sure but its start."""
    wrapping = Budget(steps=50, on_exhausted="wrap_up")
    for found in (bounds(budget=wrapping), bounds(wrapping)):
        assert (found.model_calls.least, found.model_calls.greatest, found.steps.least) == (0, 11, 1)


def test_functions_are_steps_unless_they_take_a_context() -> None:
    """What they call then is not known, and they are named; a retriever calls nothing."""

    async def plain(x: str) -> str:
        return x

    async def caller(x: str, ctx: Context) -> str:
        """Call others."""
        return x

    assert foresee(look, "x").steps.greatest == foresee(Retriever("r", FullTextIndex([])), "x").steps.greatest == 1
    found = foresee(Agent("a", model=model(), tools=[caller], budget=Budget(tool_calls=1)), "x")
    assert found.model_calls.dominant == "a/caller"
    assert "calls what it likes at run time" in found.tokens.unbounded["a/caller"]


def test_widths_are_numbers_or_pairs() -> None:
    """Anything else is told at once."""
    with pytest.raises(DefinitionError, match=r"widths=\{'solver': \(3, 2\)\}"):
        foresee(look, "x", widths={"solver": (3, 2)})


def test_widths_are_those_of_forks() -> None:
    """A name that no fork leads to would be assumed for nothing."""

    async def several(word: str) -> list[str]:
        return [word] * 7

    inner, outer = Graph("inner", input=list[str]), Graph("outer")
    inner.edge(START, look, each=True)
    inner.edge(look, END, join=collect)
    outer.chain(START, several, inner, END)
    assert outer.bounds("x", widths={"look": 7}).steps.greatest == 10
    with pytest.raises(DefinitionError, match=r"^widths= of looks: no fork with each= leads there; there are look$"):
        outer.bounds("x", widths={"looks": 7, "look": 2})
    with pytest.raises(DefinitionError, match="there is none"):
        foresee(look, "x", widths={"look": 2})


@given(st.text())
def test_a_word_is_a_token_at_least(text: str) -> None:
    """The fakes count as many tokens, or more."""
    assert words_in(text) <= count(text)
