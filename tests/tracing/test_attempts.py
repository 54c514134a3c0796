"""Spans of steps that are tried again, held back or exhausted, and of traces that grow large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from agentrt import (
    END,
    START,
    Agent,
    Budget,
    BudgetExceeded,
    Cached,
    Context,
    Fallback,
    FunctionNode,
    Graph,
    RateLimited,
    Retry,
    StepFailed,
    collect,
    run,
    tool,
)
from agentrt.events import (
    BudgetExhausted,
    CacheHit,
    ErrorInfo,
    Event,
    RateLimitWaited,
    StepCancelled,
    StepFinished,
    StepRetried,
    StepStarted,
    UsageRecorded,
)
from agentrt.testing import FunctionModel, ScriptedModel, call
from agentrt.tracing import spans as spans_module
from agentrt.usage import Usage
from tests.tracing.chats import chat_run

if TYPE_CHECKING:
    from tests.tracing.conftest import Measures, Spans

pytestmark = pytest.mark.anyio

AT_ONCE = Retry(attempts=3, backoff=0.0, on=ValueError)


async def same(n: int) -> int:
    return n


def chain(*nodes: object, name: str = "chain") -> Graph[object, object]:
    graph: Graph[object, object] = Graph(name)
    graph.chain(START, *nodes, END)
    return graph


def unlucky(times: int, retry: Retry = AT_ONCE) -> FunctionNode[int, int]:
    """Return a node that calls `same` and then fails, so many times."""
    tries = []

    async def work(n: int, ctx: Context) -> int:
        tries.append(n)
        found = await ctx.run(same, n)
        if len(tries) <= times:
            raise ValueError(f"no luck {len(tries)}")
        return found

    return FunctionNode(work, retry=retry)


async def test_each_attempt_of_a_retried_node_has_a_span(spans: Spans) -> None:
    """What the first did lies beside it, since nobody knew; the others hold what they did. Afterwards nothing is
    current."""
    await run(chain(unlucky(2)), 1)
    assert spans.tree() == [
        "invoke_workflow chain",
        "  node work",
        "    attempt work",
        "    attempt work",
        "      node same",
        "    attempt work",
        "      node same",
        "    node same",
    ]
    attempts = spans.named("attempt work")
    assert [a.attributes["agentrt.retry.attempt"] for a in attempts] == [1, 2, 3]
    assert [a.attributes["agentrt.node.outcome"] for a in attempts] == ["failed", "failed", "done"]
    assert [a.status.status_code for a in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_spans_of_user_code_lie_below_their_attempt(spans: Spans) -> None:
    """What a library traces inside a second attempt belongs to that attempt."""
    tries = []

    async def query(n: int) -> int:
        spans.provider.get_tracer("app").start_span(f"query {len(tries)}").end()
        tries.append(n)
        if len(tries) < 2:
            raise ValueError("once")
        return n

    await run(chain(FunctionNode(query, retry=AT_ONCE)), 1)
    second = spans.named("attempt query")[1]
    assert spans.one("query 1").parent.span_id == second.context.span_id
    assert spans.one("query 0").parent.span_id == spans.one("node query").context.span_id


async def test_a_failed_attempt_tells_why_and_what_follows(spans: Spans) -> None:
    """Error, reason, limit and delay are on the attempt, the number of attempts on the node."""
    await run(chain(unlucky(1)), 1)
    expected = {
        "error.type": "ValueError",
        "agentrt.retry.attempt": 1,
        "agentrt.retry.max": 3,
        "agentrt.retry.delay_ms": 0.0,
        "agentrt.retry.reason": "no luck 1",
    }
    assert expected.items() <= dict(spans.named("attempt work")[0].attributes).items()
    node = spans.one("node work")
    assert (node.attributes["agentrt.node.attempts"], node.status.status_code) == (2, StatusCode.UNSET)


async def test_a_step_without_retries_has_no_attempts(spans: Spans) -> None:
    """A policy alone draws nothing."""
    await run(chain(unlucky(0)), 1)
    assert spans.named("attempt work") == []
    assert "agentrt.node.attempts" not in spans.one("node work").attributes


async def test_the_last_attempt_fails_with_the_node(spans: Spans) -> None:
    """When attempts are used up, attempt, node and root are errors."""
    with pytest.raises(StepFailed):
        await run(chain(unlucky(9)), 1)
    failed = [s.name for s in spans.all if s.status.status_code is StatusCode.ERROR]
    assert sorted(failed) == [*["attempt work"] * 3, "invoke_workflow chain", "node work"]


async def test_attempts_of_an_agent_hold_its_operation(spans: Spans) -> None:
    """Each attempt has its own `invoke_agent`, with the chats and the usage of that attempt."""
    answers = iter([RateLimited("slow"), "fine"])

    def answer(request: object) -> str:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    agent = Agent("a", model=FunctionModel(answer, name="test/m"))
    agent.retry = Retry(backoff=0.0)
    result = await run(chain(agent), "hi")
    assert spans.tree() == [
        "invoke_workflow chain",
        "  node a",
        "    attempt a",
        "    attempt a",
        "      invoke_agent a",
        "        chat m",
        "    invoke_agent a",
        "      chat m",
    ]
    first, second = spans.named("invoke_agent a")
    assert (first.attributes["error.type"], first.attributes["agentrt.step.outcome"]) == ("RateLimited", "failed")
    used = [s.attributes.get("gen_ai.usage.output_tokens", 0) for s in (first, second)]
    assert (sum(used), used[1] > 0) == (result.usage.output_tokens, True)


async def test_a_retried_root_graph_goes_on_below_its_root(spans: Spans) -> None:
    """The run is one root; the second attempt of the graph lies below it."""
    failing = iter([True, False])

    async def first(n: int) -> int:
        if next(failing):
            raise ValueError("once")
        return n

    graph: Graph[int, int] = Graph("g", retry=AT_ONCE)
    graph.chain(START, first, END)
    await run(graph, 1)
    assert spans.tree() == ["invoke_workflow g", "  attempt g", "  attempt g", "    node first", "  node first"]
    assert spans.one("invoke_workflow g").attributes["agentrt.run.stop_reason"] == "done"


async def test_a_retried_tool_is_one_call_with_attempts(spans: Spans) -> None:
    """Attempts of a tool lie below its agent; each has the call's id."""
    tries = []

    @tool(retry=AT_ONCE)
    async def look(n: int) -> int:
        """Look."""
        tries.append(n)
        if len(tries) < 2:
            raise ValueError("blind")
        return n

    await run(Agent("a", model=ScriptedModel([call("look", n=1), "seen"]), tools=[look]), "?")
    calls = spans.named("execute_tool look")
    assert [c.attributes["agentrt.step.outcome"] for c in calls] == ["failed", "done"]
    assert len({c.attributes["gen_ai.tool.call.id"] for c in calls}) == 1


