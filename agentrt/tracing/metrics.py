"""Metrics: an observer that counts and times what a run does, with the OpenTelemetry API alone."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from agentrt.events import (
    BudgetDenied,
    BudgetWaited,
    CacheHit,
    ErrorInfo,
    Event,
    RateLimitWaited,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunParked,
    RunResumed,
    RunStarted,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepRetried,
    StepStarted,
    UsageRecorded,
)
from agentrt.model import ModelResponse
from agentrt.tracing import conventions as c
from agentrt.tracing.endings import error_type, stop_reason
from agentrt.tracing.operations import Attributes, model_named, operation

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter

    from agentrt.options import Observer

_KEPT: Final = (
    c.OPERATION_NAME,
    c.PROVIDER_NAME,
    c.REQUEST_MODEL,
    c.TOOL_NAME,
    c.TOOL_TYPE,
    c.AGENT_NAME,
    c.WORKFLOW_NAME,
)
"""What of an operation's attributes has few values, and so may tell time series apart."""


SHORTEST_WAIT: Final = 0.001
"""Seconds in the queue that count as a wait: measuring each would cost more than a step without one."""


def run_metrics() -> Observer | None:
    """Return an observer that measures a run; None if the process has no meter."""
    if "opentelemetry.metrics" not in sys.modules and "OTEL_PYTHON_METER_PROVIDER" not in os.environ:
        return None  # nobody can have set a provider: the import is spared
    from opentelemetry import metrics

    from agentrt import __version__

    provider = metrics.get_meter_provider()
    if type(provider).__module__.startswith("opentelemetry.metrics"):  # the API's own providers record nothing
        return None
    meter = provider.get_meter("agentrt", __version__)
    return None if isinstance(meter, metrics.NoOpMeter) else RunMetrics(_instruments(meter))


class Instruments:
    """Hold what is measured; a meter has each instrument once."""

    def __init__(self, meter: Meter) -> None:
        client, workflow = c.CLIENT_BUCKETS, c.WORKFLOW_BUCKETS
        asked = _seconds(meter, c.INFERENCE_DURATION, "Duration of model calls.", client)
        self.durations: dict[str, Histogram] = {
            "chat": asked,
            "embeddings": asked,
            "execute_tool": _seconds(meter, c.TOOL_DURATION, "Duration of tool calls.", client),
            "invoke_agent": _seconds(meter, c.AGENT_DURATION, "Duration of agents' turns.", workflow),
            "invoke_workflow": _seconds(meter, c.WORKFLOW_DURATION, "Duration of runs and graphs.", workflow),
        }
        self.first_chunk = _seconds(meter, c.INFERENCE_FIRST_CHUNK, "Time to a model's first chunk.", client)
        self.queued = _seconds(
            meter, c.QUEUE_DURATION, "Time that steps waited for a slot, from a millisecond on.", client
        )
        self.limited = _seconds(meter, c.RATELIMIT_DURATION, "Time that model calls were held back.", client)
        self.budget_waited = _seconds(meter, c.BUDGET_WAIT_DURATION, "Time that reservations waited.", client)
        self.input_tokens = meter.create_counter(c.INFERENCE_INPUT_TOKENS, "{token}", "Tokens read by models.")
        self.output_tokens = meter.create_counter(c.INFERENCE_OUTPUT_TOKENS, "{token}", "Tokens written by models.")
        self.cost = meter.create_counter(c.COST_METRIC, "USD", "What model calls cost.")
        self.cache_hits = meter.create_counter(c.CACHE_HITS, "{call}", "Model calls answered from a cache.")
        self.retries = meter.create_counter(c.RETRIES, "{attempt}", "Attempts that failed and were tried again.")
        self.denials = meter.create_counter(c.BUDGET_DENIALS, "{request}", "Requests that a budget refused.")


def _seconds(meter: Meter, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets)


_instruments = functools.lru_cache(maxsize=4)(Instruments)


class Timed:
    """Hold what is known of an open step: when its attempt began, and the attributes of what it does."""

    __slots__ = ("attributes", "began", "cached", "event")

    def __init__(self, event: StepStarted, began: float) -> None:
        self.event = event
        self.began = began
        self.cached = False
        found = operation(event)
        known = {} if found is None else found[2]
        self.attributes: Attributes = {name: known[name] for name in _KEPT if name in known}


