"""Complaints: what the exporters say when they cannot send, kept from the log, where every retry would be a line."""

from __future__ import annotations

import logging
from typing import Final

from agentrt.tracing.endpoints import Signal

_GRPC: Final = "opentelemetry.exporter.otlp.proto.grpc.exporter"
_HTTP: Final[dict[Signal, str]] = {
    "traces": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "metrics": "opentelemetry.exporter.otlp.proto.http.metric_exporter",
}


class Complaint(logging.Filter):
    """Keep the last complaint of one signal's exporter, and keep it from the log."""

    def __init__(self, signal: Signal) -> None:
        super().__init__()
        self.text = ""
        self._signal = signal
        self._loggers = [logging.getLogger(_GRPC), logging.getLogger(_HTTP[signal])]

    def filter(self, record: logging.LogRecord) -> bool:
        text = " ".join(record.getMessage().split())
        if record.name == _GRPC and self._signal not in text and "retry" not in text:
            return True  # both signals' exporters share this log
        if record.levelno >= logging.WARNING and "shutdown" not in text.lower():
            self.text = text
        return False

    def listen(self) -> None:
        """Hear each complaint first: a filter of the SDK's takes those of one kind, whoever has them, for one."""
        for log in self._loggers:
            log.filters.insert(0, self)

    def unlisten(self) -> None:
        """Let the exporters write to the log themselves again."""
        for log in self._loggers:
            log.removeFilter(self)