def replay(spans: Spans, *events: Event) -> None:
    """Trace a run of one chat in which these events happen."""
    observer = spans_module.run_observer("r")
    assert observer is not None
    for event in chat_run(*events):
        observer(event)


def retried(model: str | None = None) -> StepRetried:
    return StepRetried(path="g/m", at=2.0, attempt=1, error=ErrorInfo("RateLimited", "slow"), delay=3.0, model=model)


def test_the_next_attempt_does_something_after_the_delay(spans: Spans) -> None:
    """It is due at once; the model is asked after the delay, another one where the event says so."""
    replay(spans, retried("other/n"), StepFinished(path="g/m", at=6.0, output=""))
    second = spans.named("attempt m")[1]
    chat = spans.one("chat n")
    assert (second.start_time, chat.start_time, chat.end_time) == (2 * 10**9, 5 * 10**9, 6 * 10**9)
    assert chat.attributes["gen_ai.provider.name"] == "other"
    assert spans.named("attempt m")[0].attributes["agentrt.retry.model"] == "other/n"


def test_a_step_cancelled_while_it_is_held_back_leaves_whole_spans(spans: Spans) -> None:
    """The attempt that never began ends where it would have begun."""
    replay(spans, retried(), StepCancelled(path="g/m", at=2.5))
    chat = spans.named("chat m")[1]
    assert (chat.start_time, chat.end_time) == (5 * 10**9, 5 * 10**9)
    assert spans.one("node m").end_time == 2_500_000_000


