"""The events of a run of one chat."""

from __future__ import annotations

from collections.abc import Iterator

from agentrt.events import Event, RunFinished, RunStarted, StepFinished, StepStarted
from agentrt.usage import Usage


def chat_run(*events: Event) -> Iterator[Event]:
    """Yield a run of one chat, `g/m`, in which these events happen; the last of them ends the chat."""
    yield RunStarted(run_id="r", at=1.0, name="g", input="", limits={})
    yield StepStarted(path="g", at=1.0, name="g", kind="graph", input="")
    yield StepStarted(path="g/m", at=1.0, name="m", kind="chat", input="", attributes={"model": "test/m"})
    yield from events
    yield StepFinished(path="g", at=9.0, output="")
    yield RunFinished(run_id="r", at=9.0, output="", usage=Usage(), stop_reason="done")
