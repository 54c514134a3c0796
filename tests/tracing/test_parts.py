"""Spans of runs in several parts: what waits for people, and what goes on, in this process or another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

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
    Price,
    StopReason,
    collect,
    fork,
    replay,
    resume,
    run,
    tool,
)
from agentrt import events as ev
from agentrt.messages import ToolMessage
from agentrt.recorded import Recorded
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionModel, call
from agentrt.tracing import content
from agentrt.tracing import spans as spans_module
from tests.journals import journal_of, kinds

if TYPE_CHECKING:
    from tests.tracing.conftest import Spans

pytestmark = pytest.mark.anyio
RUN = "r"


@tool(approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


async def same(n: Any) -> Any:
    return n


async def thrice(n: Any, ctx: Context) -> Any:
    return await ctx.map(same, [n] * 3)


async def quiz(n: int, ctx: Context) -> int:
    return n + await ctx.ask("How many?", int, timeout=60.0, default=5)


def again(work: Callable[..., Any], name: str) -> FunctionNode[Any, Any]:
    """Return a function as one more node."""
    return FunctionNode(work, name=name)


def chain(*nodes: object) -> Graph[object, object]:
    graph: Graph[object, object] = Graph("chain")
    graph.chain(START, *nodes, END)
    return graph


def clerk() -> Agent[object, str]:
    def say(request: ModelRequest) -> Any:
        last = request.messages[-1]
        return last.text if isinstance(last, ToolMessage) else call("pay", amount=20)

    return Agent("clerk", model=FunctionModel(say, price=Price.per_million(input=1, output=2)), tools=[pay])


def roots(spans: Spans) -> Sequence[ReadableSpan]:
    return spans.named("invoke_workflow chain")


def place(context: trace.SpanContext) -> tuple[int, int]:
    return context.trace_id, context.span_id


def leads_to(span: ReadableSpan) -> list[tuple[str, tuple[int, int]]]:
    """Return the types of a span's links, and where they lead."""
    return [(str((link.attributes or {})["agentrt.link.type"]), place(link.context)) for link in span.links]


def carried(event: ev.Traced) -> tuple[int, int]:
    _, trace_id, span_id, _ = event.carrier["traceparent"].split("-")
    return int(trace_id, 16), int(span_id, 16)


def opening(journal_events: Sequence[ev.Event]) -> Sequence[ev.RunResumed]:
    return kinds(journal_events, ev.RunResumed)


async def answered(journal: MemoryJournal, verdict: str, value: object = None, by: str = "ann") -> None:
    """Answer the open question, two minutes after it was asked."""
    (question,) = await journal.questions(RUN)
    asked = question.asked
    given = ev.QuestionAnswered(path=asked.path, at=asked.at + 120, verdict=verdict, by=by, value=value, because="fine")
    await journal.answer(RUN, given)


async def test_a_run_that_waits_has_ended_its_spans(spans: Spans) -> None:
    """Root and steps are exported while people are asked; waiting is no error."""
    await run(chain(clerk()), "Pay.", journal=MemoryJournal(), run_id=RUN)
    assert spans.tree() == [
        "invoke_workflow chain",
        "  node clerk",
        "    invoke_agent clerk",
        "      chat function",
        "      execute_tool pay",
        "        node approve",
    ]
    (root,) = roots(spans)
    assert root.attributes["agentrt.run.status"] == root.attributes["agentrt.run.stop_reason"] == "waiting"
    outcomes = {
        s.name: s.attributes.get("agentrt.node.outcome", s.attributes.get("agentrt.step.outcome")) for s in spans.all
    }
    assert outcomes == {
        "invoke_workflow chain": None,
        "node clerk": "waiting",
        "invoke_agent clerk": "waiting",
        "chat function": "done",
        "execute_tool pay": "waiting",
        "node approve": "waiting",
    }
    assert all(s.status.status_code is StatusCode.UNSET and "error.type" not in s.attributes for s in spans.all)
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_question_is_told_on_its_step(spans: Spans) -> None:
    """What kind it is, and until when it waits; not what it says."""
    await run(chain(quiz), 1, journal=MemoryJournal(), run_id=RUN)
    step = spans.one("node ask")
    (asked,) = step.events
    assert (asked.name, step.attributes["agentrt.question.kind"]) == ("agentrt.question.asked", "ask")
    assert dict(asked.attributes) == {
        "agentrt.step.path": "chain/quiz/ask",
        "agentrt.question.kind": "ask",
        "agentrt.question.timeout_ms": pytest.approx(60_000),
    }


