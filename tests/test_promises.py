"""What somebody who tried to break the runtime found, kept from coming back."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from agentrt import (
    END,
    START,
    Agent,
    AgentrtError,
    Budget,
    BudgetExceeded,
    Context,
    DefinitionError,
    Graph,
    GraphError,
    MaxTurns,
    ModelResponse,
    StepFailed,
    Usage,
    collect,
    run,
    stream,
    tool,
)
from agentrt.messages import AssistantMessage
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, ScriptedModel, call

pytestmark = pytest.mark.anyio


async def echo(text: str) -> str:
    return text


async def test_a_mistyped_option_does_not_lose_the_budget() -> None:
    """An option that no run takes is refused before anything runs."""
    with pytest.raises(TypeError, match="unknown option bugdet"):
        await run(echo, "x", bugdet=Budget(tokens=0))  # type: ignore[call-overload]


async def test_a_step_that_cancels_itself_is_no_success() -> None:
    """Cancelling one's own task from inside ends the run with an error, not with no output."""

    async def items(x: int) -> list[int]:
        return [1, 2, 3]

    async def cancels_itself(x: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return x

    async def waits(x: int) -> int:
        await anyio.sleep_forever()
        return x

    async def branch(x: int, ctx: Context) -> int:
        return await ctx.run(cancels_itself if x == 2 else waits, x)

    graph = Graph("graph", input=int)
    graph.edge(START, items)
    graph.edge(items, branch, each=True)
    graph.edge(branch, END, join=collect)
    with pytest.raises((AgentrtError, asyncio.CancelledError)):
        await run(graph, 1)


async def test_no_time_at_all_is_a_denial() -> None:
    """Under `seconds=0` nothing is asked of a model."""
    model = FunctionModel(lambda request: "late")
    with pytest.raises(BudgetExceeded, match="time"):
        await run(Agent("agent", model=model), "?", budget=Budget(seconds=0))
    assert model.requests == []


async def test_edges_cannot_await() -> None:
    """A coroutine is always true, so an async predicate or reducer is refused where it is declared."""

    async def predicate(text: str) -> bool:
        return False

    async def reduce(texts: list[str]) -> str:
        return ""

    graph = Graph("graph")
    with pytest.raises(DefinitionError, match="cannot await"):
        graph.edge(echo, END, when=predicate)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="cannot await"):
        graph.edge(echo, END, join=reduce)
    with pytest.raises(DefinitionError, match="pass a function"):
        graph.edge(echo, END, when=True)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="whole number"):
        graph.edge(echo, END, times="3")  # type: ignore[call-overload]


def test_a_graphs_own_types_are_checked() -> None:
    """What runs in and out must fit the first and the last node."""
    graph = Graph("graph", input=int, output=int)
    graph.chain(START, echo, END)
    with pytest.raises(GraphError) as error:
        graph.validate()
    assert error.value.problems == (
        "START -> echo: gives int, but echo takes str",
        "echo -> END: gives str, but END takes int",
    )


async def test_a_tool_may_return_anything() -> None:
    """What is no text reaches the model as text, and never ends the agent."""

    @tool
    def read() -> bytes:
        """Read a file."""
        return b"\xff\x00"

    @tool
    def say() -> str:
        """Say something."""
        return "\ud800"

    model = ScriptedModel([[call("read"), call("say")], "done"])
    assert (await run(Agent("agent", model=model, tools=[read, say]), "?")).output == "done"
    assert [m.text for m in model.requests[-1].messages[-2:]] == ['"_wA="', "?"]


async def test_an_overrun_is_named_as_what_it_was() -> None:
    """After a bill above its reservation the denial names the dimension that was overrun."""
    bill = Usage(input_tokens=5, output_tokens=1_000_000)
    model = FunctionModel(lambda r: ModelResponse(message=AssistantMessage("x"), usage=bill))
    agent = Agent("agent", model=model)

    async def many(n: int, ctx: Context) -> list[str]:
        return await ctx.map(agent, ["?"] * n, limit=1)

    with pytest.raises(BudgetExceeded) as error:
        await run(many, 3, budget=Budget(tokens=3000))
    assert (error.value.dimension, len(model.requests)) == ("tokens", 1)


async def test_no_bill_gives_anything_back() -> None:
    """Negative usage does not widen a budget."""
    bill = Usage(input_tokens=-5, output_tokens=-1000)
    model = FunctionModel(lambda r: ModelResponse(message=AssistantMessage("x"), usage=bill))
    assert (await run(Agent("agent", model=model), "?", budget=Budget(tokens=9000))).usage.tokens == 0


async def test_max_turns_says_what_was_wrong() -> None:
    """The last correction is part of the error."""
    agent = Agent("agent", model=FunctionModel(lambda r: '["a", 1]'), output=list[str], max_turns=2)
    with pytest.raises(StepFailed, match=r"(?s)no answer after 2 turns.*answer: Input should be an object") as error:
        await run(agent, "?")
    assert isinstance(error.value.cause, MaxTurns)


async def test_a_value_without_its_wrapping_is_an_answer() -> None:
    """A model that is not held to the schema writes the list itself."""
    agent = Agent("agent", model=FunctionModel(lambda r: '["a"]'), output=list[str], max_turns=1)
    assert (await run(agent, "?")).output == ["a"]


async def test_the_input_of_a_run_is_checked() -> None:
    """As far as plain classes tell, before anything runs."""
    with pytest.raises(DefinitionError, match="takes str, and was given int"):
        await run(Agent("a", input=str, model=FunctionModel(lambda r: "hi")), 3)  # type: ignore[call-overload]


async def test_a_stream_does_not_swallow_a_failure() -> None:
    """Who never asks for the result is told when the block is left."""

    async def boom(x: int) -> int:
        raise ValueError(str(x))

    async def read() -> None:
        async with stream(boom, 1) as events:
            async for _ in events:
                pass

    with pytest.raises(StepFailed, match="ValueError"):
        await read()


async def test_resuming_needs_a_higher_limit() -> None:
    """To stop at the same place again is no going on."""
    result = await run(echo, "x", budget=Budget(steps=0, on_exhausted="partial"))
    with pytest.raises(DefinitionError, match="ran out of steps at 0"):
        await result.resume(budget=Budget(tokens=5))


async def test_a_fenced_answer_is_read() -> None:
    """Chat models like to put JSON into a Markdown fence."""
    agent = Agent("agent", model=ScriptedModel(['```json\n{"result": ["a"]}\n```']), output=list[str])
    assert (await run(agent, "?")).output == ["a"]


@pytest.mark.parametrize("limit", ["5", True])
def test_a_limit_is_a_number(limit: object) -> None:
    """Anything else is refused, and said so."""
    with pytest.raises(DefinitionError, match="a limit is a number"):
        Budget(tokens=limit)  # type: ignore[arg-type]


async def test_an_unreadable_event_names_its_run() -> None:
    """A value that was written but cannot be read back is told with the run it is in."""

    async def emits(x: int, ctx: Context) -> None:
        ctx.emit(10**5000)

    journal = MemoryJournal()
    result = await run(emits, 1, journal=journal)
    with pytest.raises(AgentrtError, match=result.run_id):
        await journal.events(result.run_id)
