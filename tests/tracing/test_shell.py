"""Traces of what the shell runs: where they go is said by the environment, and told on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agentrt.cli import app
from tests.tracing.receivers import HttpReceiver, spans_of

pytestmark = pytest.mark.usefixtures("no_provider")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write a file for the shell, and forget the module that it makes of it."""
    path = tmp_path / "flow.py"
    path.write_text("def shout(text: str) -> str:\n    return text.upper()\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield f"{path}:shout"
    sys.modules.pop("flow", None)


def shell(*words: str) -> Result:
    return CliRunner().invoke(app, ["run", *words, "--no-store"])


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> HttpReceiver:
    receiver = HttpReceiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    return receiver


@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_is_traced_where_the_environment_says(file: str, collector: HttpReceiver, quiet: bool) -> None:
    """And where that is, unless nothing is to be said."""
    with collector:
        result = shell(file, "hi", *(["--quiet"] if quiet else []))
    assert {s.name for s in spans_of(collector)} == {"invoke_workflow shout", "node shout"}
    assert (f"trace sent to {collector.endpoint}" in result.stderr) is not quiet


def test_metrics_alone_are_told_as_such(file: str, collector: HttpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where traces are switched off."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    with collector:
        result = shell(file, "hi")
    assert (spans_of(collector), len(collector.measures)) == ([], 1)
    assert f"metrics sent to {collector.endpoint}" in result.stderr


@pytest.mark.parametrize("quiet", [False, True])
def test_a_trace_that_is_lost_is_told(file: str, monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    """Always: whoever set an endpoint wants the trace. The run itself is none the worse."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    result = shell(file, "hi", *(["--quiet"] if quiet else []))
    assert (result.exit_code, result.stdout) == (0, "HI\n")
    assert "2 spans of the trace lost: does a collector listen at http://127.0.0.1:1?" in result.stderr
