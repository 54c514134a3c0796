"""Forks: a new run that shares a recorded one's past up to a step, and goes its own way from there."""

from __future__ import annotations

from typing import Any

import pytest

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Context,
    DefinitionError,
    Graph,
    JournalError,
    ModelRequest,
    ReplayMismatch,
    collect,
    fork,
    replay,
    resume,
    run,
)
from agentrt import events as ev
from agentrt.people import answer
from agentrt.recorded import Recorded
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel
from tests.journals import journal_of, kinds
from tests.test_continuation import RUN, World, check_attempts, tools_done

pytestmark = pytest.mark.anyio
PLACES = [
    "main/researcher[1]",
    "main/researcher[0]/helper/chat",
    "main/writer#2",
    "main/_judge#2",
    "main/shaky/look",
    "main/racer2[2]",
    "main",
]


@pytest.mark.parametrize("at", PLACES)
async def test_a_fork_on_the_same_input_comes_to_the_same(at: str) -> None:
    """It pays for what it does itself only, and leaves its parent alone."""
    world, journal = World(), MemoryJournal()
    wanted = (await run(world.graph, 2, journal=journal, run_id=RUN)).output
    parent = await journal.events(RUN)
    undisturbed = dict(world.effects)
    world.begin(up_to(parent, at))
    result = await fork(world.graph, RUN, journal=journal, at=at, new_id="fork")
    events = await journal.events("fork")
    shared = next(i for i, e in enumerate(events) if isinstance(e, ev.RunForked))
    assert result.output == wanted
    assert await journal.events(RUN) == parent
    assert world.effects == undisturbed_less(undisturbed, events[:shared])
    charged = kinds(events[shared:], ev.UsageRecorded)
    assert result.usage.tokens == sum(e.usage.tokens for e in charged)
    assert Recorded(events).total == result.usage
    assert (await journal.run("fork")).parent == RUN
    check_attempts(events)
    assert (await replay(world.graph, "fork", journal=journal)).output == wanted


def up_to(events: list[Any], path: str) -> list[Any]:
    """Return the events before a step started."""
    return events[: next(i for i, e in enumerate(events) if isinstance(e, ev.StepStarted) and e.path == path)]


def undisturbed_less(effects: dict[str, int], before: list[Any]) -> dict[str, int]:
    done = tools_done(before)
    return {path: n - done[path] for path, n in effects.items() if n > done[path]}


async def test_a_fork_that_is_cut_off_goes_on() -> None:
    """From every place of its record behind the shared past, without paying for that."""
    world, journal = World(), MemoryJournal()
    await run(world.graph, 1, journal=journal, run_id=RUN)
    before = await journal.events(RUN)
    world.begin(up_to(before, "main/writer#2"))
    result = await fork(world.graph, RUN, journal=journal, at="main/writer#2", new_id="fork")
    events = await journal.events("fork")
    shared = next(i for i, e in enumerate(events) if isinstance(e, ev.RunForked))
    for at in range(shared + 1, len(events)):
        cut = await journal_of("fork", events[:at])
        world.begin(events[:at])
        again = await resume(world.graph, "fork", journal=cut)
        assert again.output == result.output
        assert again.usage.tokens - again.usage.uncertain >= result.usage.tokens
        assert again.usage.steps == result.usage.steps


