"""Replay: a recorded run gone through again, offline; and what of a changed program a record cannot answer for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from agentrt import (
    END,
    START,
    Agent,
    Context,
    FunctionNode,
    Graph,
    ModelRequest,
    ReplayMismatch,
    StepFailed,
    collect,
    replay,
    resume,
    run,
    tool,
)
from agentrt import events as ev
from agentrt.continuation import replay_events
from agentrt.messages import ToolMessage
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, call
from tests.journals import journal_of
from tests.test_continuation import RUN, World, check_attempts

pytestmark = pytest.mark.anyio


async def test_a_replay_does_everything_again_but_ask_and_use() -> None:
    """The same output of every step, byte for byte; no model is asked, no tool used, and nothing recorded."""
    world, journal = World(), MemoryJournal()
    result = await run(world.graph, 2, journal=journal, run_id=RUN)
    before = await journal.events(RUN)
    asked = world.asked
    world.begin()
    again = await replay(world.graph, RUN, journal=journal)
    assert written(again.output) == written(result.output)
    assert (world.effects.total(), world.asked, again.usage.tokens) == (0, asked, 0)
    assert world.tries.total() > 0
    assert await journal.events(RUN) == before


def written(value: object) -> bytes:
    return ev.encode(ev.Emitted(path="", at=0, value=value))


class Program:
    """Hold a program of an agent between two functions, each part of which may be changed."""

    def __init__(
        self,
        *,
        split: Callable[[str], list[str]] = str.split,
        instructions: str = "Answer.",
        finish: Callable[[list[str]], str] = " ".join,
        checks: Callable[[list[str]], list[str]] = lambda found: found[:1],
    ) -> None:
        self.used: list[str] = []
        self.asked: list[str] = []

        async def splits(text: str) -> list[str]:
            return split(text)

        async def finishes(found: list[str], ctx: Context) -> str:
            for word in checks(found):
                await ctx.run(look, word)
            return finish(found)

        @tool(effect="idempotent")
        async def look(word: str) -> str:
            """Look a word up."""
            self.used.append(word)
            return f"{word}!"

        def say(request: ModelRequest) -> Any:
            last = request.messages[-1]
            self.asked.append(last.text)
            return last.text if isinstance(last, ToolMessage) else call("look", word=last.text)

        agent = Agent("agent", model=FunctionModel(say), tools=[look], instructions=instructions)
        self.graph = Graph("g", input=str, output=str)
        self.graph.edge(START, splits)
        self.graph.edge(splits, agent, each=True)
        self.graph.edge(agent, finishes, join=collect)
        self.graph.edge(finishes, END)


async def recorded(program: Program) -> Sequence[ev.Event]:
    journal = MemoryJournal()
    await run(program.graph, "a b", journal=journal, run_id=RUN)
    return await journal.events(RUN)


def until(events: Sequence[ev.Event], kind: type[Any], path: str) -> Sequence[ev.Event]:
    """Return the events up to and with the first of a kind at a path."""
    return events[: 1 + next(i for i, e in enumerate(events) if isinstance(e, kind) and e.path == path)]


CHANGES: dict[str, tuple[dict[str, Any], str, Sequence[str]]] = {
    "a function": ({"split": lambda text: ["a", "c"]}, "g/splits", ["['a', 'b']", "['a', 'c']"]),
    "the last function": ({"finish": "-".join}, "g/finishes", ["a! b!", "a!-b!"]),
    "a prompt": ({"instructions": "Lie."}, "g/agent[0]/chat", ["Answer.", "Lie."]),
    "an argument": ({"checks": lambda found: found[1:]}, "g/finishes/look", ["a!", "b!"]),
    "a call less": ({"checks": lambda found: []}, "g/finishes", ["g/finishes/look"]),
}
"""What is changed of a program, where a replay stops, and what it shows of what was recorded and is now."""


@pytest.mark.parametrize(("changed", "path", "shown"), CHANGES.values(), ids=CHANGES)
async def test_a_changed_program_is_found_out(changed: Any, path: str, shown: Sequence[str]) -> None:
    """With the step, and what was recorded and is now; and nothing is asked or used."""
    events = await recorded(Program())
    program = Program(**changed)
    with pytest.raises(ReplayMismatch) as error:
        await replay_events(program.graph, events)
    assert error.value.path == path
    assert all(text in str(error.value) for text in shown), str(error.value)
    assert (program.used, program.asked) == ([], [])


async def test_a_call_more_is_found_out() -> None:
    """A tool that is not on record is not used."""
    events = await recorded(Program())
    program = Program(checks=lambda found: found)
    with pytest.raises(ReplayMismatch) as error:
        await replay_events(program.graph, events)
    assert error.value.path == "g/finishes/look#2"
    assert (program.used, program.asked) == ([], [])


async def test_a_request_more_is_found_out() -> None:
    """A model that is not on record is not asked."""
    events = await recorded(Program())
    program = Program(split=lambda text: ["a", "b", "c"])
    kept = [e for e in events if getattr(e, "path", "") != "g/splits"]
    with pytest.raises(ReplayMismatch) as error:
        await replay_events(program.graph, kept)
    assert error.value.path == "g/agent[2]/chat"
    assert (program.used, program.asked) == ([], [])


async def test_a_run_does_not_go_on_as_another() -> None:
    """What has begun is asked the same, or else a mismatch ends this attempt, and the record can still go on."""
    events = await recorded(Program())
    journal = await journal_of(RUN, until(events, ev.StepFinished, "g/agent[0]/look"))
    program = Program(instructions="Lie.")
    with pytest.raises(ReplayMismatch) as error:
        await resume(program.graph, RUN, journal=journal)
    assert error.value.path == "g/agent[0]/chat"
    program = Program()
    assert (await resume(program.graph, RUN, journal=journal)).output == "a! b!"
    assert "a" not in program.used


async def test_changed_steps_are_run_anew_where_that_is_asked_for() -> None:
    """And what is below them; the rest is kept, and tools that had been used are not used again."""
    events = await recorded(Program())
    journal = await journal_of(RUN, until(events, ev.StepFinished, "g/agent[0]/look"))
    program = Program(instructions="Lie.")
    assert (await resume(program.graph, RUN, journal=journal, rerun_changed=True)).output == "a! b!"
    assert sorted(program.asked) == ["a", "a!", "b", "b!"]
    assert sorted(program.used) == ["a!", "b"]
    check_attempts(await journal.events(RUN))


async def test_changed_steps_take_what_is_below_with_them() -> None:
    """A step that is asked something else does not take the old answers of what it calls."""
    events = await recorded(Program())
    journal = await journal_of(RUN, until(events, ev.StepFinished, "g/finishes/look"))
    program = Program(checks=lambda found: found[1:])
    assert (await resume(program.graph, RUN, journal=journal, rerun_changed=True)).output == "a! b!"
    assert (program.used, program.asked) == (["b!"], [])


async def test_an_output_of_another_type_is_a_mismatch() -> None:
    """What is recorded is read as the type that is declared now."""

    async def number(x: int) -> int:
        return x

    async def again(x: object) -> int:
        raise ConnectionError("not now")

    def graph(returns: type) -> Graph[Any, Any]:
        number.__annotations__["return"] = returns
        built = Graph("g")
        built.chain(START, FunctionNode(number), again, END)
        return built

    journal = MemoryJournal()
    with pytest.raises(StepFailed):
        await run(graph(int), 1, journal=journal, run_id=RUN)
    with pytest.raises(ReplayMismatch, match="g/number cannot be read as"):
        await resume(graph(list), RUN, journal=journal)


async def test_another_draw_than_the_recorded_one_is_told() -> None:
    """And ends the run, whatever the code does about it."""

    def program(name: str) -> Any:
        async def code(x: int, ctx: Context) -> int:
            with suppress(ReplayMismatch):
                ctx.draw(name, lambda: 7)
            return await ctx.ask("How many?", int)

        return code

    journal = MemoryJournal()
    await run(program("first"), 1, journal=journal, run_id=RUN)
    with pytest.raises(ReplayMismatch, match=r"(?s)'first'.*'second'"):
        await resume(program("second"), RUN, journal=journal)
    assert (await resume(program("first"), RUN, journal=journal)).stop_reason == "waiting"
