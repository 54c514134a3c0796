"""The traces of a run whose process is killed, and that goes on in another, as a collector gets them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from agentrt import events as ev
from agentrt.stores import SqliteJournal
from tests.journals import kinds
from tests.tracing import killed
from tests.tracing.receivers import HttpReceiver, Span, spans_of, text_attributes

pytestmark = pytest.mark.slow  # two processes, each of which imports everything


def part(store: Path, which: str, receiver: HttpReceiver) -> subprocess.CompletedProcess[str]:
    """Run one part of the run in a process of its own."""
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    command = [sys.executable, "-W", "error", killed.__file__, str(store), which]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


async def recorded(path: Path) -> Sequence[ev.Event]:
    journal = SqliteJournal(path)
    try:
        return await journal.events(killed.RUN)
    finally:
        await journal.aclose()


def place(span: Span | Span.Link) -> list[str]:
    return [span.trace_id.hex(), span.span_id.hex()]


def carried(event: ev.Traced) -> list[str]:
    return event.carrier["traceparent"].split("-")[1:3]


def test_a_killed_run_is_linked_to_by_the_part_that_goes_on(tmp_path: Path) -> None:
    """To its root, as the record says, though that died with its process and no collector has it."""
    store = tmp_path / "runs.db"
    with HttpReceiver() as receiver:
        assert part(store, "begin", receiver).returncode == -signal.SIGKILL
        (traced,) = kinds(anyio.run(recorded, store), ev.Traced)
        assert "invoke_workflow killed" not in [s.name for s in spans_of(receiver)]
        assert part(store, "resume", receiver).stdout == "HELP!\n"
    (root,) = [s for s in spans_of(receiver) if s.name == "invoke_workflow killed"]
    (link,) = root.links
    assert place(link) == carried(traced)
    assert text_attributes(link.attributes) == {"agentrt.link.type": "resume"}
    assert link.trace_id != root.trace_id
    assert text_attributes(root.attributes)["agentrt.run.status"] == "done"
    numbers = {a.key: a.value.int_value for a in root.attributes}
    assert (numbers["agentrt.run.attempt"], numbers["agentrt.steps.abandoned"]) == (2, 2)
    _, again = kinds(anyio.run(recorded, store), ev.Traced)
    assert carried(again) == place(root)
    below = [s.name for s in spans_of(receiver) if s.trace_id == root.trace_id and s.parent_span_id]
    assert sorted(below) == ["execute_tool second", "node second"]
