"""Due runs: which of those that wait for people may go on."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentrt import END, START, Context, Graph, collect, first, resume, run
from agentrt.errors import ReplayMismatch
from agentrt.people import answer, due, inbox
from agentrt.stores.memory import MemoryJournal

pytestmark = pytest.mark.anyio


async def ask(name: str, ctx: Context) -> str:
    return f"{name}={await ctx.ask(f'What is {name}?', timeout=60, default='?')}"


async def test_runs_of_a_store_become_due_one_by_one() -> None:
    """Once answered, or when the first of their questions is out of time; the one that began first is first."""
    journal = MemoryJournal()
    for run_id in "abc":
        await run(ask, run_id, journal=journal, run_id=run_id)
    began = (await journal.run("a")).started
    assert await due(journal, now=began) == []
    await answer(journal, "c", "x")
    await answer(journal, "b", "x")
    assert await due(journal) == ["b", "c"]
    await resume(ask, "c", journal=journal)
    assert await due(journal) == ["b"]
    assert await due(journal, now=began + 1000) == ["a", "b"]


async def both(text: str, ctx: Context) -> list[str]:
    return await ctx.map(either, [50, None, 30])


async def either(timeout: int | None, ctx: Context) -> str:
    return await ctx.ask("Well?", timeout=timeout, default="none")


async def test_the_first_question_that_is_answered_by_itself_makes_a_run_due() -> None:
    """Of those that are still waited for; one that waits for ever does not."""
    journal = MemoryJournal()
    await run(both, "go", journal=journal, run_id="r")
    for path in ("both/either[2]/ask", "both/either[0]/ask"):
        untils = [q.asked.until for q in await inbox(journal) if q.asked.until is not None]
        assert (await journal.run("r")).due == min(untils)
        assert await due(journal, now=min(untils) - 1) == []
        assert await due(journal, now=min(untils)) == ["r"]
        await answer(journal, "r", "x", path)
        await resume(both, "r", journal=journal)
    assert (await journal.run("r")).status == "waiting"
    assert await due(journal, now=1e12) == []


async def test_an_answer_that_comes_while_the_run_goes_on_makes_it_due() -> None:
    """It parks on what has been answered already."""
    journal = MemoryJournal()

    async def pair(text: str, ctx: Context) -> list[str]:
        return await ctx.map(part, ["ask", "work"])

    async def part(name: str, ctx: Context) -> str:
        if name == "ask":
            return await ctx.ask("Well?")
        await anyio.sleep(10)
        await answer(journal, "r", "so")  # as a person would, from elsewhere
        return name

    await run(pair, "go", journal=journal, run_id="r")
    assert (await journal.run("r")).status == "waiting"
    assert await due(journal) == ["r"]
    assert (await resume(pair, "r", journal=journal)).output == ["so", "work"]


def asks(prompt: str) -> Any:
    async def code(text: str, ctx: Context) -> str:
        return await ctx.ask(prompt, timeout=60)

    async def around(text: str, ctx: Context) -> str:
        return await ctx.run(code, prompt)

    return around


async def test_a_changed_program_leaves_a_run_due_when_it_was() -> None:
    """Where it cannot go on with it."""
    journal = MemoryJournal()
    await run(asks("Well?"), "go", journal=journal, run_id="r")
    before = await journal.run("r")
    with pytest.raises(ReplayMismatch):
        await resume(asks("What?"), "r", journal=journal)
    after = await journal.run("r")
    assert (after.status, after.due, before.due is None) == ("waiting", before.due, False)


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
