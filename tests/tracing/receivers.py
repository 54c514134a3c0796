"""Collectors on the loopback that keep what they are sent, over gRPC and over HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol, Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Receiver(Protocol):
    """Receive OTLP at `endpoint` while entered; one that takes no metrics is like Jaeger."""

    endpoint: str
    requests: list[ExportTraceServiceRequest]
    measures: list[ExportMetricsServiceRequest]
    refused: int

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class GrpcReceiver(TraceServiceServicer):
    """Receive over gRPC."""

    def __init__(self, *, takes_metrics: bool = True) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self._metrics = GrpcMetrics(takes_metrics)
        self._server = grpc.server(ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(self, self._server)
        add_MetricsServiceServicer_to_server(self._metrics, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:
        self.requests.append(request)
        return ExportTraceServiceResponse()

    @property
    def measures(self) -> list[ExportMetricsServiceRequest]:
        return self._metrics.measures

    @property
    def refused(self) -> int:
        return self._metrics.refused

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(None).wait()


class GrpcMetrics(MetricsServiceServicer):
    """Receive metrics over gRPC, or refuse as a server does that does not know them."""

    def __init__(self, takes_metrics: bool) -> None:
        self.measures: list[ExportMetricsServiceRequest] = []
        self.refused = 0
        self._takes_metrics = takes_metrics

    def Export(self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext) -> object:
        if not self._takes_metrics:
            self.refused += 1
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown service")
        self.measures.append(request)
        return ExportMetricsServiceResponse()


class HttpReceiver:
    """Receive over HTTP."""

    def __init__(self, *, takes_metrics: bool = True) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.measures: list[ExportMetricsServiceRequest] = []
        self.refused = 0
        self.paths: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.add(self.path)
                if self.path == "/v1/traces":
                    receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                elif takes_metrics:
                    receiver.measures.append(ExportMetricsServiceRequest.FromString(body))
                else:
                    receiver.refused += 1
                self.send_response(200 if takes_metrics or self.path == "/v1/traces" else 404)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def spans_of(receiver: Receiver) -> list[Span]:
    """Return every span that was received."""
    scopes = [s for r in receiver.requests for resource in r.resource_spans for s in resource.scope_spans]
    return [span for scope in scopes for span in scope.spans]


def metrics_of(receiver: Receiver) -> dict[str, Metric]:
    """Return the metrics that were received last, by name."""
    resources = [resource for r in receiver.measures for resource in r.resource_metrics]
    return {m.name: m for resource in resources for scope in resource.scope_metrics for m in scope.metrics}


def text_attributes(attributes: object) -> dict[str, str]:
    """Return the attributes that are text."""
    return {a.key: a.value.string_value for a in attributes}  # type: ignore[attr-defined]