class Echo:
    """Hold a graph of a branch for each word, and then a cycle, all of agents that tell which model they were."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.graph = Graph("g", input=str, output=str)
        each = Agent("each", input=str, model=self.model("one"))
        whole = Agent("whole", input=str, model=self.model("one"))
        self.graph.edge(START, self._split)
        self.graph.edge(self._split, each, each=True)
        self.graph.edge(each, self._join, join=collect)
        self.graph.edge(self._join, whole)
        self.graph.edge(whole, END, when=lambda text: text.count("(") >= 4)
        self.graph.edge(whole, whole, times=5)

    def model(self, name: str) -> FunctionModel:
        def reply(request: ModelRequest) -> str:
            self.asked.append(request.messages[-1].text)
            return f"{name}({request.messages[-1].text})"

        return FunctionModel(reply)

    async def _split(self, text: str) -> list[str]:
        return text.split()

    async def _join(self, parts: list[str]) -> str:
        return "+".join(parts)


async def begun() -> tuple[Echo, MemoryJournal]:
    echo, journal = Echo(), MemoryJournal()
    result = await run(echo.graph, "a b", journal=journal, run_id=RUN, budget=Budget(model_calls=9))
    assert result.output == "one(one(one(a)+one(b)))"
    echo.asked.clear()
    return echo, journal


async def test_a_step_in_a_branch_gets_another_input() -> None:
    """Its siblings that had ended are kept."""
    echo, journal = await begun()
    result = await fork(echo.graph, RUN, journal=journal, at="g/each[1]", input="c")
    assert result.output == "one(one(one(a)+one(c)))"
    assert "c" in echo.asked
    assert "b" not in echo.asked


async def test_a_step_in_a_cycle_gets_another_input() -> None:
    """The rounds before are kept."""
    echo, journal = await begun()
    result = await fork(echo.graph, RUN, journal=journal, at="g/whole#2", input="(((")
    assert result.output == "one(((()"
    assert echo.asked == ["((("]
    assert result.usage.model_calls == 1


async def test_another_model_answers_from_there_on() -> None:
    """What the old one had said stays said."""
    echo, journal = await begun()
    two = echo.model("two")
    result = await fork(echo.graph, RUN, journal=journal, at="g/whole#2", model=two)
    assert result.output == "two(one(one(a)+one(b)))"


async def test_a_fork_has_a_budget_of_its_own() -> None:
    """The past does not count against it; without one it has that of its parent."""
    echo, journal = await begun()
    assert (await fork(echo.graph, RUN, journal=journal, at="g/whole", budget=Budget(model_calls=2))).output
    with pytest.raises(BudgetExceeded, match="model_calls"):
        await fork(echo.graph, RUN, journal=journal, at="g/whole", budget=Budget(model_calls=1))
    limits = [e.limits for e in await journal.events((await journal.runs(1))[0].run_id) if isinstance(e, ev.RunResumed)]
    assert limits[0]["model_calls"] == 1


async def test_a_fork_needs_a_step_that_was() -> None:
    """A slip is told with what is near, and no run is left behind."""
    echo, journal = await begun()
    with pytest.raises(DefinitionError, match=r"no step 'g/whole#3'; did you mean g/whole"):
        await fork(echo.graph, RUN, journal=journal, at="g/whole#3")
    with pytest.raises(JournalError, match="no run"):
        await fork(echo.graph, "other", journal=journal, at="g/whole")
    assert len(await journal.runs()) == 1


async def double(n: int) -> int:
    return 2 * n


async def by_code(n: int, ctx: Context) -> int:
    return await ctx.run(double, n)


async def asking(n: int, ctx: Context) -> int:
    return n + await ctx.ask("How many more?", int)


def counting(*nodes: Any) -> Graph[int, int]:
    graph = Graph("g", input=int, output=int)
    graph.chain(START, *nodes, END)
    return graph


@pytest.mark.parametrize("at", ["g", "g/double"])
async def test_an_input_that_does_not_fit_begins_no_run(at: str) -> None:
    """It is said to be the one that was given."""
    journal = MemoryJournal()
    await run(counting(double), 1, journal=journal, run_id=RUN)
    with pytest.raises(DefinitionError, match=rf"the input given to the fork does not fit {at}: .*valid integer"):
        await fork(counting(double), RUN, journal=journal, at=at, input="many")
    assert [r.run_id for r in await journal.runs(9)] == [RUN]


async def test_a_question_takes_no_input() -> None:
    """It is answered anew instead."""
    journal = MemoryJournal()
    await run(counting(asking), 1, journal=journal, run_id=RUN)
    with pytest.raises(DefinitionError, match="g/asking/ask asks people, and takes no input"):
        await fork(counting(asking), RUN, journal=journal, at="g/asking/ask", input="How many less?")
    assert [r.run_id for r in await journal.runs(9)] == [RUN]


async def test_what_code_calls_is_told_of_its_input_as_it_runs() -> None:
    """The fork does not wait, even where the run waited for people before that step."""
    journal = MemoryJournal()
    graph = counting(asking, by_code)
    await run(graph, 1, journal=journal, run_id=RUN)
    await answer(journal, RUN, 1)
    assert (await resume(graph, RUN, journal=journal)).output == 4
    with pytest.raises(ReplayMismatch, match="the input given to the fork does not fit g/by_code/double, which takes"):
        await fork(graph, RUN, journal=journal, at="g/by_code/double", input="many", new_id="fork")
    assert (await journal.run("fork")).status == "failed"
    assert (await fork(graph, RUN, journal=journal, at="g/by_code/double", input=5)).output == 10
