"""Spans of random runs, with failures, attempts, cancellation, segments and parts: none is lost, left open or in the
wrong place."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from agentrt import END, START, AgentrtError, Budget, Context, Graph, Retry, resume, run
from agentrt.events import Event, QuestionAnswered, RunResumed, RunStarted, StepRetried, StepStarted, Traced
from agentrt.stores import MemoryJournal
from agentrt.tracing import spans as spans_module
from tests.cases import cases
from tests.journals import journal_of
from tests.randomgraphs import Builder, Outcomes, Step, digest

if TYPE_CHECKING:
    from tests.tracing.conftest import Spans

Checker: TypeAlias = "Callable[[Run, list[str], list[str]], None]"
current: list[tuple[str, trace.Span]] = []
"""The span that was current in each step, by its path."""
AGAIN = Retry(attempts=3, backoff=0.0, on=ValueError)


class Moods(Outcomes):
    """Let a step that fails do better, or worse, the next time."""

    def __init__(self, seed: int, failing: int) -> None:
        super().__init__(seed, failing)
        self.calls: Counter[str] = Counter()

    def __call__(self, path: str, value: object) -> int | ValueError:
        self.calls[path] += 1
        if digest(self.seed, "fails", path, self.calls[path]) % 100 < self.failing:
            return ValueError(path)
        return digest(self.seed, path, value) % 24


class Caller(Step):
    """Call another step now and then, and ask people, before doing what the outcomes say."""

    def __init__(self, name: str, outcomes: Outcomes, *, asking: bool) -> None:
        super().__init__(name, outcomes)
        self.asking = asking

    async def invoke(self, ctx: Context, value: Any, /) -> Any:
        current.append((ctx.path, trace.get_current_span()))
        mood = digest(self.outcomes.seed, "calls", ctx.path) % 8
        if mood >= 6:
            called: Graph[Any, Any] = Graph("called", retry=AGAIN if mood % 2 else None)
            called.chain(START, Step("inner", self.outcomes), END)
            await ctx.run(called, 1)
        elif mood == 0:
            await ctx.map(_tried(Step("inner", self.outcomes), mood), [1, 2])
        elif mood < 3:
            await ctx.run(_tried(Step("inner", self.outcomes), mood), 1)
        if self.asking and digest(self.outcomes.seed, "asks", ctx.path) % 3 == 0:
            await ctx.ask("How many?", int)
        return await super().invoke(ctx, value)


def _tried(node: Step, mood: int) -> Step:
    node.retry = AGAIN if mood % 2 else None
    return node


class Busy(Builder):
    """Build graphs of callers, some of which are tried again, and some ask people."""

    def __init__(self, seed: int, failing: int, *, asking: bool) -> None:
        super().__init__(seed, failing, size=5)
        self.outcomes = Moods(seed, failing)
        self._asking = asking

    def _node(self) -> Step:
        self._names += 1
        return _tried(Caller(f"n{self._names}", self.outcomes, asking=self._asking), self._names)


@dataclass
class Run:
    """Watch one run: its events, the spans that began, and what was complained about."""

    cancel_after: int
    scope: anyio.CancelScope | None = None
    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if len(self.events) == self.cancel_after and self.scope is not None:
            self.scope.cancel()

    def started(self) -> Counter[str]:
        return Counter(e.path for e in self.events if isinstance(e, StepStarted))

    def retried(self) -> Counter[str]:
        return Counter(e.path for e in self.events if isinstance(e, StepRetried))


class Begun(SpanProcessor):
    """Count the spans that began and have not ended."""

    def __init__(self) -> None:
        self.open = 0

    def on_start(self, span: object, parent_context: object = None) -> None:
        self.open += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.open -= 1


class Complaints(logging.Handler):
    """Keep what the context API and the runtime complain about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _nested(seed: int, failing: int, *, asking: bool = False) -> Graph[Any, Any]:
    """Return a random graph, as it is or inside another one; sometimes tried again as a whole."""
    graph = Busy(seed, failing, asking=asking).build()
    graph.retry = AGAIN if seed % 3 == 0 else None
    if seed % 2:
        return graph
    outer: Graph[Any, Any] = Graph("outer")
    outer.chain(START, graph, END)
    return outer


