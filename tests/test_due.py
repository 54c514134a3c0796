"""Due runs: which of those that wait for people may go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agentrt import END, START, Context, Graph, collect, first, resume, run
from agentrt import events as ev
from agentrt.people import DueRuns, Wait, answer, due, inbox
from agentrt.stores.memory import MemoryJournal
from agentrt.usage import Usage

pytestmark = pytest.mark.anyio

STARTED = ev.RunStarted(run_id="r", at=1.0, name="g", input=1, limits={})
RESUMED = ev.RunResumed(run_id="r", at=3.0, name="g", limits={})
FINISHED = ev.RunFinished(run_id="r", at=2.0, output=1, usage=Usage(), stop_reason="done")


def asked(path: str, until: float | None = None) -> ev.QuestionAsked:
    return ev.QuestionAsked(path=path, at=1.0, kind="ask", prompt="?", schema={}, about={}, until=until)


def answered(path: str) -> ev.QuestionAnswered:
    return ev.QuestionAnswered(path=path, at=2.0, verdict="answer", by="me")


def waits(*paths: str) -> ev.RunParked:
    return ev.RunParked(run_id="r", at=2.0, usage=Usage(), questions=paths)


A, B = asked("g/a"), asked("g/b")


@pytest.mark.parametrize(
    ("events", "is_due"),
    [
        ([STARTED, A, waits("g/a")], False),
        ([STARTED, A, waits("g/a"), answered("g/a")], True),
        ([STARTED, A, answered("g/a"), waits("g/a")], True),
        ([STARTED, A, answered("g/a")], False),
        ([STARTED, A, B, waits("g/a", "g/b"), answered("g/b")], True),
        ([STARTED, A, B, waits("g/a", "g/b"), answered("g/a"), RESUMED, waits("g/b")], False),
        ([STARTED, A, B, waits("g/a", "g/b"), answered("g/a"), RESUMED, waits("g/b"), answered("g/b")], True),
        ([STARTED, A, waits("g/a"), answered("g/a"), RESUMED], False),
        ([STARTED, A, waits("g/a"), answered("g/a"), RESUMED, A, waits("g/a")], False),
        ([STARTED, A, answered("g/a"), FINISHED], False),
        ([STARTED, asked("g/a", 9.0), waits("g/a")], False),
        ([STARTED, asked("g/a", 7.0), waits("g/a")], True),
        ([STARTED, asked("g/a", 7.0), B, waits("g/a", "g/b"), RESUMED, waits("g/b")], False),
    ],
)
def test_a_run_is_due_once_something_it_parked_on_is_over(events: Sequence[ev.Event], is_due: bool) -> None:
    """Answered, or out of time; told from the record alone, in whatever pieces it is read."""
    assert Wait(events).is_due(8.0) is is_due
    wait = Wait()
    for event in events:
        wait.add([event])
    assert (wait.is_due(8.0), wait.length) == (is_due, len(events))


async def ask(name: str, ctx: Context) -> str:
    return f"{name}={await ctx.ask(f'What is {name}?', timeout=60, default='?')}"


class Reads(MemoryJournal):
    """Count how many events are read."""

    read = 0

    async def events(self, run_id: str, after: int = 0) -> list[ev.Event]:
        found = await super().events(run_id, after)
        self.read += len(found)
        return found


async def test_runs_of_a_store_become_due_one_by_one() -> None:
    """The one that began first is first; nothing is read twice, nor where nothing happens."""
    journal = Reads()
    for run_id in "abc":
        await run(ask, run_id, journal=journal, run_id=run_id)
    runs = DueRuns()
    began = (await journal.run("a")).started
    assert (await runs.find(journal, began), await due(journal, now=began)) == ([], [])
    journal.read = 0
    await answer(journal, "c", "x")
    await answer(journal, "b", "x")
    for _ in range(2):
        assert [r.run_id for r in await runs.find(journal, began)] == ["b", "c"]
    assert journal.read == 2
    assert await due(journal) == ["b", "c"]
    await resume(ask, "c", journal=journal)
    assert [r.run_id for r in await runs.find(journal, began)] == ["b"]
    assert await due(journal, now=began + 1000) == ["a", "b"]


async def items(text: str) -> list[str]:
    return ["a", "b", "c"]


@pytest.mark.parametrize("join", [collect, first(1)])
async def test_going_on_with_due_runs_comes_to_an_end(join: Any) -> None:
    """A run that has gone on is not due again before something else is answered."""
    graph = Graph[str, Any]("g")
    graph.edge(START, items)
    graph.edge(items, ask, each=True)
    graph.edge(ask, last := asking(), join=join)
    graph.edge(last, END)
    journal = MemoryJournal()
    await run(graph, "go", journal=journal, run_id="r")
    parts = 0
    while questions := await inbox(journal):
        assert await due(journal) == []
        await answer(journal, "r", "x", questions[0].asked.path)
        for run_id in await due(journal):
            await resume(graph, run_id, journal=journal)
            parts += 1
    assert ((await journal.run("r")).status, parts) == ("done", 4 if join is collect else 2)


def asking() -> Any:
    async def last(found: Any, ctx: Context) -> Any:
        return found, await ctx.ask("Well?")

    return last
