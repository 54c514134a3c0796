"""Runs that go on from any place of their record: the same output, nothing had twice, everything paid once."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Context,
    FunctionNode,
    Graph,
    ModelRequest,
    ModelUnavailable,
    Result,
    Retried,
    Retry,
    StepFailed,
    Usage,
    collect,
    first,
    replay,
    resume,
    run,
    tool,
    vote,
)
from agentrt import events as ev
from agentrt.budget import STEPS, TOOL_CALLS
from agentrt.messages import AssistantMessage, ToolMessage
from agentrt.recorded import Recorded
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, call, run_virtual
from tests.cases import cases
from tests.journals import journal_of, kinds
from tests.randomgraphs import Builder, Outcomes, Step, total

pytestmark = pytest.mark.anyio
RUN = "r"
AGAIN = Retry(attempts=3, backoff=1.0, on=(ConnectionError, ModelUnavailable))


class World:
    """Hold a graph of everything that may be cut off, and what its tools have done outside of any record."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.given_up: set[str] = set()
        self.models: list[FunctionModel] = []
        self.graph = Graph("main", input=int, output=list)
        writer = Agent("writer", model=self._model(self._write), history="branch", instructions="Write.")
        helper = Agent("helper", model=self._model(self._help), tools=[self._look()], description="helps")
        model = Retried(self._model(self._research), AGAIN)
        researcher = Agent("researcher", model=model, tools=[helper, self._look(), self._book()], instructions="Find.")
        shaky = FunctionNode(self._shaky, name="shaky", retry=AGAIN)
        racers = [FunctionNode(self._race, name=f"racer{seconds}") for seconds in (3, 1, 2)]
        self.graph.edge(START, self._words)
        self.graph.edge(self._words, researcher, each=True)
        self.graph.edge(researcher, writer, join=collect)
        self.graph.edge(writer, shaky)
        self.graph.edge(shaky, self._wait)
        self.graph.edge(self._wait, self._judge)
        self.graph.edge(self._judge, racers, when=lambda text: "draft 3" in text)
        self.graph.edge(self._judge, writer, times=3)
        for racer in racers:
            self.graph.edge(racer, END, join=first(2))

    def begin(self, before: Sequence[ev.Event] = ()) -> None:
        """Be a new process, in a world in which what failed or was slow before the cut is well by now."""
        self.effects.clear()
        self.given_up = given_up(before)
        self.tries = Counter(e.path for e in kinds(before, ev.StepRetried))

    @property
    def asked(self) -> int:
        """Return how often models were asked."""
        return sum(len(model.requests) for model in self.models)

    def _model(self, reply: Callable[[ModelRequest], Any]) -> FunctionModel:
        self.models.append(FunctionModel(reply))
        return self.models[-1]

    def _look(self) -> Any:
        @tool(effect="idempotent")
        async def look(word: str, ctx: Context) -> str:
            """Look a word up."""
            self.effects[ctx.path] += 1
            await anyio.sleep(0.5)
            return f"{word}!"

        return look

    def _book(self) -> Any:
        @tool(effect="keyed")
        async def book(word: str, ctx: Context) -> str:
            """Book a word."""
            self.effects[ctx.path] += 1
            assert ctx.key == f"{RUN}/{ctx.path}"
            return f"booked {word}"

        return book

    def _research(self, request: ModelRequest) -> Any:
        told = [m.text for m in request.messages if isinstance(m, ToolMessage)]
        if told:
            return " and ".join(told)
        word = request.messages[-1].text
        self.tries[word] += 1
        if self.tries[word] == 1:
            return ModelUnavailable("down", billed=False)
        return [call("look", word=word), call("book", word=word), call("helper", input=word), call("look", word="x")]

    def _help(self, request: ModelRequest) -> Any:
        told = [m.text for m in request.messages if isinstance(m, ToolMessage)]
        return f"helped with {told[0]}" if told else call("look", word=f"help {request.messages[-1].text}")

    def _write(self, request: ModelRequest) -> Any:
        return AssistantMessage(f"draft {sum(m.text.startswith('draft') for m in request.messages) + 1}")

    async def _words(self, n: int) -> list[str]:
        return [chr(97 + i) * 3 for i in range(n)]

    async def _shaky(self, draft: str, ctx: Context) -> str:
        self.tries[ctx.path] += 1
        tried = ctx.draw("tries", lambda: self.tries[ctx.path])
        looked = await ctx.run(self._look(), draft)
        if self.tries[ctx.path] == 1:
            raise ConnectionError("again")
        return f"{draft} {looked} {tried}"

    async def _judge(self, draft: str, ctx: Context) -> str:
        found = await ctx.map(self._look(), [f"{draft} {i}" for i in range(2)])
        return f"{draft} {len(found)} {ctx.random.randrange(1000)} {ctx.uuid()} {ctx.draw('n', lambda: 7)}"

    async def _wait(self, draft: str, ctx: Context) -> str:
        """Give a call up, spend something, and go on."""
        with anyio.move_on_after(3) as scope:
            await ctx.run(self._slow, draft)
        ctx.spend(TOOL_CALLS)
        looked = await ctx.run(self._look(), draft)
        ctx.spend(STEPS, TOOL_CALLS)
        with anyio.move_on_after(1):
            await ctx.map(self._slow, [draft, looked], key="all")
        return f"{looked} {await ctx.run(self._look(), 'patience')} {scope.cancelled_caught}"

    async def _slow(self, text: str, ctx: Context) -> str:
        await anyio.sleep(0 if ctx.path in self.given_up else 9)
        return text

    async def _race(self, text: str, ctx: Context) -> str:
        await anyio.sleep(int(ctx.path.partition("racer")[2][0]))
        return f"{ctx.path.rpartition('/')[2]}: {text}"


