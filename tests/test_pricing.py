"""Refusal before anything runs, where a usd limit meets an unknown price."""

from __future__ import annotations

from typing import Any

import pytest

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    Context,
    Fallback,
    Graph,
    Limited,
    ModelRequest,
    ModelResponse,
    Price,
    Priced,
    UnknownPrice,
    Wrapper,
    ask,
    collect,
    guarded,
    run,
)
from agentrt.model import Model
from agentrt.pricing import check_prices
from agentrt.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio
KNOWN = FunctionModel(lambda request: "x")
UNKNOWN = FunctionModel(lambda request: "x", name="test/dear", price=None)


def resolve(named: Model | str | None) -> Model:
    assert named is not None
    assert not isinstance(named, str)
    return named


def agent(name: str, model: Model, **options: Any) -> Agent[object, str]:
    return Agent(name, model=model, description="Do it.", **options)


def test_every_agent_is_found_and_named() -> None:
    """In graphs in graphs, as tools of tools, and where a graph wraps up."""
    inner = Graph("inner", description="Do it.")
    inner.chain(START, agent("deep", UNKNOWN), END)
    graph = Graph("outer", wrap_up=agent("last", UNKNOWN))
    graph.chain(START, agent("fine", KNOWN, tools=[agent("tool", UNKNOWN), inner]), END)
    with pytest.raises(UnknownPrice) as error:
        check_prices(graph, resolve, limited=True)
    assert all(f"{name}: test/dear" in str(error.value) for name in ("tool", "deep", "last"))
    assert "fine" not in str(error.value)


def test_an_agent_between_guardrails_is_found() -> None:
    """And one that is a guardrail."""
    node = guarded(agent("inside", UNKNOWN), before=[agent("judge", UNKNOWN)])
    with pytest.raises(UnknownPrice) as error:
        check_prices(node, resolve, limited=True)
    assert all(f"{name}: test/dear" in str(error.value) for name in ("inside", "judge"))


def test_without_a_usd_limit_nothing_is_looked_up() -> None:
    """So that no model is resolved for nothing."""
    check_prices(agent("a", "nonsense"), resolve, limited=False)  # type: ignore[arg-type]


def test_a_limit_reaches_what_is_inside_it() -> None:
    """And not what runs beside it."""
    graph = Graph("g")
    graph.chain(START, agent("free", UNKNOWN), agent("capped", KNOWN, budget=Budget(usd=1)), END)
    check_prices(graph, resolve, limited=False)
    graph = Graph("g", budget=Budget(usd=1))
    graph.chain(START, agent("a", UNKNOWN), END)
    with pytest.raises(UnknownPrice):
        check_prices(graph, resolve, limited=False)


def test_a_limit_on_an_edge_counts() -> None:
    """It caps each branch of the fork."""
    graph, branch = Graph("g"), agent("branch", UNKNOWN)
    graph.edge(START, branch, each=True, budget=Budget(usd=1))
    graph.edge(branch, END, join=collect)
    with pytest.raises(UnknownPrice, match="branch"):
        check_prices(graph, resolve, limited=False)


def test_edges_added_later_are_seen() -> None:
    """What a graph declares is remembered only as long as it stays the same."""
    graph, first = Graph("g"), agent("first", KNOWN)
    graph.edge(START, first)
    check_prices(graph, resolve, limited=True)
    graph.edge(first, agent("second", UNKNOWN))
    with pytest.raises(UnknownPrice, match="second"):
        check_prices(graph, resolve, limited=True)


def test_agents_that_call_each_other_are_looked_at_once() -> None:
    """No endless walk."""
    one = agent("one", KNOWN)
    two = agent("two", UNKNOWN, tools=[one])
    one.parts = (two,)
    with pytest.raises(UnknownPrice, match="two"):
        check_prices(one, resolve, limited=True)


async def test_wrappers_are_seen_through() -> None:
    """A model that may be asked counts, unless its user states the price."""
    fallback = Limited(Fallback(KNOWN, UNKNOWN), rpm=60)
    with pytest.raises(UnknownPrice, match="a: test/dear"):
        await run(agent("a", fallback), "go", budget=Budget(usd=1))
    result = await run(agent("a", Priced(fallback, Price(1, 1))), "go", budget=Budget(usd=1))
    assert result.usage.cost == result.usage.tokens


async def test_the_runs_own_model_is_the_one_that_counts() -> None:
    """It takes the place of all others."""
    a = agent("a", UNKNOWN)
    assert (await run(a, "go", budget=Budget(usd=1), model=KNOWN)).output == "x"
    with pytest.raises(UnknownPrice):
        await run(agent("a", KNOWN), "go", budget=Budget(usd=1), model=ScriptedModel([], price=None))


async def test_a_wrapper_that_knows_no_price_is_seen_through() -> None:
    """It asks nobody but the models within, and each of them is paid for at its own."""

    class Own(Wrapper):
        price = None

        async def ask(self, ctx: Context, request: ModelRequest) -> ModelResponse:
            return await ask(ctx, self.model, request)

    dear = FunctionModel(lambda request: "x", price=Price(1, 1))
    result = await run(agent("a", Own(dear)), "go", budget=Budget(usd=1))
    assert result.usage.cost == result.usage.tokens > 0
    with pytest.raises(UnknownPrice, match="a: test/dear"):
        await run(agent("a", Own(UNKNOWN)), "go", budget=Budget(usd=1))