def test_each_attempt_has_its_own_bill(spans: Spans) -> None:
    """What an attempt used is on its chat, the sum on the node."""
    bills = [UsageRecorded(path="g/m", at=1.5, usage=Usage(output_tokens=n)) for n in (3, 4)]
    replay(spans, bills[0], retried(), bills[1], StepFinished(path="g/m", at=6.0, output=""))
    assert [s.attributes["gen_ai.usage.output_tokens"] for s in spans.named("chat m")] == [3, 4]
    assert spans.one("node m").attributes["agentrt.usage.output_tokens"] == 7


def test_waits_for_a_limit_and_cache_hits_are_events_to_be_found(spans: Spans) -> None:
    """The chat has the events, and attributes that a search finds."""
    waits = [RateLimitWaited(path="g/m", at=1.5, seconds=s) for s in (0.25, 0.5)]
    hit = CacheHit(path="g/m", at=1.5, model="test/m")
    replay(spans, *waits, hit, StepFinished(path="g/m", at=6.0, output=""))
    chat = spans.one("chat m")
    assert [e.name for e in chat.events] == [*["agentrt.ratelimit.wait"] * 2, "agentrt.cache.hit"]
    assert chat.events[0].attributes["agentrt.ratelimit.seconds"] == 0.25
    assert (chat.attributes["agentrt.ratelimit.wait_ms"], chat.attributes["agentrt.chat.cached"]) == (750.0, True)


async def test_a_fallback_asks_the_next_model_in_an_attempt_of_its_own(spans: Spans) -> None:
    """The chat that failed is one of the first model, the next is one of the second."""

    def unavailable(request: object) -> str:
        raise RateLimited("slow")

    first, second = FunctionModel(unavailable, name="test/one"), FunctionModel(lambda r: "yes", name="test/two")
    await run(Agent("a", model=Fallback(first, second)), "?")
    asked = [(s.name, s.attributes["agentrt.step.outcome"]) for s in spans.all if s.name.startswith("chat ")]
    assert asked == [("chat one", "failed"), ("chat two", "done")]
    assert [s.attributes["agentrt.node.outcome"] for s in spans.named("attempt chat")] == ["failed", "done"]


async def test_a_cached_answer_is_told_on_its_chat(spans: Spans) -> None:
    """The second of two equal questions asks no model."""
    model = Cached(FunctionModel(lambda request: "yes", name="test/m"))
    for _ in range(2):
        await run(Agent("a", model=model), "?")
    asked, known = spans.named("chat m")
    assert "agentrt.chat.cached" not in asked.attributes
    assert (known.attributes["agentrt.chat.cached"], known.events[0].name) == (True, "agentrt.cache.hit")
    await model.aclose()


def test_steps_that_were_lost_end_with_the_run(spans: Spans) -> None:
    """A step whose task was lost is cancelled when the run ends, or when its path begins again."""
    again = StepStarted(path="g/m", at=3.0, name="m", kind="chat", input="", attributes={"model": "test/m"})
    replay(spans, again)
    assert [s.attributes["agentrt.step.outcome"] for s in spans.named("chat m")] == ["cancelled", "cancelled"]
    assert {s.end_time for s in spans.named("node m")} == {3 * 10**9, 9 * 10**9}


def test_an_exhausted_scope_with_a_partial_output(spans: Spans) -> None:
    """Its outcome is `partial`, its event names the policy; the root says that the budget is exceeded."""
    exhausted = BudgetExhausted(path="g", at=3.0, dimension="tokens", policy="partial")
    replay(spans, StepFinished(path="g/m", at=2.0, output=""), exhausted)
    root = spans.one("invoke_workflow g")
    (event,) = root.events
    assert (event.name, event.attributes["agentrt.budget.policy"]) == ("agentrt.budget.exhausted", "partial")
    assert (root.attributes["error.type"], root.status.status_code) == ("budget_exceeded", StatusCode.UNSET)


