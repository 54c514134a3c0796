"""Streams: what a fast reader gets, what a slow one misses, and what neither does to the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentrt import END, START, Agent, Context, DefinitionError, Graph, collect, first, stream, tool
from agentrt import events as ev
from agentrt.stream import _LONGEST_MERGE, EventBuffer
from agentrt.testing import FunctionModel, ScriptedModel, call
from tests.cases import cases

pytestmark = pytest.mark.anyio


def text(words: str, path: str = "p") -> ev.TextDelta:
    return ev.TextDelta(path=path, at=0.0, text=words)


def other(value: object) -> ev.Emitted:
    return ev.Emitted(path="p", at=0.0, value=value)


def drain(buffer: EventBuffer) -> Iterator[Any]:
    while (event := buffer.take()) is not None:
        yield event


class BufferAgainstAList(RuleBasedStateMachine):
    """Put numbered events and take them at any moment: the order holds, the bounds hold, the count is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = EventBuffer(5, 40)
        self.put: list[int] = []
        self.seen: list[int] = []
        self.missed = 0
        self.gap_before: int | None = None

    @rule(path=st.sampled_from("ab"), padding=st.sampled_from(["", "x" * 15, "x" * 50]))
    def text(self, path: str, padding: str) -> None:
        self.put.append(len(self.put))
        self.buffer.put(text(f"<{self.put[-1]}{path}{padding}>", path))

    @rule()
    def other(self) -> None:
        self.put.append(len(self.put))
        self.buffer.put(other(self.put[-1]))
        assert len(self.buffer) > 0

    @rule(n=st.integers(1, 8))
    def take(self, n: int) -> None:
        for _ in range(n):
            if (event := self.buffer.take()) is not None:
                self._see(event)

    @precondition(lambda self: self.put)
    @rule()
    def take_all(self) -> None:
        for event in drain(self.buffer):
            self._see(event)
        assert len(self.seen) + self.missed == len(self.put)
        assert self.buffer.statistics()["dropped"] == self.missed

    def _see(self, event: Any) -> None:
        if isinstance(event, ev.EventsDropped):
            assert event.count > 0
            self.missed += event.count
            return
        numbers = [event.value] if isinstance(event, ev.Emitted) else _numbers(event)
        for number in numbers:
            assert not self.seen or number > self.seen[-1]
            assert number - len(self.seen) <= self.missed, "what is missing before an event is told before it"
            self.seen.append(number)

    @invariant()
    def bounds(self) -> None:
        kept = self.buffer.statistics()
        assert kept["events"] <= 5
        assert 0 <= kept["characters"] <= 40


def _numbers(event: ev.TextDelta) -> list[int]:
    """Return the numbers of the pieces that were merged, each whole and of the same path."""
    pieces = event.text.removeprefix("<").removesuffix(">").split("><")
    assert {p.strip("0123456789x") for p in pieces} == {event.path}
    return [int(p.split(event.path)[0]) for p in pieces]


TestBufferAgainstAList = BufferAgainstAList.TestCase
TestBufferAgainstAList.settings = settings(cases(50), stateful_step_count=20)


def test_neighbouring_text_of_one_step_becomes_one() -> None:
    """Not across another step's text, nor across another event, nor beyond a length."""
    buffer = EventBuffer(100, 100_000)
    long = "y" * _LONGEST_MERGE
    for event in (text("a"), text("b"), text("c", "q"), text("d"), other(1), text("e"), text(long), text("f")):
        buffer.put(event)
    assert [getattr(e, "text", 1) for e in drain(buffer)] == ["ab", "c", "d", 1, "e" + long, "f"]


def test_text_goes_first_and_then_the_oldest() -> None:
    """The gap is told where its first event stood."""
    buffer = EventBuffer(3, 100)
    for event in (other(1), text("a"), text("b", "q"), other(2), other(3)):
        buffer.put(event)
    assert list(drain(buffer)) == [other(1), ev.EventsDropped(at=0.0, count=2), other(2), other(3)]
    for n in range(5):
        buffer.put(other(n))
    assert list(drain(buffer)) == [ev.EventsDropped(at=0.0, count=2), other(2), other(3), other(4)]


def test_text_has_a_bound_of_its_own() -> None:
    """The oldest of it goes; a piece longer than the bound cannot stay at all."""
    buffer = EventBuffer(100, 5)
    for event in (text("abc"), other(1), text("def"), other(2), text("ghijkl")):
        buffer.put(event)
    dropped = ev.EventsDropped(at=0.0, count=3)
    assert list(drain(buffer)) == [dropped, other(1), other(2)]


@given(bound=st.integers(1, 9), n=st.integers(0, 60))
def test_the_last_event_that_is_no_text_is_always_kept(bound: int, n: int) -> None:
    """So the end of a run always arrives."""
    buffer = EventBuffer(bound, bound)
    for i in range(n):
        buffer.put(text("abc") if i % 3 else other(i))
    buffer.put(other("end"))
    assert list(drain(buffer))[-1] == other("end")


@tool
async def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def team() -> Graph[Any, Any]:
    """Let a lead ask a helper, who uses a tool, side by side with another lead."""
    helper_model = ScriptedModel([call("search", query="x"), "helper says this"] * 2)
    helper = Agent("helper", model=helper_model, tools=[search], description="helps")
    lead_model = FunctionModel(lambda r: call("helper", input="?") if len(r.messages) == 1 else "lead says that")
    graph = Graph("team")
    lead = Agent("lead", model=lead_model, tools=[helper])
    graph.edge(START, [lead, lead])
    graph.edge(lead, END, join=collect)
    return graph