async def test_who_answered_and_after_how_long_is_told_when_the_run_goes_on(spans: Spans) -> None:
    """On the step that asked, in the trace of the part that goes on; what had finished before has no span there."""
    journal = MemoryJournal()
    await run(chain(same, clerk()), "Pay.", journal=journal, run_id=RUN)
    await answered(journal, "approve")
    spans.clear()
    assert (await resume(chain(same, clerk()), RUN, journal=journal)).output == "paid 20"
    assert spans.tree() == [
        "invoke_workflow chain",
        "  node clerk",
        "    invoke_agent clerk",
        "      chat function",
        "      execute_tool pay",
        "        node approve",
    ]
    step = spans.one("node approve")
    (event,) = step.events
    told = {
        "agentrt.question.verdict": "approve",
        "agentrt.question.by": "ann",
        "agentrt.question.wait_ms": pytest.approx(120_000),
    }
    assert (event.name, event.attributes) == (
        "agentrt.question.answered",
        {"agentrt.step.path": "chain/clerk/pay/approve", **told},
    )
    assert step.start_time <= event.timestamp <= step.end_time
    assert {name: step.attributes[name] for name in told} == told
    assert step.attributes["agentrt.node.outcome"] == "done"
    (root,) = roots(spans)
    assert (root.attributes["agentrt.run.status"], root.attributes["agentrt.run.attempt"]) == ("done", 2)


async def test_what_is_gone_through_once_more_has_no_span(spans: Spans) -> None:
    """A finished step that used its branch's memory is: it was traced when it ran."""
    author = Agent("author", model=FunctionModel(lambda request: "so"), history="branch")
    graph = chain(author, again(thrice, "three"), clerk())
    journal = MemoryJournal()
    await run(graph, "?", journal=journal, run_id=RUN)
    await answered(journal, "approve")
    spans.clear()
    await resume(graph, RUN, journal=journal)
    assert spans.named("node author") == spans.named("node three") == spans.named("node same") == []
    assert [s.name for s in spans.all if s.parent and s.parent.span_id == roots(spans)[0].context.span_id] == [
        "node clerk"
    ]


async def test_an_answer_is_told_once(spans: Spans) -> None:
    """A run that goes on again says nothing of what it had made use of before."""
    journal = MemoryJournal()
    graph = chain(quiz, again(quiz, "second"))
    await run(graph, 1, journal=journal, run_id=RUN)
    await answered(journal, "answer", 2)
    await resume(graph, RUN, journal=journal)
    await answered(journal, "answer", 3)
    assert (await resume(graph, RUN, journal=journal)).output == 6
    first, second = opening(await journal.events(RUN))
    assert [[a.path for a in e.answers] for e in (first, second)] == [["chain/quiz/ask"], ["chain/second/ask"]]
    assert first.answers[0] == ev.QuestionAnswered("chain/quiz/ask", first.answers[0].at, "answer", "ann", waited=120.0)


async def test_a_question_that_nobody_answered_in_time_is_told(spans: Spans) -> None:
    """By its own step: `time-out` answered it, after so long."""
    journal = MemoryJournal()
    await run(chain(quiz), 1, journal=journal, run_id=RUN)
    later = [
        msgspec.structs.replace(e, at=e.at - 90, until=e.at - 30) if isinstance(e, ev.QuestionAsked) else e
        for e in await journal.events(RUN)
    ]
    spans.clear()
    assert (await resume(chain(quiz), RUN, journal=await journal_of(RUN, later))).output == 6
    (event,) = spans.one("node ask").events
    assert event.name == "agentrt.question.answered"
    assert event.attributes["agentrt.question.by"] == "time-out"
    assert event.attributes["agentrt.question.wait_ms"] == pytest.approx(90_000, abs=1000)


