"""Spans of random runs, with failures, attempts, cancellation and segments: none is lost, left open or in the wrong
place."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from agentrt import END, START, AgentrtError, Budget, Context, Graph, Retry, run
from agentrt.events import Event, RunStarted, StepRetried, StepStarted
from agentrt.tracing import spans as spans_module
from tests.cases import cases
from tests.randomgraphs import Builder, Outcomes, Step, digest

if TYPE_CHECKING:
    from tests.tracing.conftest import Spans

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
    """Call another step now and then, before doing what the outcomes say."""

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
        return await super().invoke(ctx, value)


def _tried(node: Step, mood: int) -> Step:
    node.retry = AGAIN if mood % 2 else None
    return node


class Busy(Builder):
    """Build graphs of callers, some of which are tried again."""

    def __init__(self, seed: int, failing: int) -> None:
        super().__init__(seed, failing, size=5)
        self.outcomes = Moods(seed, failing)

    def _node(self) -> Step:
        self._names += 1
        return _tried(Caller(f"n{self._names}", self.outcomes), self._names)


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


def _nested(seed: int, failing: int) -> Graph[Any, Any]:
    """Return a random graph, as it is or inside another one; sometimes tried again as a whole."""
    graph = Busy(seed, failing).build()
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
    return next(e.name for e in watch.events if isinstance(e, RunStarted))


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


@settings(cases(40), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6),
    failing=st.sampled_from([0, 10, 30, 60]),
    cancel_after=st.one_of(st.just(0), st.integers(1, 60)),
    concurrency=st.sampled_from([1, 2, 100]),
    most=st.sampled_from([3, 7, 3000]),
    steps=st.one_of(st.none(), st.none(), st.integers(1, 30)),
)
def test_every_step_has_its_spans(
    spans: Spans, seed: int, failing: int, cancel_after: int, concurrency: int, most: int, steps: int | None
) -> None:
    """Whatever happens, every step that started has one span, ended, in its place; no context is left behind."""
    spans.clear()
    current.clear()
    watch, begun, complaints = Run(cancel_after), Begun(), Complaints()
    spans.provider.add_span_processor(begun)
    logs = [logging.getLogger(name) for name in ("agentrt", "opentelemetry")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans_module, "MOST_SPANS", most)
        for log in logs:
            log.addHandler(complaints)
        try:
            anyio.run(_watched, watch, seed, failing, concurrency, steps)
        finally:
            for log in logs:
                log.removeHandler(complaints)
            processors = spans.provider._active_span_processor
            processors._span_processors = processors._span_processors[:1]
    assert complaints.said == []
    assert begun.open == 0
    if not watch.events:  # it could not fit its budget
        assert spans.all == []
        return
    check(watch, spans.all)
