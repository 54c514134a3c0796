"""Endpoints: where each signal goes, by the arguments of `configure` and the standard environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from agentrt.errors import AgentrtError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]
Signal: TypeAlias = Literal["traces", "metrics"]

_DEFAULTS: Final[dict[Protocol, str]] = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}


def named(signal: Signal) -> str | None:
    """Return the endpoint that the environment names for a signal."""
    environ = os.environ
    return environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")


def wanted(signal: Signal, endpoint: str | None) -> bool:
    """Say whether a signal is to be sent: not if it is switched off, nor if only the other has an endpoint."""
    if os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none":
        return False
    other: Signal = "traces" if signal == "metrics" else "metrics"
    return bool(endpoint or named(signal)) or not named(other)


def target(signal: Signal, endpoint: str | None, protocol: Protocol) -> str:
    """Return where a signal goes, for people to read."""
    return endpoint or named(signal) or _DEFAULTS[protocol] + (f"/v1/{signal}" if protocol != "grpc" else "")


def protocol_of(signal: Signal, endpoint: str | None, protocol: str | None) -> Protocol:
    """Choose a protocol: the one that is named, else HTTP for port 4318 and the signal's own path, else gRPC."""
    environ = os.environ
    chosen = (
        protocol
        or environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL")
        or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    )
    if chosen in _DEFAULTS:
        return chosen
    if chosen:
        known = " or ".join(_DEFAULTS)
        raise AgentrtError(f"{signal} cannot be sent by {chosen!r}: set OTEL_EXPORTER_OTLP_PROTOCOL to {known}")
    where = endpoint or named(signal) or ""
    url = urlsplit(where if "//" in where else f"//{where}")
    return "http/protobuf" if url.port == 4318 or url.path.endswith(f"/v1/{signal}") else "grpc"


def span_exporter(protocol: Protocol, endpoint: str | None) -> SpanExporter:
    """Build the exporter of spans, which reads the rest of the environment itself."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(endpoint=_with_path(endpoint, "traces"))


def metric_exporter(protocol: Protocol, endpoint: str | None) -> MetricExporter:
    """Build the exporter of metrics, which reads the rest of the environment itself."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    return HttpExporter(endpoint=_with_path(endpoint, "metrics"))


def _with_path(endpoint: str | None, signal: Signal) -> str | None:
    """Complete an endpoint passed by hand as one from the environment is: one for traces stands for metrics too."""
    if endpoint is None:
        return None
    base = endpoint.removesuffix("/v1/traces").removesuffix("/v1/metrics").rstrip("/")
    return f"{base}/v1/{signal}"