async def test_outcomes_at_exhaustion(spans: Spans) -> None:
    """The refused step is exhausted; the agent whose budget it was has a partial output."""
    model = ScriptedModel([call("add", a=1, b=2)] * 5)

    @tool
    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    agent = Agent("a", model=model, tools=[add], budget=Budget(model_calls=2, on_exhausted="partial"))
    await run(chain(agent), "?")
    assert spans.one("node a").attributes["agentrt.node.outcome"] == "partial"
    assert spans.one("invoke_workflow chain").attributes["agentrt.run.stop_reason"] == "done"
    with pytest.raises(BudgetExceeded):
        await run(chain(unlucky(0), name="short"), 1, budget=Budget(steps=2))
    assert spans.one("invoke_workflow short").attributes["agentrt.run.stop_reason"] == "budget_exceeded"


async def test_a_retried_function_is_counted(measures: Measures) -> None:
    """Retries are counted by node, whatever the node is."""
    await run(chain(unlucky(2)), 1)
    (point,) = measures.points("agentrt.step.retries")
    assert (point.value, point.attributes["agentrt.node.name"]) == (2, "work")


async def test_a_large_graph_inside_goes_on_in_new_traces(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep the work is, no trace gets large; graph and root begin again, linked to where they were."""
    monkeypatch.setattr(spans_module, "MOST_SPANS", 10)

    async def count_up(n: int) -> list[int]:
        return list(range(n))

    inner: Graph[int, list[int]] = Graph("inner")
    inner.edge(START, count_up)
    inner.edge(count_up, same, each=True)
    inner.edge(same, END, join=collect)
    await run(chain(inner, name="outer"), 40)
    sizes: dict[int, int] = {}
    for span in spans.all:
        sizes[span.context.trace_id] = sizes.get(span.context.trace_id, 0) + 1
    assert (max(sizes.values()), len(sizes)) == (11, 6)
    segment = {s.context.trace_id: s.attributes["agentrt.run.segment"] for s in spans.named("invoke_workflow outer")}
    workflows = sorted(spans.named("invoke_workflow inner"), key=lambda w: segment[w.context.trace_id])
    assert [w.attributes["agentrt.step.outcome"] for w in workflows] == [*["continued"] * 5, "done"]
    assert [w.links[0].context for w in workflows[1:]] == [w.context for w in workflows[:-1]]
    parents = {w.context.span_id: w.context.trace_id for w in workflows}
    assert all(parents[s.parent.span_id] == s.context.trace_id for s in spans.named("node same"))
    assert len(spans.named("node same")) == 40


async def test_a_deep_recursion_does_not_fill_traces_with_itself(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the step at work begins again in a new trace, not those around it."""
    monkeypatch.setattr(spans_module, "MOST_SPANS", 10)

    async def down(n: int, ctx: Context) -> int:
        return await ctx.run(down, n - 1) if n else 0

    await run(down, 60)
    assert len(spans.all) <= 61 + 2 * 8
    assert all(s.end_time is not None for s in spans.all)


async def test_cancelled_while_it_waits_to_be_tried_again(spans: Spans) -> None:
    """Cancelling the run in between leaves no span open and no context behind."""
    retry = Retry(attempts=2, backoff=1000.0, on=ValueError)
    with anyio.move_on_after(0.01):
        await run(chain(unlucky(9, retry)), 1)
    assert [s.attributes["agentrt.node.outcome"] for s in spans.named("attempt work")] == ["failed", "cancelled"]
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_an_unsampled_run_is_tried_again_all_the_same(no_provider: None) -> None:
    """What the sampler leaves out has no spans, whatever happens in it."""
    provider = TracerProvider(sampler=ALWAYS_OFF)
    trace.set_tracer_provider(provider)
    assert (await run(chain(unlucky(1)), 1)).output == 1
    assert trace.get_current_span() is trace.INVALID_SPAN
    provider.shutdown()
