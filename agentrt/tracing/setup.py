"""Setup: where spans go. The SDK is imported when `configure` is called, and not before."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

import anyio.to_thread
from opentelemetry import trace

from agentrt.errors import AgentrtError
from agentrt.tracing import content

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.sdk.trace.export import SpanExporter

    from agentrt.tracing.export import CountingExporter, CountingProvider

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that `flush` and `shutdown` wait for the collector."""
_DEFAULT_TARGETS: Final[dict[Protocol, str]] = {
    "grpc": "http://localhost:4317",
    "http/protobuf": "http://localhost:4318/v1/traces",
}

_logger = logging.getLogger("agentrt")


def configure(
    *,
    endpoint: str | None = None,
    protocol: Protocol | None = None,
    service_name: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Tracing:
    """Send the spans of this process to an OpenTelemetry collector, such as Jaeger, by OTLP.

    What is not given comes from the standard environment (`OTEL_EXPORTER_OTLP_ENDPOINT`, `…_PROTOCOL`, `…_HEADERS`,
    `OTEL_SERVICE_NAME`); without a protocol port 4318 means HTTP and everything else gRPC. A tracer provider that is
    installed already is left alone, and a log line says so. `timeout` is in seconds: what `shutdown` and `flush` wait.
    Raises `AgentrtError` for a protocol that there is not.
    """
    from agentrt.tracing.export import MOST_IN_BATCH, MOST_IN_BATCH_WITH_CONTENT, MOST_QUEUED, CountingExporter

    if not _free():
        _logger.warning("spans go where the tracer provider sends them that this process has: configure() leaves it")
        return Tracing(None, None, timeout)
    target = endpoint or _named_endpoint()
    chosen = _protocol(target, protocol)
    exporter = CountingExporter(_exporter(chosen, endpoint), target or _DEFAULT_TARGETS[chosen])
    provider = _provider(service_name)
    most_in_batch = MOST_IN_BATCH_WITH_CONTENT if content.captured() else MOST_IN_BATCH
    provider.export_to(exporter, most_queued=MOST_QUEUED, most_in_batch=most_in_batch)
    return Tracing(provider, exporter, timeout)


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
    return bool(_named_endpoint())


class Tracing:
    """Hold what `configure` set up; use it with `with` or `async with`, so that the last spans are sent.

    Nothing here blocks longer than the time-out, whether or not a collector is there; the `async` ways wait in a
    thread, off the event loop. Without either it is shut down when the process ends.
    """

    def __init__(self, provider: CountingProvider | None, exporter: CountingExporter | None, timeout: float) -> None:
        self._provider = provider
        self._exporter = exporter
        self._timeout = timeout
        self._closing = threading.Event()
        self._closed = threading.Event()
        if provider is not None:
            # Started now, since a thread cannot be started any more when the process ends.
            threading.Thread(target=self._watch, name="agentrt tracing", daemon=True).start()
            atexit.register(self.shutdown)

    @property
    def dropped(self) -> int:
        """Return how many spans were lost: evicted from a full queue, or not taken by the collector."""
        return 0 if self._provider is None else self._provider.dropped

    async def flush(self) -> bool:
        """Send what has ended, off the event loop; say whether all of it was taken within the time-out."""
        return await anyio.to_thread.run_sync(self.flush_sync, abandon_on_cancel=True)

    def flush_sync(self) -> bool:
        """Send what has ended, blocking; say whether all of it was taken within the time-out."""
        provider = self._provider
        if provider is None or self._closing.is_set():
            return True
        before = self.dropped
        sender = threading.Thread(target=provider.force_flush, name="agentrt tracing flush", daemon=True)
        sender.start()
        sender.join(self._timeout)
        return not sender.is_alive() and self.dropped == before

    def shutdown(self) -> None:
        """Send what is left, blocking, and stop; what ends later is not traced."""
        if self._provider is None or self._closing.is_set():
            return
        self._closing.set()
        self._provider.shutdown()
        self._closed.set()
        atexit.unregister(self.shutdown)

    def _watch(self) -> None:
        """Give up on a collector that does not answer while this is closing."""
        self._closing.wait()
        if not self._closed.wait(self._timeout) and self._exporter is not None:
            self._exporter.shutdown()

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


def _named_endpoint() -> str | None:
    environ = os.environ
    return environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")


def _protocol(target: str | None, protocol: str | None) -> Protocol:
    environ = os.environ
    named = protocol or environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if named in _DEFAULT_TARGETS:
        return named
    if named:
        known = " or ".join(_DEFAULT_TARGETS)
        raise AgentrtError(f"spans cannot be sent by {named!r}: set OTEL_EXPORTER_OTLP_PROTOCOL to {known}")
    url = urlsplit(target if target and "//" in target else f"//{target or ''}")
    return "http/protobuf" if url.port == 4318 or url.path.endswith("/v1/traces") else "grpc"


def _exporter(protocol: Protocol, endpoint: str | None) -> SpanExporter:
    """Build the exporter, which reads the rest of the environment itself."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    if endpoint is not None and not endpoint.endswith("/v1/traces"):
        endpoint = endpoint.rstrip("/") + "/v1/traces"
    return HttpExporter(endpoint=endpoint)
