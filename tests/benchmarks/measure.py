"""One measurement in this process, printed as one JSON line; `bench.py` runs each in a process of its own.

measure.py pair WORK N [traced]    CPU of floor and subject, alternating, the best of each
measure.py memory WORK N SIDE      growth of the peak memory of `floor` or `subject`, after a small warm-up
measure.py import SIDE             CPU of importing
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import anyio
import floor
import subject

ROUNDS = 5
IMPORTS = {
    "floor": "import anyio, pydantic; pydantic.BaseModel; import opentelemetry.trace",
    "subject": "import agentrt; agentrt.Agent, agentrt.Graph",
}


def pair(work: str, n: int, traced: bool) -> dict[str, Any]:
    """Return the CPU of floor and subject a node, in microseconds, each the best of some alternating runs."""
    if traced:
        _record_spans()
    sides = {m.__name__: getattr(m, work)(n) for m in (floor, subject) if hasattr(m, work)}
    best = dict.fromkeys(sides, float("inf"))
    for turn in range(_rounds(n) + 1):
        for side, task in sides.items():
            gc.collect()
            cpu = anyio.run(_timed, task)
            if turn:
                best[side] = min(best[side], cpu)
    return {side: cpu / n * 1e6 for side, cpu in best.items()}


def _rounds(n: int) -> int:
    return 2 if n > 20_000 else ROUNDS


async def _timed(task: Callable[[], Any]) -> float:
    began = time.process_time()
    await task()
    return time.process_time() - began


def memory(work: str, n: int, side: str) -> dict[str, Any]:
    """Return by how much one run raises the peak memory, in KiB a node."""
    module: ModuleType = {"floor": floor, "subject": subject}[side]
    anyio.run(getattr(module, work)(50))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    anyio.run(getattr(module, work)(n))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {side: grown / n}


def importing(side: str) -> dict[str, Any]:
    """Return the CPU of one import, in seconds, in an interpreter of its own."""
    code = f"import time; c = time.process_time(); exec({IMPORTS[side]!r}); print(time.process_time() - c)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return {side: float(done.stdout)}


def _record_spans() -> None:
    """Let the OpenTelemetry SDK record every span, batch them, and send them nowhere."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)


def main(command: str, *arguments: str) -> None:
    match command, arguments:
        case "pair", (work, n, *traced):
            row = pair(work, int(n), bool(traced))
        case "memory", (work, n, side):
            row = memory(work, int(n), side)
        case "import", (side,):
            row = importing(side)
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(row))


if __name__ == "__main__":
    main(*sys.argv[1:])