async def test_what_people_read_and_said_is_content(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the spans only where content is asked for: what they were shown, then what they said."""
    for capture in (False, True):
        spans.clear()
        monkeypatch.setenv(content.VARIABLE, str(capture).lower())
        journal = MemoryJournal()
        await run(chain(clerk()), "Pay.", journal=journal, run_id=RUN)
        await answered(journal, "approve", {"amount": 424_242_424_242})
        await resume(chain(clerk()), RUN, journal=journal)
        text = " ".join(s.to_json() for s in spans.all)
        assert [word in text for word in ("May pay be called", "424242424242", "fine")] == [capture] * 3
    asked, approved = spans.named("node approve")
    (event,) = asked.events
    assert event.attributes["agentrt.question.prompt"] == "May pay be called?"
    assert json.loads(event.attributes["agentrt.question.about"])["arguments"] == {"amount": 20}
    assert json.loads(approved.attributes["agentrt.question.value"]) == {"amount": 424_242_424_242}
    assert approved.attributes["agentrt.question.because"] == "fine"


async def test_an_answers_value_is_content(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the step's output."""
    monkeypatch.setenv(content.VARIABLE, "true")
    journal = MemoryJournal()
    await run(chain(quiz), 1, journal=journal, run_id=RUN)
    await answered(journal, "answer", 41)
    await resume(chain(quiz), RUN, journal=journal)
    assert spans.named("node ask")[1].attributes["agentrt.question.value"] == "41"


async def test_each_part_is_linked_to_the_one_before(spans: Spans) -> None:
    """Through the record alone: where its root is stands right after the event that opens the part."""
    journal = MemoryJournal()
    await run(chain(clerk()), "Pay.", journal=journal, run_id=RUN)
    assert (await resume(chain(clerk()), RUN, journal=journal)).stop_reason is StopReason.WAITING
    await answered(journal, "approve")
    await resume(chain(clerk()), RUN, journal=journal)
    events = await journal.events(RUN)
    traced = [carried(e) for e in kinds(events, ev.Traced)]
    assert [place(root.context) for root in roots(spans)] == traced
    assert len({trace_id for trace_id, _ in traced}) == 3
    assert [leads_to(root) for root in roots(spans)] == [[], [("resume", traced[0])], [("resume", traced[1])]]
    assert [e.trace for e in opening(events)] == [e.carrier for e in kinds(events, ev.Traced)[:2]]
    for before, after in itertools.pairwise(events):
        assert isinstance(before, ev.RunStarted | ev.RunResumed) == isinstance(after, ev.Traced)


async def test_a_part_that_nobody_traced_is_passed_over(spans: Spans) -> None:
    """The link leads to the latest part that has a trace."""
    journal = MemoryJournal()
    await run(chain(clerk()), "Pay.", journal=journal, run_id=RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", None)
        await resume(chain(clerk()), RUN, journal=journal)
    await resume(chain(clerk()), RUN, journal=journal)
    first, third = roots(spans)
    assert leads_to(third) == [("resume", place(first.context))]
    assert third.attributes["agentrt.run.attempt"] == 3


async def test_the_roots_of_a_run_add_up_to_its_bill(spans: Spans) -> None:
    """Each counts what was used in its own part."""
    journal = MemoryJournal()
    await run(chain(clerk()), "Pay.", journal=journal, run_id=RUN)
    await answered(journal, "approve")
    used = (await resume(chain(clerk()), RUN, journal=journal)).usage
    for name in ("input_tokens", "output_tokens", "model_calls", "tool_calls", "steps"):
        parts = [root.attributes[f"agentrt.usage.{name}"] for root in roots(spans)]
        assert sum(parts) == getattr(used, name)
        assert all(part >= 0 for part in parts)
    assert sum(root.attributes["agentrt.cost.usd"] for root in roots(spans)) == pytest.approx(used.usd)


async def test_a_run_that_goes_on_in_its_process_is_linked_to_where_it_stopped(spans: Spans) -> None:
    """The same way, without a journal, as often as it goes on."""
    with pytest.raises(BudgetExceeded) as stopped:
        await run(chain(thrice), 1, budget=Budget(steps=2))
    assert stopped.value.result is not None
    with pytest.raises(BudgetExceeded) as second_stop:
        await stopped.value.result.resume(budget=Budget(steps=3))
    assert second_stop.value.result is not None
    result = await second_stop.value.result.resume(budget=Budget(steps=9))
    first, second, third = roots(spans)
    assert leads_to(second) == [("resume", place(first.context))]
    assert leads_to(third) == [("resume", place(second.context))]
    assert [root.attributes["agentrt.run.attempt"] for root in (first, second, third)] == [1, 2, 3]
    assert sum(root.attributes["agentrt.usage.steps"] for root in (first, second, third)) == result.usage.steps


async def test_what_was_cut_off_is_told_on_the_root(spans: Spans) -> None:
    """How many steps died with their process, and what is charged for calls whose bill nobody knows."""
    journal = MemoryJournal()
    await run(chain(same, clerk()), "Pay.", journal=journal, run_id=RUN)
    events = await journal.events(RUN)
    sent = next(i for i, e in enumerate(events) if isinstance(e, ev.UsageReserved))
    reserved = events[sent].usage
    (whole,) = roots(spans)
    cut = await journal_of(RUN, events[: sent + 1])
    spans.clear()
    await resume(chain(same, clerk()), RUN, journal=cut)
    (root,) = roots(spans)
    assert leads_to(root) == [("resume", place(whole.context))]
    assert root.attributes["agentrt.steps.abandoned"] == 3
    assert root.attributes["agentrt.usage.in_doubt_tokens"] == reserved.tokens > 0
    assert root.attributes["agentrt.cost.in_doubt_usd"] == reserved.usd > 0
    assert root.attributes["agentrt.cost.usd"] > reserved.usd
    assert len(spans.named("node clerk")) == 1


async def test_what_was_cut_off_is_recorded_once() -> None:
    """Also where the budget stops the part that goes on, and another follows it in the same process."""
    graph = chain(Agent("author", model=FunctionModel(lambda request: "so")), thrice)
    journal = MemoryJournal()
    with pytest.raises(BudgetExceeded):
        await run(graph, "?", journal=journal, run_id=RUN, budget=Budget(steps=5))
    events = await journal.events(RUN)
    sent = next(i for i, e in enumerate(events) if isinstance(e, ev.UsageReserved))
    cut = await journal_of(RUN, events[: sent + 1])
    with pytest.raises(BudgetExceeded) as stopped:
        await resume(graph, RUN, journal=cut)
    assert stopped.value.result is not None
    result = await stopped.value.result.resume(budget=Budget(steps=30))
    record = await cut.events(RUN)
    assert [e.path for e in kinds(record, ev.StepAbandoned)] == ["chain/author/chat", "chain/author", "chain"]
    assert Recorded(record).total == result.usage


async def test_a_fork_is_linked_to_the_run_it_parts_from(spans: Spans) -> None:
    """Its first part to the latest trace of the past they share, the next to its own; nothing was abandoned."""
    journal = MemoryJournal()
    await run(chain(same, quiz), 1, journal=journal, run_id=RUN)
    await fork(chain(same, quiz), RUN, journal=journal, at="chain/quiz", new_id="f")
    await resume(chain(same, quiz), "f", journal=journal)
    first, second, third = roots(spans)
    assert leads_to(second) == [("fork", place(first.context))]
    assert leads_to(third) == [("resume", place(second.context))]
    assert [root.attributes["agentrt.run.attempt"] for root in (second, third)] == [1, 2]
    assert [root.attributes["agentrt.run.id"] for root in (first, second, third)] == [RUN, "f", "f"]
    assert "agentrt.steps.abandoned" not in second.attributes


async def test_a_replay_is_linked_to_what_it_goes_through(spans: Spans) -> None:
    """It says that it is one, and uses nothing."""
    journal = MemoryJournal()
    author = Agent("author", model=FunctionModel(lambda request: "so"))
    await run(chain(author), "?", journal=journal, run_id=RUN)
    await replay(chain(author), RUN, journal=journal)
    first, second = roots(spans)
    assert leads_to(second) == [("replay", place(first.context))]
    assert second.attributes["agentrt.run.replayed"] is True
    assert [root.attributes["agentrt.usage.input_tokens"] > 0 for root in (first, second)] == [True, False]
    assert "agentrt.run.replayed" not in first.attributes


async def test_a_part_in_several_traces_is_left_at_the_last(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """That one leads back to the others."""
    monkeypatch.setattr(spans_module, "MOST_SPANS", 4)

    async def count_up(n: int) -> list[int]:
        return list(range(n))

    graph: Graph[int, Any] = Graph("chain")
    graph.edge(START, count_up)
    graph.edge(count_up, same, each=True)
    graph.edge(same, quiz, join=len)
    graph.edge(quiz, END)
    journal = MemoryJournal()
    await run(graph, 6, journal=journal, run_id=RUN)
    segments = roots(spans)
    events = await journal.events(RUN)
    traced = [carried(e) for e in kinds(events, ev.Traced)]
    assert traced == [place(segments[0].context), place(segments[-1].context)]
    assert isinstance(events[-1], ev.RunParked)
    await resume(graph, RUN, journal=journal)
    assert leads_to(roots(spans)[len(segments)]) == [("resume", traced[-1])]


async def test_where_a_run_is_traced_is_recorded_only_where_it_is_kept(spans: Spans) -> None:
    """Observers of a run without a journal are told nothing of it."""
    seen: list[ev.Event] = []
    await run(chain(same), 1, observers=[seen.append])
    assert kinds(seen, ev.Traced) == []
    journal = MemoryJournal()
    await run(chain(same), 1, observers=[seen.append], journal=journal, run_id=RUN)
    assert kinds(seen, ev.Traced) == kinds(await journal.events(RUN), ev.Traced) != []


@pytest.mark.parametrize("provided", [False, True], ids=["no tracer", "not sampled"])
async def test_a_run_without_a_trace_records_none(no_provider: None, provided: bool) -> None:
    """Nobody could follow a link there."""
    provider = TracerProvider(sampler=ALWAYS_OFF)
    if provided:
        trace.set_tracer_provider(provider)
    journal = MemoryJournal()
    await run(chain(quiz), 1, journal=journal, run_id=RUN)
    await resume(chain(quiz), RUN, journal=journal)
    events = await journal.events(RUN)
    assert kinds(events, ev.Traced) == []
    assert opening(events)[0].trace == {}
    provider.shutdown()


@pytest.mark.parametrize("carrier", [{}, {"traceparent": "nonsense"}, {"other": "x"}])
def test_a_carrier_that_leads_nowhere_is_no_link(spans: Spans, carrier: dict[str, str]) -> None:
    """Records may come from anywhere, older versions too."""
    observe = spans_module.run_observer(RUN)
    assert observe is not None
    observe(ev.RunResumed(run_id=RUN, at=1.0, name="chain", limits={}, trace=carrier))
    observe(ev.RunCancelled(run_id=RUN, at=2.0, usage=ev.Usage()))
    (root,) = roots(spans)
    assert root.links == ()


async def test_what_goes_on_without_waiting_is_drawn_beside_what_waits(spans: Spans) -> None:
    """Branches of a fork: those that ask end as waiting, the others as done."""

    async def items(n: int) -> list[int]:
        return list(range(n))

    async def maybe(i: int, ctx: Context) -> int:
        return await ctx.ask("How many?", int) if i == 1 else i

    graph: Graph[int, Any] = Graph("chain")
    graph.edge(START, items)
    graph.edge(items, maybe, each=True)
    graph.edge(maybe, END, join=collect)
    journal = MemoryJournal()
    await run(graph, 3, journal=journal, run_id=RUN)
    maybes = sorted(spans.named("node maybe"), key=lambda s: str(s.attributes["agentrt.node.path"]))
    assert [s.attributes["agentrt.node.outcome"] for s in maybes] == ["done", "waiting", "done"]
    await answered(journal, "answer", 7)
    spans.clear()
    assert (await resume(graph, RUN, journal=journal)).output == [0, 7, 2]
    assert [s.attributes["agentrt.node.path"] for s in spans.named("node maybe")] == ["chain/maybe[1]"]