def given_up(events: Sequence[ev.Event]) -> set[str]:
    """Return what was cancelled by a caller that is on record to have gone on."""
    lost: defaultdict[str, set[str]] = defaultdict(set)
    found: set[str] = set()
    for event in kinds(events, ev.StepStarted, ev.StepCancelled, ev.Counted):
        caller = event.path if isinstance(event, ev.Counted) else event.path.rpartition("/")[0]
        if isinstance(event, ev.StepCancelled):
            lost[caller].add(event.path)
            continue
        found |= lost.pop(caller, set())
        if isinstance(event, ev.StepStarted):
            found.discard(event.path)
            lost.pop(event.path, None)
    return found


class Undisturbed:
    """Hold a run that nobody cut off."""

    def __init__(self, world: World, result: Result[Any], events: Sequence[ev.Event]) -> None:
        self.result, self.events, self.effects = result, events, Counter(world.effects)

    @classmethod
    async def of(cls, world: World, value: Any) -> Undisturbed:
        journal = MemoryJournal()
        world.begin()
        result = await run(world.graph, value, journal=journal, run_id=RUN)
        return cls(world, result, await journal.events(RUN))


def check_attempts(events: Iterable[ev.Event]) -> None:
    """Check that every start of a step ended once, before the next one, and that the record ends with the run."""
    running: set[str] = set()
    for event in events:
        if isinstance(event, ev.StepStarted):
            assert event.path not in running
            running.add(event.path)
        elif isinstance(event, ev.Ending):
            running.remove(event.path)
    assert running == set()


def paid_in_vain(events: Iterable[ev.Event]) -> Usage:
    """Return what was charged to attempts that were cut off with their process."""
    vain = Usage()
    charged: dict[str, Usage] = {}
    for event in events:
        if isinstance(event, ev.UsageRecorded):
            charged[event.path] = charged.get(event.path, Usage()) + event.usage
        elif isinstance(event, ev.StepAbandoned):
            vain += charged.pop(event.path, Usage())
        elif isinstance(event, ev.StepStarted | ev.StepRetried):
            charged.pop(event.path, None)
    return vain


def in_doubt(before: Iterable[ev.Event]) -> int:
    """Return the tokens reserved for calls of whose bill nothing is on record."""
    held: dict[str, int] = {}
    for event in kinds(before, ev.UsageReserved, ev.UsageRecorded):
        held[event.path] = event.usage.tokens if isinstance(event, ev.UsageReserved) else 0
    return sum(held.values())


