"""Records as files: a finished run as a regression test."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentrt import END, START, Agent, Context, Graph, Result, StepFailed, StopReason, run
from agentrt import events as ev
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionModel, RecordMismatch, dump_record, read_record, replay_record, run_virtual

SAID = "a bird \u2028of the night"


def graph_of(end: str = "!\nreally", model: FunctionModel | None = None) -> Graph[str, str]:
    """Return a graph whose last step adds something to what a model says."""

    def shout(text: str) -> str:
        if not end:
            raise ValueError("nothing to add")
        return f"{text}{end}"

    reader = Agent("reader", model=model or FunctionModel(lambda request: SAID))
    graph = Graph[str, str]("g", input=str, output=str)
    graph.chain(START, reader, shout, END)
    return graph


def record_of(node: Any, to: Path) -> Sequence[ev.Event]:
    """Run it, and write its record to a file."""

    async def record() -> Sequence[ev.Event]:
        journal = MemoryJournal()
        with suppress(StepFailed):
            await run(node, "What is an owl?", journal=journal, run_id="r")
        return await journal.events("r")

    events = run_virtual(record)
    to.write_bytes(dump_record(events))
    return events


def again(node: Any, file: Path) -> Result[Any]:
    return run_virtual(replay_record, node, file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    record_of(graph_of(), tmp_path / "r.jsonl")
    return tmp_path / "r.jsonl"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Whatever line separators its texts hold, and whatever git or an editor made of the ends of its lines."""
    file = tmp_path / "r.jsonl"
    events = record_of(graph_of(), file)
    assert read_record(file) == events
    assert dump_record(read_record(file)) == file.read_bytes()
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n") + b"\n")
    assert read_record(file) == events


def test_a_run_is_gone_through_again_offline(file: Path) -> None:
    """No model is asked."""
    model = FunctionModel(lambda request: "another")
    assert (again(graph_of(model=model), file)).output == f"{SAID}!\nreally"
    assert model.requests == []


def test_what_comes_out_differently_is_shown_line_by_line(file: Path) -> None:
    """With the file, the step, and what to do if the change is meant."""
    with pytest.raises(RecordMismatch) as error:
        again(graph_of("!\nperhaps"), file)
    said = str(error.value)
    assert said.startswith(
        f"{file}: g/shout is not what was recorded\n--- recorded: it returned\n+++ now: it returned\n"
    )
    for part in ("\n-really\n", "\n+perhaps\n", f"agentrt export last --to {file}"):
        assert part in said


def test_what_is_not_called_any_more_is_named(tmp_path: Path) -> None:
    """There is nothing to set side by side."""

    def look(text: str) -> str:
        return text

    async def read(text: str, ctx: Context) -> str:
        return await ctx.run(look, text) if calls else text

    calls = True
    record_of(read, file := tmp_path / "r.jsonl")
    calls = False
    with pytest.raises(RecordMismatch, match=r"recorded: it called\(\['read/look'\]\)"):
        again(read, file)


def test_an_output_that_cannot_be_read_any_more_is_a_mismatch(tmp_path: Path) -> None:
    """Its type has changed."""

    async def ask(text: str, ctx: Context) -> int:
        return await ctx.ask("How many?", int, default=3, timeout=0)

    async def ask_now(text: str, ctx: Context) -> bool:
        return await ctx.ask("How many?", bool)

    ask_now.__name__ = "ask"
    record_of(ask, file := tmp_path / "r.jsonl")
    with pytest.raises(RecordMismatch, match="what is recorded of ask/ask cannot be read as <class 'bool'>"):
        again(ask_now, file)


def test_a_run_that_failed_fails_again(tmp_path: Path) -> None:
    """With its error; one that succeeds now is a mismatch."""
    record_of(graph_of(""), file := tmp_path / "r.jsonl")
    with pytest.raises(StepFailed, match="nothing to add"):
        again(graph_of(""), file)
    with pytest.raises(RecordMismatch, match="--- recorded: it raised"):
        again(graph_of(), file)


def test_a_run_that_waits_waits_again(tmp_path: Path) -> None:
    """Nobody is asked anew."""

    async def ask(text: str, ctx: Context) -> str:
        return await ctx.ask("Why?")

    events = record_of(ask, file := tmp_path / "r.jsonl")
    assert isinstance(events[-1], ev.RunParked)
    assert (again(ask, file)).stop_reason is StopReason.WAITING


def test_a_file_that_is_no_record_is_refused(file: Path) -> None:
    """With the line where that shows."""
    with pytest.raises(FileNotFoundError, match=r"no record .*other\.jsonl: agentrt export RUN --to .*other\.jsonl"):
        read_record(file.with_name("other.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    for wrong, said in [
        ([], "line 1 is not the start of a run"),
        (lines[1:], "line 1 is not the start of a run"),
        ([*lines[:2], b"{}\n"], "line 3 is no event of a run: there is none of the kind 'event'"),
        ([*lines[:2], b'{"event": "Odd"}\n'], "line 3 is no event of a run: there is none of the kind 'Odd'"),
        ([*lines[:2], b"[1]\n"], "line 3 is no event of a run"),
        (
            [*lines[:2], b'{"event": "StepStarted", "path": 1}\n'],
            "line 3 is no event of a run: Expected `str`, got `int`",
        ),
        ([*lines[:-1], lines[-1][:30]], f"line {len(lines)} is no event of a run"),
        (lines[:-1], f"ends with line {len(lines) - 1} and its run does not: the rest is missing"),
    ]:
        file.write_bytes(b"".join(wrong))
        with pytest.raises(ValueError, match=said):
            read_record(file)


def test_a_run_that_went_on_ends_with_its_last_part(file: Path) -> None:
    """What was cut off after it had gone on has not ended."""
    events = read_record(file)
    began = ev.RunResumed(run_id="r", at=1.0, name="g", limits={})
    file.write_bytes(dump_record([*events, began]))
    with pytest.raises(ValueError, match="its run does not"):
        read_record(file)
