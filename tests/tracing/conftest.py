"""A fresh tracer provider for every test, and a reader of what it recorded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from agentrt.tracing import content


class Spans:
    """Read finished spans."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda s: s.start_time)

    def clear(self) -> None:
        self._exporter.clear()

    def named(self, name: str) -> list[ReadableSpan]:
        return [s for s in self.all if s.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def tree(self) -> list[str]:
        """Return the names, indented below their parents, siblings in the order of their names."""
        return self._below(None, "")

    def _below(self, parent: int | None, indent: str) -> list[str]:
        lines: list[str] = []
        for span in sorted(self.all, key=lambda s: s.name):
            if (span.parent.span_id if span.parent else None) == parent:
                lines += [indent + span.name, *self._below(span.context.span_id, indent + "  ")]
        return lines

    def links(self, span: ReadableSpan) -> list[tuple[str, str]]:
        """Return what a span is linked to: the path of the node and the type of the link."""
        paths = {s.context.span_id: s.attributes["agentrt.node.path"] for s in self.all if s.name.startswith("node ")}
        return [(paths[link.context.span_id], link.attributes["agentrt.link.type"]) for link in span.links]


class Measures:
    """Read what was measured."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def all(self) -> dict[str, Metric]:
        data = self._reader.get_metrics_data()
        resources = data.resource_metrics if data else []
        return {m.name: m for r in resources for scope in r.scope_metrics for m in scope.metrics}

    def points(self, name: str) -> list[HistogramDataPoint | NumberDataPoint]:
        """Return the points of one metric, in the order of their attributes."""
        found = self.all().get(name)
        return sorted(found.data.data_points, key=lambda p: sorted(dict(p.attributes).items())) if found else []


@pytest.fixture
def measures(no_provider: None) -> Iterator[Measures]:
    """Keep metrics in memory."""
    recorded = Measures()
    metrics.set_meter_provider(recorded.provider)
    yield recorded
    recorded.provider.shutdown()


@pytest.fixture
def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process have no providers, whatever other tests installed."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(metrics_internal, "_PROXY_METER_PROVIDER", metrics_internal._ProxyMeterProvider())
    for signal in ("", "TRACES_", "METRICS_"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT", raising=False)
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL", raising=False)
        monkeypatch.delenv(f"OTEL_{signal}EXPORTER", raising=False)
    monkeypatch.delenv(content.VARIABLE, raising=False)


@pytest.fixture
def spans(no_provider: None) -> Iterator[Spans]:
    """Record spans in memory."""
    recorded = Spans()
    trace.set_tracer_provider(recorded.provider)
    yield recorded
    recorded.provider.shutdown()