async def _watched(watch: Run, seed: int, failing: int, concurrency: int, steps: int | None) -> None:
    budget = None if steps is None else Budget(steps=steps)
    with anyio.CancelScope() as watch.scope, contextlib.suppress(AgentrtError):
        await run(_nested(seed, failing), 7, observers=[watch], run_id="r", concurrency=concurrency, budget=budget)
    assert trace.get_current_span() is trace.INVALID_SPAN


def _path(span: ReadableSpan) -> str:
    """Return the path of the step that a span belongs to; the root's is its name."""
    attributes = span.attributes or {}
    found = attributes.get("agentrt.node.path") or attributes.get("agentrt.step.path")
    return str(found or attributes["gen_ai.workflow.name"])


def check(watch: Run, spans: list[ReadableSpan]) -> None:
    """Each step has its spans, below the step around it: a node, or an operation where code called a graph."""
    final = [s for s in spans if "continued" not in (s.attributes or {}).values()]
    graphs = {e.path for e in watch.events if isinstance(e, StepStarted) and e.kind == "graph"}
    root = _root(watch)
    started, retried = watch.started(), watch.retried()
    started.pop(root, None)
    nodes = Counter(_path(s) for s in final if s.name.startswith("node "))
    assert nodes == Counter({p: n for p, n in started.items() if p not in graphs or p.rpartition("/")[0] in graphs})
    operations = Counter(_path(s) for s in final if s.name.startswith("invoke_workflow ") and s.parent is not None)
    assert operations == Counter({p: n + retried[p] for p, n in started.items() if p in graphs})
    attempts = Counter(_path(s) for s in final if s.name.startswith("attempt "))
    assert set(attempts) == set(retried)
    for path, times in attempts.items():
        assert retried[path] < times <= retried[path] + watch.started()[path]
    check_places(root, spans)
    for path, span in current:
        assert isinstance(span, ReadableSpan)
        assert _path(span) == path


def _root(watch: Run) -> str:
    return next(e.name for e in watch.events if isinstance(e, RunStarted | RunResumed))


def check_places(root: str, spans: list[ReadableSpan]) -> None:
    """Each span has ended, after it began, and lies below the step around it, in one trace."""
    first = next(s.context.trace_id for s in spans if (s.attributes or {}).get("agentrt.run.segment") == 1)
    by_id = {s.context.span_id: s for s in spans}
    for span in spans:
        assert (span.attributes or {})["agentrt.run.id"] == "r"
        assert span.end_time is not None
        assert span.start_time is not None
        assert span.end_time >= span.start_time
        if span.parent is None:
            assert _path(span) == root
            continue
        above = by_id[span.parent.span_id]
        assert above.context.trace_id == span.context.trace_id
        in_place = _path(above) in (_path(span), _path(span).rpartition("/")[0])
        assert in_place or (_path(above) == root and span.context.trace_id != first)


@contextmanager
def traced(spans: Spans, most: int) -> Iterator[Begun]:
    """Let traces have so many spans, and nobody complain; count the spans that are open."""
    begun, complaints = Begun(), Complaints()
    spans.clear()
    current.clear()
    spans.provider.add_span_processor(begun)
    logs = [logging.getLogger(name) for name in ("agentrt", "opentelemetry")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans_module, "MOST_SPANS", most)
        for log in logs:
            log.addHandler(complaints)
        try:
            yield begun
        finally:
            for log in logs:
                log.removeHandler(complaints)
            processors = spans.provider._active_span_processor
            processors._span_processors = processors._span_processors[:1]
    assert complaints.said == []
    assert begun.open == 0


