"""Toolboxes: which tools are offered, and a model that goes round in circles."""

from __future__ import annotations

from typing import Any

import pytest

from agentrt import Agent, DefinitionError, LoopDetected, StepFailed, run, tool
from agentrt.messages import ToolCall
from agentrt.testing import FunctionModel, ScriptedModel, call
from agentrt.toolbox import Repeats, Toolbox

pytestmark = pytest.mark.anyio


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_a_loop_of_equal_calls_is_an_error_of_the_agent() -> None:
    """The fifth is not run; the error names tool, arguments and times."""
    model = FunctionModel(lambda request: call("add", b=2, a=1))
    with pytest.raises(StepFailed) as error:
        await run(Agent("a", model=model, tools=[add]), "go")
    cause = error.value.cause
    assert isinstance(cause, LoopDetected)
    assert (error.value.path, cause.tool, cause.arguments, cause.times) == ("a", "add", '{"a":1,"b":2}', 5)
    assert len(model.requests) == 5
    assert 'asked 5 times for add with the same arguments {"a":1,"b":2}' in str(cause)


async def test_the_number_of_equal_calls_can_be_set() -> None:
    """Two is the least; None lets all."""
    again = FunctionModel(lambda request: call("add", a=1, b=2))
    with pytest.raises(StepFailed, match="asked 2 times"):
        await run(Agent("a", model=again, tools=[add], max_repeats=2), "go")
    with pytest.raises(StepFailed, match="no answer after 8 turns"):
        await run(Agent("a", model=again, tools=[add], max_repeats=None, max_turns=8), "go")
    with pytest.raises(DefinitionError, match="max_repeats=1"):
        Agent("a", max_repeats=1)


async def test_equal_calls_of_two_activations_are_no_loop() -> None:
    """Each counts its own."""
    agent = Agent("a", model=ScriptedModel([call("add", a=1, b=1), "done"] * 2), tools=[add], max_repeats=2)
    assert [(await run(agent, "go")).output for _ in range(2)] == ["done", "done"]


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}', True),
        ("{", "{", True),
        ("[" * 5000, "[" * 5000, True),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', False),
        ("", "{}", False),
    ],
)
def test_arguments_are_compared_as_json(first: str, second: str, equal: bool) -> None:
    """Whatever the order of keys and the spaces; what is no JSON as it is."""
    repeats = Repeats(2)
    repeats.check([ToolCall("1", "t", first)])
    try:
        repeats.check([ToolCall("2", "t", second)])
    except LoopDetected:
        assert equal
    else:
        assert not equal


class Counting:
    """Be a context in which a tool has so many calls left."""

    def __init__(self, left: int | None) -> None:
        self.left = left

    def calls_left(self, node: Any) -> int | None:
        return self.left

    is_guarded = False


@pytest.mark.parametrize(("left", "offered"), [(None, ["add"]), (2, ["add"]), (0, [])])
def test_a_tool_that_is_used_up_is_not_offered(left: int | None, offered: list[str]) -> None:
    """The model should not try."""
    specs = Toolbox("a", [add]).offered(Counting(left))  # type: ignore[arg-type]
    assert [s.name for s in specs] == offered