class RunMetrics:
    """Measure one run."""

    def __init__(self, instruments: Instruments) -> None:
        self._to = instruments
        self._open: dict[str, Timed] = {}
        self._run: RunStarted | RunResumed

    def __call__(self, event: Event) -> None:
        if (take := _TAKERS.get(type(event))) is not None:
            take(self, event)

    def start_run(self, event: RunStarted | RunResumed) -> None:
        self._run = event

    def end_run(self, event: RunFinished | RunFailed | RunCancelled | RunParked) -> None:
        """Record how long this part of the run took; steps that wait for people are timed where they end."""
        attributes: Attributes = {c.OPERATION_NAME: "invoke_workflow", c.WORKFLOW_NAME: self._run.name}
        if isinstance(event, RunFailed):
            attributes[c.ERROR_TYPE] = error_type(event.error)
        if isinstance(event, RunParked):
            attributes[c.RUN_STATUS] = stop_reason(event)
        self._to.durations["invoke_workflow"].record(event.at - self._run.at, attributes)
        self._open.clear()

    def start(self, event: StepStarted) -> None:
        if event.kind != "node" or event.attributes is not None:  # nobody measures a function
            self._open[event.path] = Timed(event, event.at)
        if event.waited >= SHORTEST_WAIT:
            self._to.queued.record(event.waited)

    def retry(self, event: StepRetried) -> None:
        """Record an attempt that failed; the next one's time begins after the delay."""
        name = event.path.rpartition("/")[2].partition("#")[0].partition("[")[0]
        self._to.retries.add(1, {c.NODE_NAME: name, c.ERROR_TYPE: error_type(event.error)})
        if (step := self._open.get(event.path)) is None:
            return
        self._record(step, event.at, event.error)
        begun = step.event if event.model is None else model_named(step.event, event.model)
        self._open[event.path] = Timed(begun, event.at + event.delay)

    def end(self, event: StepFinished | StepFailed | StepCancelled) -> None:
        step = self._open.pop(event.path, None)
        if step is None or (step.event.kind == "graph" and event.path == self._run.name):
            return  # the graph that is run ends as the run
        self._record(step, event.at, event.error if isinstance(event, StepFailed) else None)
        if isinstance(event, StepFinished) and isinstance(event.output, ModelResponse):
            self._answered(step, event.output)

    def _record(self, step: Timed, at: float, error: ErrorInfo | None) -> None:
        durations = self._to.durations.get(str(step.attributes.get(c.OPERATION_NAME)))
        if step.cached or at < step.began:  # no model was asked; an attempt cancelled while held back never began
            return
        if durations is not None:
            failed = {} if error is None else {c.ERROR_TYPE: error_type(error)}
            durations.record(at - step.began, {**step.attributes, **failed})

    def _answered(self, step: Timed, response: ModelResponse) -> None:
        if response.first_chunk is not None:
            self._to.first_chunk.record(response.first_chunk, step.attributes)

    def charge(self, event: UsageRecorded) -> None:
        step = self._open.get(event.path)
        attributes = {} if step is None else step.attributes
        self._to.input_tokens.add(max(0, event.usage.input_tokens), attributes)
        self._to.output_tokens.add(max(0, event.usage.output_tokens), attributes)
        if event.usage.cost > 0:
            self._to.cost.add(event.usage.usd, attributes)

    def tell(self, event: RateLimitWaited | CacheHit | BudgetWaited | BudgetDenied) -> None:
        step = self._open.get(event.path)
        attributes = {} if step is None else step.attributes
        match event:
            case RateLimitWaited():
                self._to.limited.record(event.seconds, attributes)
            case CacheHit():
                self._to.cache_hits.add(1, attributes)
                if step is not None:
                    step.cached = True
            case BudgetWaited():
                self._to.budget_waited.record(event.seconds, attributes)
            case BudgetDenied():
                self._to.denials.add(1, {c.BUDGET_DIMENSION: event.dimension})


_TAKERS: Final[Mapping[type[Event], Callable[[RunMetrics, Any], None]]] = {
    **dict.fromkeys((RunStarted, RunResumed), RunMetrics.start_run),
    StepStarted: RunMetrics.start,
    StepRetried: RunMetrics.retry,
    UsageRecorded: RunMetrics.charge,
    **dict.fromkeys((StepFinished, StepFailed, StepCancelled), RunMetrics.end),
    **dict.fromkeys((RunFinished, RunFailed, RunCancelled, RunParked), RunMetrics.end_run),
    **dict.fromkeys((RateLimitWaited, CacheHit, BudgetWaited, BudgetDenied), RunMetrics.tell),
}
