"""Traces and metrics: OpenTelemetry spans and measures of runs, by the GenAI semantic conventions.

A run is traced when the process has a tracer provider, and measured when it has a meter provider: your own, or those
that `configure` sets up. Both are made with the OpenTelemetry API alone; only `configure` imports its SDK.

    invoke_workflow {run}             the run: its totals, its budget, how it ended
    └─ node {node}                    one activation of a graph's node, linked to those it follows
       └─ invoke_agent {agent}        what it did: or chat, execute_tool, retrieval, invoke_workflow for a sub-graph
          ├─ chat {model}
          └─ execute_tool {tool}

- The root is the run and carries its totals. A graph that is run is that same span; any other node that is run gets
  its own span beneath: `invoke_workflow a` over `invoke_agent a`.
- Activations of a graph get a `node` span and beneath it the span of what they do; steps that code or an agent calls
  get the latter alone. A function does nothing that the conventions name, so it has a `node` span only.
- A `node` span begins when the step could have run, the span of what it does when it did: a wait in the queue is told
  in `agentrt.queue.wait_ms`, and drawn as a span of its own when it was long.
- A step that is retried has a span for each attempt: `node {node}` over `attempt {node}` over what that attempt did.
  Nobody knows of the first attempt that there will be another, so what it did lies beside its own span.
- After some thousand spans a run goes on in a new trace: root, and the graph or agent at work, begin again with a link
  to where they were.
- A run that waits for people has ended its spans, as `waiting`. Each part of a run that goes on is a trace of its own,
  whose root is linked to that of the part before, or of the run it was forked from: the record says where that is.
- While a step runs its span is the current one, so spans of instrumented libraries, and runs inside runs, are drawn
  beneath it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agentrt.tracing.metrics import run_metrics
from agentrt.tracing.setup import Tracing, configure, requested
from agentrt.tracing.spans import RunSpans, run_observer

if TYPE_CHECKING:
    from agentrt.options import Observer

__all__ = ["Tracing", "carrier_of", "configure", "requested", "run_metrics", "run_observer", "run_observers"]


def run_observers(run_id: str) -> Sequence[Observer]:
    """Return what traces and measures a run: nothing where the process has no provider."""
    return [observer for observer in (run_observer(run_id), run_metrics()) if observer is not None]


def carrier_of(observers: Sequence[Observer]) -> Mapping[str, str]:
    """Return the W3C trace context of the root that these observers draw a run below; empty where none does."""
    return next((observer.carrier for observer in observers if isinstance(observer, RunSpans)), {})