async def test_a_fast_reader_gets_what_an_observer_gets() -> None:
    """Tokens, tool calls and steps of nested agents, each with its path: all of them, in order."""
    seen: list[Any] = []
    async with stream(team(), "go", observers=[seen.append]) as events:
        got = [e async for e in events]
        assert _text_joined(got) == _text_joined(seen)
        assert events.result.output == ["lead says that"] * 2
        assert events.dropped == 0
    tools = {e.path for e in got if isinstance(e, ev.StepStarted) and e.name == "search"}
    assert tools == {f"team/lead[{i}]/helper/search" for i in (0, 1)}
    assert "team/lead[1]/helper/chat#2" in {e.path for e in got if isinstance(e, ev.TextDelta)}


def _text_joined(events: list[Any]) -> list[Any]:
    """Merge neighbouring text, as a buffer may or may not do."""
    buffer = EventBuffer(100_000, 10_000_000)
    for event in events:
        buffer.put(event)
    return list(drain(buffer))


async def test_text_alone() -> None:
    """With the path of who says it."""
    async with stream(Agent("a", model=ScriptedModel(["one two three"])), "go") as events:
        pieces = [delta async for delta in events.text()]
    assert {d.path for d in pieces} == {"a/chat"}
    assert "".join(d.text for d in pieces) == events.result.output == "one two three"


async def chatter(n: int, ctx: Context) -> int:
    for i in range(n):
        ctx.emit(i)
        if i % 50 == 0:
            await anyio.lowlevel.checkpoint()
    return n


async def test_a_stopped_reader_neither_stalls_the_run_nor_fills_memory() -> None:
    """The run ends by itself, observers get everything, and the end and the result arrive."""
    seen: list[Any] = []
    async with stream(chatter, 5000, observers=[seen.append], buffer=20) as events:
        await anyio.wait_all_tasks_blocked()
        assert isinstance(seen[-1], ev.RunFinished)
        assert events.dropped == 5004 - 20
        got = [e async for e in events]
    assert len(seen) == 5004
    assert (type(got[0]), got[0].count) == (ev.EventsDropped, 5004 - 20)  # type: ignore[union-attr]
    assert got[1:] == seen[-20:]
    assert events.result.output == 5000


async def test_a_fast_reader_of_steps_that_never_await_misses_nothing() -> None:
    """The loop gets its turn among them: far more events than the buffer holds."""

    async def count(x: int) -> int:
        return x + 1

    graph = Graph("g")
    graph.edge(START, count)
    graph.edge(count, END, when=lambda x: x >= 5000)
    graph.edge(count, count)
    async with stream(graph, 0, buffer=1000) as events:
        got = [type(e) async for e in events]
    assert (len(got), ev.EventsDropped in got) == (10_004, False)


async def test_two_readers_share_the_events() -> None:
    """Each event comes to one of them, and both see the end."""
    got: list[list[Any]] = [[], []]

    async def read(mine: list[Any]) -> None:
        async for event in events:
            mine.append(event)
            await anyio.lowlevel.checkpoint()

    async with stream(chatter, 100) as events, anyio.create_task_group() as tasks:
        for mine in got:
            tasks.start_soon(read, mine)
    assert len(got[0]) + len(got[1]) == 104


@pytest.mark.parametrize("buffer", [0, -1, True, 1.5])
async def test_a_buffer_holds_something(buffer: Any) -> None:
    """Refused before anything runs."""
    with pytest.raises(DefinitionError, match="keep at least one event"):
        async with stream(chatter, 1, buffer=buffer):
            pass


async def test_a_stream_left_early_has_no_result() -> None:
    """And says why, not that the run goes on."""
    async with stream(_forever, 1) as events:
        async for _ in events:
            break
    with pytest.raises(RuntimeError, match="the run was cancelled"):
        _ = events.result
    assert [type(e).__name__ async for e in events][-1] == "RunCancelled"


async def test_leaving_at_the_last_event_keeps_the_result() -> None:
    """The run is over then, but for its journal."""
    async with stream(chatter, 1) as events:
        async for event in events:
            if isinstance(event, ev.RunFinished):
                break
    assert events.result.output == 1


async def test_a_group_of_the_readers_own_stays_a_group() -> None:
    """Only the stream's own is taken off."""
    with pytest.raises(ExceptionGroup) as error:
        async with stream(_forever, 1), anyio.create_task_group():
            raise ValueError("mine")
    assert [str(e) for e in error.value.exceptions] == ["mine"]


async def test_first_inside_a_stream() -> None:
    """Cancelled steps are in the stream too."""
    graph = Graph("g")
    graph.edge(START, [_forever, _quick])
    graph.edge([_forever, _quick], END, join=first())
    async with stream(graph, 1) as events:
        ended = {e.path: type(e).__name__ async for e in events if isinstance(e, ev.StepFinished | ev.StepCancelled)}
    assert ended == {"g/_forever[0]": "StepCancelled", "g/_quick[1]": "StepFinished", "g": "StepFinished"}


async def _forever(x: int) -> int:
    await anyio.sleep_forever()
    return x


async def _quick(x: int) -> int:
    await anyio.wait_all_tasks_blocked()
    return x