class Continued:
    """Hold a run that was cut off and has gone on."""

    def __init__(self, before: Sequence[ev.Event], result: Result[Any], events: Sequence[ev.Event]) -> None:
        self.before, self.result, self.events = before, result, events

    @classmethod
    async def of(cls, world: World, before: Sequence[ev.Event]) -> Continued:
        journal = await journal_of(RUN, before)
        world.begin(before)
        result = await resume(world.graph, RUN, journal=journal)
        return cls(before, result, await journal.events(RUN))

    def check(self, world: World, undisturbed: Undisturbed) -> None:
        """Check that output and effects are as if nothing had happened, and the bill but for what was in flight."""
        result, wanted = self.result, undisturbed.result
        assert self.events[: len(self.before)] == list(self.before)
        assert (result.output, result.stop_reason) == (wanted.output, wanted.stop_reason)
        check_attempts(self.events)
        for opening in kinds(self.events[len(self.before) :], ev.RunResumed):
            parts = kinds(self.before, ev.RunStarted, ev.RunResumed)
            assert (opening.attempt, opening.usage) == (len(parts) + 1, Recorded(self.before).total)
        vain = paid_in_vain(self.events)
        assert result.usage.tokens == wanted.usage.tokens + vain.tokens
        assert result.usage.uncertain == vain.uncertain
        assert (result.usage.steps, result.usage.tool_calls) == (wanted.usage.steps, wanted.usage.tool_calls)
        assert Recorded(self.events).total == result.usage
        assert world.effects == undisturbed.effects - tools_done(self.before)


def tools_done(before: Sequence[ev.Event]) -> Counter[str]:
    """Return how often the tool at each path is on record to have ended."""
    tools = {e.path for e in kinds(before, ev.StepStarted) if e.kind == "tool"}
    return Counter(e.path for e in kinds(before, ev.StepFinished) if e.path in tools)


STRIDE = 16


@pytest.mark.parametrize("start", range(STRIDE))
async def test_a_run_goes_on_from_every_place_of_its_record(start: int) -> None:
    """And from a place in the record of that, too."""
    world = World()
    undisturbed = await Undisturbed.of(world, 2)
    for at in range(start + 1, len(undisturbed.events) + 1, STRIDE):
        before = undisturbed.events[:at]
        continued = await Continued.of(world, before)
        continued.check(world, undisturbed)
        assert continued.result.usage.uncertain == in_doubt(before)
        again = random.Random(at).randint(at, len(continued.events))
        (await Continued.of(world, continued.events[:again])).check(world, undisturbed)


@pytest.mark.parametrize("start", range(8))
async def test_a_run_that_was_cancelled_goes_on(start: int) -> None:
    """At any time, and again: what was cancelled with it runs again, what its code had given up does not."""
    world = World()
    undisturbed = await Undisturbed.of(world, 1)
    for n in range(start, 24, 8):
        journal = MemoryJournal()
        world.begin()
        with anyio.move_on_after(n + 0.25):
            await run(world.graph, 1, journal=journal, run_id=RUN)
        for more in (7.5, 60):
            world.begin(await journal.events(RUN))
            with anyio.move_on_after(more):
                result = await resume(world.graph, RUN, journal=journal)
        assert result.output == undisturbed.result.output
        events = await journal.events(RUN)
        check_attempts(events)
        assert Recorded(events).total == result.usage


