"""Export: what is built on the OpenTelemetry SDK, and counts what is lost. Only `configure` imports this module."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from agentrt.tracing.complaints import Complaint
from agentrt.tracing.conventions import RUN_ID

MOST_QUEUED: Final = 65_536
"""Spans that wait to be sent. With the SDK's own 2,048 a swarm lost a third of its spans."""
MOST_IN_BATCH: Final = 2048
MOST_IN_BATCH_WITH_CONTENT: Final = 128
"""A gRPC message over 4 MiB loses its whole batch, and with content a span holds up to 16 KiB."""

MOST_RUNS: Final = 1024
"""Runs whose losses are told apart."""

_logger = logging.getLogger("agentrt")


class Losses:
    """Count lost spans by their run; the runs that lost some first are forgotten first."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, run_id: str) -> None:
        self._counts[run_id] = self._counts.get(run_id, 0) + 1
        if len(self._counts) > MOST_RUNS:
            del self._counts[next(iter(self._counts))]

    def of(self, run_id: str) -> int:
        return self._counts.get(run_id, 0)


class CountingExporter(SpanExporter):
    """Pass batches on, count those that are lost, and say so once, with the reason."""

    def __init__(self, inner: SpanExporter, target: str) -> None:
        self.taken = 0
        self.lost = 0
        self.lost_of = Losses()
        self._inner = inner
        self._target = target
        self._complaint = Complaint("traces")
        self._complaint.listen()
        self._lock = threading.Lock()
        self._sending: Sequence[ReadableSpan] = ()
        self._closed = threading.Event()
        self._told = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        self._sending = spans
        result = SpanExportResult.FAILURE if self._closed.is_set() else self._inner.export(spans)
        self._sent(taken=result is SpanExportResult.SUCCESS)
        return result

    def _sent(self, *, taken: bool) -> None:
        """Count what was being sent as lost unless it was taken, or has been counted before."""
        with self._lock:
            spans, self._sending = self._sending, ()
        if spans and not taken:
            self.lost += len(spans)
            for span in spans:
                self.lost_of.add(_run_of(span))
            self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            reason = self._complaint.text[:300] or "no answer in time"
            _logger.warning("spans do not reach %s: is a collector running there? (%s)", self._target, reason)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Give up what is being sent: it is lost, as far as anybody here will know."""
        if not self._closed.is_set():
            self._closed.set()
            self._sent(taken=False)
            self._inner.shutdown()

    def unlisten(self) -> None:
        """Let the exporters write to the log themselves again."""
        self._complaint.unlisten()


class CountingProcessor(SpanProcessor):
    """Queue ended spans for the exporter, and count those that a full queue evicts."""

    def __init__(self, exporter: CountingExporter, *, most_queued: int, most_in_batch: int) -> None:
        self._exporter = exporter
        self._most_queued = most_queued
        self._batches = BatchSpanProcessor(exporter, max_queue_size=most_queued, max_export_batch_size=most_in_batch)
        self._lock = threading.Lock()
        self._evicted = 0
        self._evicted_of = Losses()
        self._waiting: deque[str] = deque()
        self._taken = 0

    @property
    def dropped(self) -> int:
        return self._evicted + self._exporter.lost

    def dropped_of(self, run_id: str) -> int:
        return self._evicted_of.of(run_id) + self._exporter.lost_of.of(run_id)

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            self._waiting.append(_run_of(span))
            for _ in range(self._exporter.taken - self._taken):
                self._waiting.popleft()
                self._taken += 1
            if len(self._waiting) > self._most_queued:  # the queue drops the span that waits longest
                self._evicted += 1
                self._evicted_of.add(self._waiting.popleft())
        self._batches.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]
        self._exporter.unlisten()


class CountingProvider(TracerProvider):
    """Provide tracers, and know how many of their spans were lost."""

    def __init__(self, service_name: str | None) -> None:
        # At exit `Tracing` closes it in bounded time; the SDK's own handler could wait for half a minute.
        super().__init__(resource=described(service_name), shutdown_on_exit=False)
        self._counting: list[CountingProcessor] = []
        self.closed = True

    @property
    def dropped(self) -> int:
        return sum(p.dropped for p in self._counting)

    def dropped_of(self, run_id: str) -> int:
        """Return how many spans of a run were lost so far."""
        return sum(p.dropped_of(run_id) for p in self._counting)

    def export_to(self, exporter: CountingExporter, *, most_queued: int, most_in_batch: int) -> None:
        """Send the spans that end from now on to an exporter."""
        processor = CountingProcessor(exporter, most_queued=most_queued, most_in_batch=most_in_batch)
        self._counting.append(processor)
        self.add_span_processor(processor)
        self.closed = False

    def shutdown(self) -> None:
        self.closed = True
        super().shutdown()


def _run_of(span: ReadableSpan) -> str:
    attributes = span.attributes
    if attributes is None or RUN_ID not in attributes:
        return ""
    return str(attributes[RUN_ID])


def described(service_name: str | None) -> Resource:
    """Describe this process: by the argument, else the environment, else as `agentrt`."""
    resource = Resource.create()
    if service_name or str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service_name or "agentrt"}))
    return resource
