"""Asking another model: one call of the run, paid and recorded like any other."""

from __future__ import annotations

import pytest

from agentrt import Agent, Budget, BudgetExceeded, ModelRequest, ModelSettings, run
from agentrt import events as ev
from agentrt.messages import SystemMessage, ToolMessage, UserMessage
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionModel, ScriptedModel, call
from agentrt.tool import tool_spec
from agentrt_tools import ask_model

pytestmark = pytest.mark.anyio


async def test_an_agent_asks_another_model() -> None:
    """Which sees the question alone, and whose call counts in the run's usage."""
    seen: list[ModelRequest] = []

    def wise(request: ModelRequest) -> str:
        seen.append(request)
        return "42"

    sage = ask_model(FunctionModel(wise), name="sage", settings=ModelSettings(max_tokens=9))
    with ScriptedModel([call("sage", input="What is it?"), "It is 42."]) as model:
        agent = Agent("asker", model=model, instructions="Secret.", tools=[sage])
        journal = MemoryJournal()
        result = await run(agent, "go", journal=journal, run_id="r")
    assert (result.output, result.usage.model_calls) == ("It is 42.", 3)
    (request,) = seen
    assert request.messages == (
        SystemMessage("Answer the question. Say so if you do not know."),
        UserMessage("What is it?"),
    )
    assert (request.settings.max_tokens, request.tools) == (9, ())
    started = [e.path for e in await journal.events("r") if isinstance(e, ev.StepStarted)]
    assert "asker/sage/chat" in started


async def test_it_may_be_capped_by_question_and_by_number() -> None:
    """A question that does not fit is told to the agent; the run's own limit ends it."""
    sage = ask_model(FunctionModel(lambda r: "42"), name="sage", budget=Budget(tokens=5))
    with ScriptedModel([call("sage", input="What is it?"), "Nobody knows."]) as model:
        result = await run(Agent("asker", model=model, tools=[sage]), "go")
    assert [m.text for m in model.requests[1].messages if isinstance(m, ToolMessage)] == [
        "this tool may use no more tokens; go on without it"
    ]
    assert result.output == "Nobody knows."
    free = ask_model(FunctionModel(lambda r: "42"), name="sage")
    asker = Agent("asker", model=FunctionModel(lambda r: call("sage", input="?")), tools=[free])
    with pytest.raises(BudgetExceeded):
        await run(asker, "go", budget=Budget(model_calls=3))


def test_a_model_is_told_whom_it_asks() -> None:
    """By name, or as the developer puts it."""
    assert "Ask the model openai/gpt-5 and" in tool_spec(ask_model("openai/gpt-5")).description
    assert "Ask the model test/function" in tool_spec(ask_model(FunctionModel(lambda r: ""))).description
    spec = tool_spec(ask_model("openai/gpt-5", name="sage", description="Knows it all."))
    assert (spec.name, spec.description, [*spec.parameters["properties"]]) == ("sage", "Knows it all.", ["input"])


async def test_an_answer_is_bounded_in_length_and_time_unless_told_otherwise() -> None:
    sage = ask_model(FunctionModel(lambda r: "42"), name="sage")
    assert (sage.settings.max_tokens, sage.timeout) == (2_000, 120.0)
    assert ask_model(FunctionModel(lambda r: "42"), timeout=None).timeout is None