@cases(6)
@given(seed=st.integers(0, 2**32), places=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_a_run_goes_on_in_any_order(seed: int, places: list[float]) -> None:
    """Cut off again and again, and each time served in another order."""
    world = World()
    undisturbed = run_virtual(Undisturbed.of, world, 1, seed=seed)
    events: Sequence[ev.Event] = undisturbed.events
    for place in places:
        before = events[: 1 + round(place * (len(events) - 1))]
        seed += 1
        continued = run_virtual(Continued.of, world, before, seed=seed)
        continued.check(world, undisturbed)
        events = continued.events


class Noting(Builder):
    """Build a random graph whose steps note that they run, and in which no join is a race."""

    def __init__(self, seed: int, *, races: bool) -> None:
        super().__init__(seed)
        self.ran: list[str] = []
        if not races:
            self.joins = [collect, total, vote]

    def _node(self) -> Any:
        self._names += 1
        return NotingStep(f"n{self._names}", self.outcomes, self.ran)


class NotingStep(Step):
    def __init__(self, name: str, outcomes: Outcomes, ran: list[str]) -> None:
        super().__init__(name, outcomes)
        self.ran = ran

    async def invoke(self, ctx: Context, value: Any, /) -> Any:
        self.ran.append(ctx.path)
        return await super().invoke(ctx, value)


async def outcome(coroutine: Awaitable[Result[Any]]) -> Any:
    """Return a run's output, or that it failed."""
    try:
        return (await coroutine).output
    except StepFailed:
        return StepFailed


@cases(30)
@example(seed=755893, races=False, places=[0.875])
@given(seed=st.integers(0, 2**32), races=st.booleans(), places=st.lists(st.floats(0, 0.999), min_size=1, max_size=3))
def test_random_graphs_go_on_from_anywhere(seed: int, races: bool, places: list[float]) -> None:
    """No step that has ended runs again, and without races the outcome is the same."""
    built = Noting(seed, races=races)
    graph = built.build()

    async def begin() -> tuple[Any, Sequence[ev.Event]]:
        journal = MemoryJournal()
        return await outcome(run(graph, 5, journal=journal, run_id=RUN)), await journal.events(RUN)

    async def go_on(before: Sequence[ev.Event]) -> tuple[Any, Sequence[ev.Event]]:
        journal = await journal_of(RUN, before)
        built.ran.clear()
        return await outcome(resume(graph, RUN, journal=journal)), await journal.events(RUN)

    wanted, events = run_virtual(begin, seed=seed)
    for place in places:
        before = events[: 1 + int(place * len(events))]
        ended = {e.path for e in kinds(before, ev.StepFinished)}
        seed += 1
        had, events = run_virtual(go_on, before, seed=seed)
        assert not ended & set(built.ran)
        assert Counter(built.ran).total() == len(set(built.ran))
        check_attempts(events)
        assert races or had == wanted


async def test_attempts_before_a_cut_count() -> None:
    """A step is not tried more often for its process being killed; a run that had failed is tried anew."""
    tries: list[int] = []

    async def broken(x: int) -> int:
        tries.append(x)
        raise ConnectionError("no")

    node, journal = FunctionNode(broken, retry=AGAIN), MemoryJournal()
    assert await outcome(run(node, 1, journal=journal, run_id=RUN)) is StepFailed
    events = await journal.events(RUN)
    for failed in (0, 1, 2):
        at = next((i for i, e in enumerate(events) if isinstance(e, ev.StepRetried) and e.attempt == failed), 1)
        cut = await journal_of(RUN, events[: at + 1])
        tries.clear()
        assert await outcome(resume(node, RUN, journal=cut)) is StepFailed
        assert len(tries) == 3 - failed
        assert [e.attempt for e in kinds(await cut.events(RUN), ev.StepRetried)] == [1, 2]
        check_attempts(await cut.events(RUN))
    tries.clear()
    assert await outcome(resume(node, RUN, journal=journal)) is StepFailed
    assert len(tries) == 3


@pytest.mark.parametrize("policy", ["raise", "partial", "wrap_up"])
async def test_a_run_out_of_budget_goes_on_with_more(policy: Any) -> None:
    """As if it had had enough: the last words it found without are not among what it goes on from."""
    said: list[str] = []

    def say(request: ModelRequest) -> Any:
        said.append(request.messages[-1].text)
        told = [m.text for m in request.messages if isinstance(m, ToolMessage)]
        return (
            "last words"
            if not request.tools
            else " ".join(told)
            if len(told) == 3
            else call("look", word=f"{len(told)}")
        )

    used: list[str] = []

    @tool(effect="idempotent")
    async def look(word: str) -> str:
        """Look a word up."""
        used.append(word)
        return f"{word}!"

    agent, journal = Agent("agent", model=FunctionModel(say), tools=[look]), MemoryJournal()
    budget = Budget(model_calls=3, hold_back=0.34, on_exhausted=policy)
    try:
        stopped = await run(agent, "?", journal=journal, run_id=RUN, budget=budget)
    except BudgetExceeded as error:
        stopped = cast("Result[str]", error.result)
    assert stopped.stop_reason == {"raise": "budget_exceeded", "partial": "partial", "wrap_up": "wrapped_up"}[policy]
    result = await resume(agent, RUN, journal=journal, budget=Budget(model_calls=20))
    assert (result.output, result.stop_reason, used) == ("0! 1! 2!", "done", ["0", "1", "2"])
    assert result.usage.model_calls == len(said)
    events = await journal.events(RUN)
    check_attempts(events)
    again = await resume(agent, RUN, journal=await journal_of(RUN, events[:-1]))
    assert again.output == result.output
    assert (await replay(agent, RUN, journal=journal)).output == result.output


async def test_what_is_cancelled_with_its_caller_runs_again() -> None:
    """Though that did something more as it unwound."""
    slow = True

    async def work(x: int) -> int:
        await anyio.sleep(9 if slow else 0)
        return x

    async def tidy(x: int) -> int:
        return x

    async def careful(x: int, ctx: Context) -> int:
        try:
            return await ctx.run(work, x)
        finally:
            with anyio.CancelScope(shield=True):
                await ctx.run(tidy, x)

    journal = MemoryJournal()
    with anyio.move_on_after(1):
        await run(careful, 3, journal=journal, run_id=RUN)
    slow = False
    with anyio.fail_after(100):
        assert (await resume(careful, RUN, journal=journal)).output == 3


async def test_a_start_that_was_refused_counts_once_it_is_not() -> None:
    """A limit of the step's own refused it; the program gives it more."""

    async def leaf(x: int) -> int:
        return x

    def around(steps: int) -> Any:
        async def code(x: int, ctx: Context) -> int:
            return await ctx.run(leaf, x, budget=Budget(steps=steps))

        return code

    journal = MemoryJournal()
    with pytest.raises(BudgetExceeded, match="steps"):
        await run(around(0), 3, journal=journal, run_id=RUN, budget=Budget(steps=9))
    result = await resume(around(1), RUN, journal=journal)
    assert (result.output, result.usage.steps) == (3, 2)


async def test_what_a_failure_had_cancelled_runs_again_where_that_may_go_well_now() -> None:
    """Though the code that failed had done something more, too."""
    fails = True

    async def breaks(x: int) -> int:
        await anyio.sleep(1)
        if fails:
            raise ConnectionError
        return x

    async def lasts(x: int) -> int:
        await anyio.sleep(2)
        return x

    async def tidy(x: int) -> int:
        return x

    async def both(x: int, ctx: Context) -> list[int]:
        found: list[int] = []

        async def call(node: Any) -> None:
            found.append(await ctx.run(node, x))

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, breaks)
                tasks.start_soon(call, lasts)
        finally:
            await ctx.run(tidy, x)
        return found

    journal = MemoryJournal()
    with pytest.raises(StepFailed):
        await run(both, 3, journal=journal, run_id=RUN)
    fails = False
    with anyio.fail_after(100):
        assert (await resume(both, RUN, journal=journal)).output == [3, 3]


