"""Instructions: text, or functions of the input and of the context."""

from __future__ import annotations

import operator

import pytest

from agentrt import Agent, Budget, Context, ModelSettings, StepFailed, run, tool
from agentrt.messages import SystemMessage, UserMessage
from agentrt.testing import FunctionModel, ScriptedModel, call

pytestmark = pytest.mark.anyio


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def systems(model: FunctionModel) -> list[list[str]]:
    """Return the instructions each request began with."""
    return [[m.text for m in r.messages if isinstance(m, SystemMessage)] for r in model.requests]


async def test_instructions_of_the_context_are_written_before_every_call() -> None:
    """So that they can tell what is left."""
    model = ScriptedModel([call("add", a=1, b=1), "done"])
    agent = Agent("a", model=model, tools=[add], instructions=lambda value, ctx: f"{value}: {ctx.budget}")
    await run(agent, "go", budget=Budget(model_calls=4))
    assert systems(model) == [["go: 4 model calls left"], ["go: 3 model calls left"]]


async def test_instructions_of_the_input_are_written_once() -> None:
    """However many turns."""
    asked: list[object] = []

    async def instruct(value: object) -> str:
        asked.append(value)
        return "be brief"

    model = ScriptedModel([call("add", a=1, b=1), "done"])
    await run(Agent("a", model=model, tools=[add], instructions=instruct), "go")
    assert systems(model) == [["be brief"], ["be brief"]]
    assert asked == ["go"]


async def test_a_built_in_function_takes_the_input() -> None:
    """It does not say what it takes, or says it in its own way."""
    model = ScriptedModel(["done"])
    await run(Agent("a", model=model, instructions=operator.itemgetter("topic")), {"topic": "rain"})
    assert systems(model) == [["rain"]]


async def test_instructions_are_text() -> None:
    """What is not is told."""
    with pytest.raises(StepFailed, match="the function returned int"):
        await run(Agent("a", model=ScriptedModel([]), instructions=lambda v: 3), "go")  # type: ignore[arg-type, return-value]


async def test_an_agent_can_be_told_its_budget() -> None:
    """Each turn anew, last, and not kept; nothing where nothing is capped."""
    model = ScriptedModel([call("add", a=1, b=1), "done", "free"])
    agent = Agent("a", model=model, tools=[add], tell_budget=True, settings=ModelSettings(max_tokens=10))
    await run(agent, "go", budget=Budget(steps=9, model_calls=2))
    await run(agent, "go")
    shown = [[m for m in r.messages if isinstance(m, UserMessage)] for r in model.requests]
    assert shown == [
        [UserMessage("go"), UserMessage("(Budget: 2 model calls, 8 steps left.)")],
        [UserMessage("go"), UserMessage("(Budget: 1 model call, 6 steps left.)")],
        [UserMessage("go")],
    ]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (None, "no limit"),
        (Budget(tokens=3120, model_calls=4), "3,120 tokens, 4 model calls left"),
        (Budget(usd=1.5), "$1.50 left"),
        (Budget(usd=0.0123), "$0.0123 left"),
        (Budget(usd=0.00001234), "$0.00001234 left"),
        (Budget(usd=0, tool_calls=1), "$0.00, 1 tool call left"),
        (Budget(seconds=3600), "3,600 s left"),
        (Budget(seconds=0.75), "0.8 s left"),
    ],
)
async def test_a_budget_says_what_is_left(budget: Budget | None, said: str) -> None:
    """As one would write it."""

    async def tell(value: object, ctx: Context) -> str:
        return str(ctx.budget)

    assert (await run(tell, 0, budget=budget)).output == said
