"""Setup: where spans and metrics go. The SDK is imported when `configure` is called, and not before."""

from __future__ import annotations

import atexit
import logging
import threading
from typing import TYPE_CHECKING, Final, Self

import anyio.to_thread
from opentelemetry import trace

from agentrt.tracing import content
from agentrt.tracing.endpoints import Protocol, metric_exporter, named, protocol_of, span_exporter, target, wanted

if TYPE_CHECKING:
    from types import TracebackType

    from agentrt.tracing.export import CountingExporter, CountingProvider
    from agentrt.tracing.meters import SwitchedMeterProvider

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that `flush` and `shutdown` wait for the collector."""
_UNWINDING: Final = 0.5
"""Seconds more for the exporters to end what was given up: over gRPC they do at once, over HTTP they cannot."""

_logger = logging.getLogger("agentrt")


def configure(
    *,
    endpoint: str | None = None,
    protocol: Protocol | None = None,
    service_name: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Tracing:
    """Send the spans and metrics of this process to an OpenTelemetry collector, such as Jaeger, by OTLP.

    What is not given comes from the standard environment (`OTEL_EXPORTER_OTLP_ENDPOINT`, `…_PROTOCOL`, `…_HEADERS`,
    `OTEL_SERVICE_NAME`, `OTEL_METRIC_EXPORT_INTERVAL`); without a protocol port 4318 means HTTP and everything else
    gRPC. `OTEL_METRICS_EXPORTER=none` or `OTEL_TRACES_EXPORTER=none` switches one of them off, and where the
    environment has an endpoint for one alone the other is not sent. To a collector that takes no metrics none are sent.
    Where a tracer provider is installed already nothing is set up, and a log line says so; a meter provider is left
    alone. `timeout` is in seconds: what `shutdown` and `flush` wait. Raises `AgentrtError` for a protocol that there is
    not.
    """
    if not _free():
        _logger.warning("spans go where the tracer provider sends them that this process has: configure() leaves it")
        return Tracing(None, None, timeout)
    spans = protocol_of("traces", endpoint, protocol) if wanted("traces", endpoint) else None
    measures = protocol_of("metrics", endpoint, protocol) if wanted("metrics", endpoint) else None
    provider, exporter = _traces(spans, endpoint, service_name) if spans else (None, None)
    meters = _meters(measures, endpoint, service_name, exporter) if measures else None
    return Tracing(provider, exporter, timeout, meters)


def _traces(
    protocol: Protocol, endpoint: str | None, service_name: str | None
) -> tuple[CountingProvider, CountingExporter]:
    from agentrt.tracing.export import MOST_IN_BATCH, MOST_IN_BATCH_WITH_CONTENT, MOST_QUEUED, CountingExporter

    exporter = CountingExporter(span_exporter(protocol, endpoint), target("traces", endpoint, protocol))
    provider = _provider(service_name)
    most_in_batch = MOST_IN_BATCH_WITH_CONTENT if content.captured() else MOST_IN_BATCH
    provider.export_to(exporter, most_queued=MOST_QUEUED, most_in_batch=most_in_batch)
    return provider, exporter


def _meters(
    protocol: Protocol, endpoint: str | None, service_name: str | None, spans: CountingExporter | None
) -> SwitchedMeterProvider | None:
    """Return this process's meter provider, set to send; None if it is the user's own."""
    from opentelemetry import metrics

    from agentrt.tracing.export import described
    from agentrt.tracing.meters import ForgivingExporter, SwitchedMeterProvider

    provider = metrics.get_meter_provider()
    if not isinstance(provider, SwitchedMeterProvider):
        if not type(provider).__module__.startswith("opentelemetry.metrics"):
            return None
        provider = SwitchedMeterProvider()
        metrics.set_meter_provider(provider)
    if not provider.closed:
        return None
    exporter = ForgivingExporter(
        metric_exporter(protocol, endpoint),
        target("metrics", endpoint, protocol),
        silent=lambda: spans is not None and spans.lost > 0,
    )
    provider.export_to(exporter, described(service_name))
    return provider


def _free() -> bool:
    """Say whether this process has no tracer provider, or one of our own that was shut down."""
    from agentrt.tracing.export import CountingProvider

    provider = trace.get_tracer_provider()
    return (
        provider.closed if isinstance(provider, CountingProvider) else isinstance(provider, trace.ProxyTracerProvider)
    )


def _provider(service_name: str | None) -> CountingProvider:
    """Return the provider of this process, which can be installed only once."""
    from agentrt.tracing.export import CountingProvider

    provider = trace.get_tracer_provider()
    if not isinstance(provider, CountingProvider):
        provider = CountingProvider(service_name)
        trace.set_tracer_provider(provider)
    return provider


def requested() -> bool:
    """Say whether the environment names a collector."""
    return bool(named("traces") or named("metrics"))


class Tracing:
    """Hold what `configure` set up; use it with `with` or `async with`, so that the last spans and metrics are sent.

    Nothing here blocks longer than the time-out and half a second, whether or not a collector is there; the `async`
    ways wait in a thread, off the event loop. Without either it is shut down when the process ends.
    """

    def __init__(
        self,
        provider: CountingProvider | None,
        exporter: CountingExporter | None,
        timeout: float,
        meters: SwitchedMeterProvider | None = None,
    ) -> None:
        self._provider = provider
        self._exporter = exporter
        self._meters = meters
        self._timeout = timeout
        self._closing = threading.Event()
        self._closed = threading.Event()
        if provider is not None or meters is not None:
            # Started now, since a thread cannot be started any more when the process ends.
            threading.Thread(target=self._close, name="agentrt tracing", daemon=True).start()
            atexit.register(self.shutdown)
        else:
            self._closing.set()

    @property
    def signal(self) -> str:
        """Return what is sent, in one word: `trace`, or `metrics` where they alone are, or nothing."""
        return "trace" if self._provider is not None else "metrics" if self._meters is not None else ""

    @property
    def dropped(self) -> int:
        """Return how many spans were lost: evicted from a full queue, or not taken by the collector."""
        return 0 if self._provider is None else self._provider.dropped

    async def flush(self) -> bool:
        """Send what has ended, off the event loop; say whether all of it was taken within the time-out."""
        return await anyio.to_thread.run_sync(self.flush_sync, abandon_on_cancel=True)

    def flush_sync(self) -> bool:
        """Send what has ended, blocking; say whether all of it was taken within the time-out."""
        if self._closing.is_set():
            return True
        before = self.dropped
        taken: list[bool] = []
        sender = threading.Thread(target=lambda: taken.append(self._send()), name="agentrt tracing flush", daemon=True)
        sender.start()
        sender.join(self._timeout)
        return taken == [True] and self.dropped == before

    def _send(self) -> bool:
        if self._provider is not None:
            self._provider.force_flush()
        return self._meters is None or self._meters.force_flush(self._timeout)

    def shutdown(self) -> None:
        """Send what is left, blocking, and stop; what ends later is not traced."""
        if self._closing.is_set():
            return
        self._closing.set()
        if not self._closed.wait(self._timeout):
            self._give_up()
            self._closed.wait(_UNWINDING)
        atexit.unregister(self.shutdown)

    def _close(self) -> None:
        """Send what is left, in a thread that can be left behind: a request over HTTP cannot be ended."""
        self._closing.wait()
        if self._provider is not None:
            self._provider.shutdown()
        if self._meters is not None:
            self._meters.shutdown(self._timeout)
        self._closed.set()

    def _give_up(self) -> None:
        """Wait no longer for a collector that does not answer."""
        if self._exporter is not None:
            self._exporter.shutdown()
        if self._meters is not None:
            self._meters.give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.shutdown)