CASES = settings(cases(40), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
SEEDS = st.integers(0, 10**6)
FAILING = st.sampled_from([0, 10, 30, 60])
CANCEL_AFTER = st.one_of(st.just(0), st.integers(1, 60))
CONCURRENCY = st.sampled_from([1, 2, 100])
MOST = st.sampled_from([3, 7, 3000])


@CASES
@given(
    seed=SEEDS,
    failing=FAILING,
    cancel_after=CANCEL_AFTER,
    concurrency=CONCURRENCY,
    most=MOST,
    steps=st.one_of(st.none(), st.none(), st.integers(1, 30)),
)
def test_every_step_has_its_spans(
    spans: Spans, seed: int, failing: int, cancel_after: int, concurrency: int, most: int, steps: int | None
) -> None:
    """Whatever happens, every step that started has one span, ended, in its place; no context is left behind."""
    watch = Run(cancel_after)
    with traced(spans, most):
        anyio.run(_watched, watch, seed, failing, concurrency, steps)
    if not watch.events:  # it could not fit its budget
        assert spans.all == []
        return
    check(watch, spans.all)


@dataclass
class Part:
    """Say how one part of a run ends: cancelled after so many events, if any, and with so much of it on record."""

    cancel_after: int
    kept: float


async def _in_parts(seed: int, failing: int, concurrency: int, parts: list[Part], check_part: Checker) -> None:
    """Run a graph whose steps ask people, and go on with it, a question answered each time."""
    graph, before = _nested(seed, failing, asking=True), list[Event]()
    journal = MemoryJournal()
    for part in parts:
        watch = Run(part.cancel_after)
        options: Any = {"observers": [watch], "concurrency": concurrency}
        with anyio.CancelScope() as watch.scope, contextlib.suppress(AgentrtError):
            if before:
                await resume(graph, "r", journal=journal, **options)
            else:
                await run(graph, 7, journal=journal, run_id="r", **options)
        assert trace.get_current_span() is trace.INVALID_SPAN
        events = await journal.events("r")
        check_part(watch, _traced(before), _traced(events))
        before = events[: len(before) + 1 + int(part.kept * len(watch.events))]
        journal = await journal_of("r", before)
        for question in (await journal.questions("r"))[:1]:
            asked = question.asked
            await journal.answer("r", QuestionAnswered(asked.path, asked.at + 9, "answer", "ann", value=3))
        before = await journal.events("r")


def _traced(events: Sequence[Event]) -> list[str]:
    """Return where the record says last that the run is traced, if it does."""
    return [e.carrier["traceparent"][:52] for e in events if isinstance(e, Traced)][-1:]


def _place(context: trace.SpanContext | None) -> str:
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}"


@CASES
@given(
    seed=SEEDS,
    failing=st.sampled_from([0, 0, 10]),
    concurrency=CONCURRENCY,
    most=MOST,
    parts=st.lists(
        st.builds(
            Part,
            cancel_after=st.one_of(st.just(0), st.just(0), st.integers(3, 60)),
            kept=st.one_of(st.just(1.0), st.floats(0, 1)),
        ),
        min_size=2,
        max_size=5,
    ),
)
def test_every_part_of_a_run_has_its_spans(
    spans: Spans, seed: int, failing: int, concurrency: int, most: int, parts: list[Part]
) -> None:
    """Where steps wait for people, or die: each part has ended all its spans, and is linked as the record says."""

    def check_part(watch: Run, before: list[str], after: list[str]) -> None:
        assert begun.open == 0
        if watch.events:  # the run had not ended before
            check(watch, spans.all)
            roots = {(s.attributes or {})["agentrt.run.segment"]: s for s in spans.all if s.parent is None}
            assert [_place(link.context) for link in roots[1].links] == before
            assert [_place(roots[len(roots)].context)] == after
        spans.clear()
        current.clear()

    with traced(spans, most) as begun:
        anyio.run(_in_parts, seed, failing, concurrency, parts, check_part)
