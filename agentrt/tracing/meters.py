"""Meters: what of metrics is built on the OpenTelemetry SDK. Only `configure` imports this module."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.metrics import Meter, MeterProvider, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics import MetricsTimeoutError
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from agentrt.tracing.complaints import Complaint

_REFUSALS: Final = ("UNIMPLEMENTED", "code: 404", "code: 405")
"""What collectors of traces alone, such as Jaeger, answer to metrics."""
_logger = logging.getLogger("agentrt")


class ForgivingExporter(MetricExporter):
    """Pass metrics on; say once that they do not arrive, and send no more where nobody takes metrics.

    `silent` says whether somebody else has told already that nobody is there.
    """

    def __init__(self, inner: MetricExporter, target: str, silent: Callable[[], bool] = lambda: False) -> None:
        super().__init__(inner._preferred_temporality, inner._preferred_aggregation)  # noqa: SLF001 - as the SDK's readers do
        self.refused = False
        self.failed = 0
        self._inner = inner
        self._target = target
        self._silent = silent
        self._complaint = Complaint("metrics")
        self._complaint.listen()
        self._closed = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        if self.refused or self._closed:
            self.failed += self._closed
            return MetricExportResult.FAILURE
        result = self._inner.export(metrics_data, timeout_millis, **kwargs)
        if result is not MetricExportResult.SUCCESS:
            self._tell()
        return result

    def _tell(self) -> None:
        reason = self._complaint.text[:300] or "no answer in time"
        self.refused = any(refusal in reason for refusal in _REFUSALS)
        self.failed += 1
        if self.refused:
            _logger.info("%s takes no metrics: none are sent (%s)", self._target, reason)
        elif self.failed == 1 and not self._closed and not self._silent():
            _logger.warning("metrics do not reach %s: is a collector running there? (%s)", self._target, reason)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Give up what is being sent."""
        if not self._closed:
            self._closed = True
            self._inner.shutdown(timeout_millis)

    def unlisten(self) -> None:
        self._complaint.unlisten()


class SwitchedMeterProvider(MeterProvider):
    """Provide the meters of one SDK provider after another: a process can set its provider only once."""

    def __init__(self) -> None:
        super().__init__()
        self._inner: SdkMeterProvider | None = None
        self._reader: PeriodicExportingMetricReader | None = None
        self._exporter: ForgivingExporter | None = None

    @property
    def closed(self) -> bool:
        return self._inner is None

    def export_to(self, exporter: ForgivingExporter, resource: Resource) -> None:
        """Measure from now on, and send it every minute, or as OTEL_METRIC_EXPORT_INTERVAL says."""
        self._reader = PeriodicExportingMetricReader(exporter)
        self._inner = SdkMeterProvider([self._reader], resource, shutdown_on_exit=False)
        self._exporter = exporter

    def get_meter(
        self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Any = None
    ) -> Meter:
        inner = self._inner or NoOpMeterProvider()
        return inner.get_meter(name, version, schema_url, attributes)

    def force_flush(self, timeout: float) -> bool:
        """Send what was measured, blocking at most so many seconds; say whether it was taken."""
        reader, exporter = self._reader, self._exporter
        if self._inner is None or reader is None or exporter is None:
            return True
        before = exporter.failed
        try:
            reader.collect(1000 * timeout)
        except MetricsTimeoutError:
            return False
        return exporter.refused or exporter.failed == before

    def give_up(self) -> None:
        """Stop sending at once, whatever is under way."""
        if self._exporter is not None:
            self._exporter.shutdown()

    def shutdown(self, timeout: float) -> None:
        """Send what was measured last, blocking at most so many seconds, and measure no more."""
        inner, exporter = self._inner, self._exporter
        if inner is None or exporter is None:
            return
        self._inner = None
        inner.shutdown(1000 * timeout)
        exporter.unlisten()