@pytest.mark.parametrize("how", ["cause", "context", "group"])
async def test_what_failed_runs_again_whatever_its_error_was_wrapped_in(how: str) -> None:
    """By code, at any depth; what code had gone on from answers as it did."""
    fails = True
    tries: Counter[str] = Counter()

    async def leaf(x: int, ctx: Context) -> int:
        tries[ctx.path] += 1
        if fails:
            raise ConnectionError("down")
        return x

    async def inner(x: int, ctx: Context) -> int:
        return await ctx.run(leaf, x)

    async def outer(x: int, ctx: Context) -> int:
        with suppress(ConnectionError):
            await ctx.run(leaf, x)
        try:
            return await ctx.run(inner, x)
        except ConnectionError as error:
            if how == "group":
                raise ExceptionGroup("several", [ValueError(), error]) from None
            raise ValueError from (error if how == "cause" else None)

    journal = MemoryJournal()
    with pytest.raises(StepFailed):
        await run(outer, 3, journal=journal, run_id=RUN)
    fails = False
    assert (await resume(outer, RUN, journal=journal)).output == 3
    assert tries == {"outer/leaf": 1, "outer/inner/leaf": 2}


@pytest.mark.parametrize("branch", [False, True])
async def test_a_limit_inside_a_run_goes_on_from_what_was_spent(branch: bool) -> None:
    """That of a step, and that of a branch."""
    model = FunctionModel(lambda _: "said")
    agent = Agent("agent", model=model)

    async def code(x: int, ctx: Context) -> int:
        for n in range(5):
            await ctx.run(agent, f"{n}")
        return x

    graph = Graph("graph")
    graph.edge(START, words)
    graph.edge(words, code, each=True, budget=Budget(model_calls=3) if branch else None)
    graph.edge(code, END, join=collect)

    async def around(x: int, ctx: Context) -> int:
        return await ctx.run(code, x, budget=Budget(model_calls=3))

    node: Any = graph if branch else around
    journal = MemoryJournal()
    with pytest.raises(BudgetExceeded, match="model_calls"):
        await run(node, 3, journal=journal, run_id=RUN)
    events = await journal.events(RUN)
    [*_, last] = [i for i, e in enumerate(events) if isinstance(e, ev.StepFinished) and e.path.endswith("chat")]
    for at in range(3, last):
        asked = len(kinds(events[:at], ev.UsageRecorded))
        model.requests.clear()
        with pytest.raises(BudgetExceeded, match="model_calls"):
            await resume(node, RUN, journal=await journal_of(RUN, events[:at]))
        assert len(model.requests) in {3 - asked, 3 - len(kinds(events[:at], ev.UsageReserved))}


async def words(x: int) -> list[int]:
    return [x]
