"""Resources that steps open once and use together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from agentrt import (
    END,
    START,
    Agent,
    AgentrtError,
    Context,
    FunctionNode,
    Graph,
    Retry,
    StepFailed,
    collect,
    resume,
    run,
    tool,
)
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, ScriptedModel, call, text
from tests.journals import journal_of
from tests.test_continuation import RUN

pytestmark = pytest.mark.anyio


class Counter:
    """Be a resource: it counts how often it was opened and closed, and the uses of one that is open."""

    def __init__(self, *, fails: int = 0, seconds: float = 0.0) -> None:
        self.opened = self.closed = 0
        self._fails = fails
        self._seconds = seconds

    @asynccontextmanager
    async def open(self) -> AsyncIterator[list[str]]:
        self.opened += 1
        await anyio.sleep(self._seconds)
        if self.opened <= self._fails:
            raise ValueError(f"opening {self.opened} failed")
        try:
            yield []
        finally:
            self.closed += 1


async def test_steps_of_a_run_use_one_resource_which_closes_with_the_run() -> None:
    counter = Counter(seconds=1)

    async def use(x: int, ctx: Context) -> int:
        uses = await ctx.resource("counter", counter.open)
        uses.append(ctx.path)
        assert counter.closed == counter.opened - 1
        return len(uses)

    async def main(x: int, ctx: Context) -> list[int]:
        return await ctx.map(use, [1, 2, 3])

    with anyio.fail_after(100):
        result = await run(main, 0)
    assert sorted(result.output) == [1, 2, 3]
    assert (counter.opened, counter.closed) == (1, 1)
    await run(main, 0)
    assert (counter.opened, counter.closed) == (2, 2)


@pytest.mark.parametrize("ends", ["by an error", "cancelled", "out of time"])
async def test_a_resource_is_closed_however_the_run_ends(ends: str) -> None:
    counter = Counter()

    async def main(x: int, ctx: Context) -> None:
        await ctx.resource("counter", counter.open)
        if ends == "by an error":
            raise ValueError("no")
        await anyio.sleep(100)

    if ends == "by an error":
        with pytest.raises(StepFailed):
            await run(main, 0)
    else:
        with anyio.move_on_after(5):
            await run(main, 0)
    assert (counter.opened, counter.closed) == (1, 1)


async def test_who_waits_for_an_opening_may_give_up_while_it_goes_on() -> None:
    counter = Counter(seconds=10)

    async def main(x: int, ctx: Context) -> int:
        with anyio.move_on_after(1):
            await ctx.resource("counter", counter.open)
        return len(await ctx.resource("counter", counter.open))

    assert (await run(main, 0)).output == 0
    assert (counter.opened, counter.closed) == (1, 1)


async def test_an_opening_nobody_waits_for_any_more_does_not_hold_up_the_run() -> None:
    counter = Counter(seconds=1000)

    async def main(x: int, ctx: Context) -> int:
        with anyio.move_on_after(1):
            await ctx.resource("counter", counter.open)
        return x

    with anyio.fail_after(20):
        assert (await run(main, 7)).output == 7


async def test_what_could_not_be_opened_fails_who_asked_and_is_tried_anew() -> None:
    counter = Counter(fails=1)

    async def use(x: int, ctx: Context) -> int:
        return len(await ctx.resource("counter", counter.open))

    async def main(x: int, ctx: Context) -> str:
        try:
            await ctx.run(use, 1)
        except ValueError as error:
            return f"{error}, then {await ctx.run(use, 1)}"
        return "no error"

    assert (await run(main, 0)).output == "opening 1 failed, then 0"


async def test_a_resource_that_has_ended_by_an_error_is_opened_anew(caplog: pytest.LogCaptureFixture) -> None:
    dies, opened = anyio.Event(), list[int]()

    @asynccontextmanager
    async def opened_once() -> AsyncIterator[int]:
        opened.append(1)
        async with anyio.create_task_group() as tasks:
            if len(opened) == 1:
                tasks.start_soon(die)
            yield len(opened)

    async def die() -> None:
        await dies.wait()
        raise ConnectionError("the server has gone")

    async def main(x: int, ctx: Context) -> tuple[int, int]:
        first = await ctx.resource("server", opened_once)
        dies.set()
        await anyio.sleep(1)
        return first, await ctx.resource("server", opened_once)

    assert (await run(main, 0)).output == (1, 2)
    assert "a resource ended by an error" in caplog.text


async def test_a_resource_that_does_not_close_is_cancelled_after_ten_seconds() -> None:
    @asynccontextmanager
    async def opened_once() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(1000)

    async def main(x: int, ctx: Context) -> int:
        return await ctx.resource("slow", opened_once)

    with anyio.fail_after(11):
        assert (await run(main, 0)).output == 1


def sessions(counter: Counter) -> Any:
    """Return a tool that keeps what each agent has said to it."""

    @tool(effect="read")
    async def remember(word: str, ctx: Context) -> str:
        """Remember a word.

        Args:
            word: The word.
        """
        words = await ctx.resource("words", counter.open, scope="agent")
        words.append(word)
        return " ".join(words)

    return remember


async def test_each_activation_of_an_agent_has_a_resource_of_its_own() -> None:
    counter = Counter()
    replies = [call("remember", word="a"), call("remember", word="b"), text("done")]
    agent = Agent("agent", model=ScriptedModel([*replies, *replies]), tools=[sessions(counter)])
    seen: list[str] = []

    async def main(x: int, ctx: Context) -> None:
        for _ in range(2):
            await ctx.run(agent, "go")
            await anyio.sleep(1)
            seen.append(f"{counter.opened} {counter.closed}")

    await run(main, 0)
    assert seen == ["1 1", "2 2"]


async def test_an_agent_that_is_tried_again_begins_with_a_new_resource() -> None:
    counter = Counter()
    model = ScriptedModel([call("remember", word="a"), ValueError("no"), call("remember", word="b"), text("done")])
    agent = Agent("agent", model=model, tools=[sessions(counter)], retry=Retry(attempts=2, on=(ValueError,)))
    await run(agent, "go")
    assert counter.opened == 2


async def test_a_run_that_goes_on_brings_its_agents_resources_to_their_state_again() -> None:
    """Wherever it was cut off, the agent's later calls find what its earlier ones had left."""

    def reply(request: Any) -> Any:
        done = sum(m.role == "tool" for m in request.messages)
        return call("remember", word="abc"[done]) if done < 3 else request.messages[-1].text

    agent = Agent("agent", model=FunctionModel(reply), tools=[sessions(Counter())])
    journal = MemoryJournal()
    assert (await run(agent, "go", journal=journal, run_id=RUN)).output == "a b c"
    events = await journal.events(RUN)
    for at in range(1, len(events)):
        result = await resume(agent, RUN, journal=await journal_of(RUN, events[:at]))
        assert result.output == "a b c", at


class Exclusive:
    """Be a resource that only one may have at a time, and that takes long to close."""

    def __init__(self) -> None:
        self.is_taken = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[list[str]]:
        assert not self.is_taken
        self.is_taken = True
        yield []
        await anyio.sleep(3)
        self.is_taken = False


async def test_an_agents_resource_is_closed_when_the_agent_has_ended() -> None:
    """So that the next one may open it."""
    exclusive = Exclusive()

    @tool(effect="read")
    async def remember(word: str, ctx: Context) -> int:
        """Remember a word."""
        return len(await ctx.resource("words", exclusive.open, scope="agent"))

    replies = [call("remember", word="a"), text("done")]
    agent = Agent("agent", model=ScriptedModel([*replies, *replies]), tools=[remember])

    async def main(x: int, ctx: Context) -> None:
        for _ in range(2):
            await ctx.run(agent, "go")
            assert not exclusive.is_taken

    await run(main, 0)


async def test_what_was_opened_last_is_closed_first() -> None:
    closed: list[str] = []

    @asynccontextmanager
    async def opened(name: str) -> AsyncIterator[str]:
        yield name
        await anyio.sleep(1)
        closed.append(name)

    async def main(x: int, ctx: Context) -> None:
        for name in ("pool", "session"):
            await ctx.resource(name, partial(opened, name))

    await run(main, 0)
    assert closed == ["session", "pool"]


async def test_who_waits_for_an_opening_lends_its_slot() -> None:
    counter = Counter(seconds=10)
    done: list[str] = []

    async def use(x: int, ctx: Context) -> None:
        await ctx.resource("counter", counter.open)
        done.append("used")

    async def other(x: int) -> None:
        done.append("other")

    graph = Graph("g", input=int, output=object)
    graph.edge(START, (FunctionNode(use), FunctionNode(other)))
    graph.edge(tuple(graph.nodes), END, join=collect)
    await run(graph, 0, concurrency=1)
    assert done == ["other", "used"]


async def test_a_cancellation_let_out_by_what_opens_is_an_error_of_who_asked() -> None:
    @asynccontextmanager
    async def open_() -> AsyncIterator[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.cancel()
        yield await future

    async def main(x: int, ctx: Context) -> str:
        try:
            return str(await ctx.resource("broken", open_))
        except AgentrtError as error:
            return str(error)

    assert "closed, or its opening cancelled" in (await run(main, 0)).output


async def test_a_scope_is_the_runs_or_an_agents() -> None:
    async def main(x: int, ctx: Context) -> None:
        await ctx.resource("counter", Counter().open, scope="agnet")  # type: ignore[arg-type]

    with pytest.raises(StepFailed, match="as long as its"):
        await run(main, 0)
