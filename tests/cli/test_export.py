"""`agentrt export`: a run's record as a file."""

from __future__ import annotations

import json
from pathlib import Path

import anyio

from agentrt.cli.exits import ExitStatus
from agentrt.events import RunStarted
from agentrt.stores import open_store
from agentrt.testing import read_record
from tests.cli.conftest import Shell, Write

ADD = "def add(n: int) -> int:\n    return n + 1\n"


def test_a_record_is_written_to_a_file_or_to_stdout(shell: Shell, write: Write, tmp_path: Path) -> None:
    """Each line is an event; folders are made."""
    shell("run", f"{write(ADD)}:add", "1", "--quiet")
    written = shell("export", "--to", "tests/runs/add.jsonl")
    assert (written.exit_code, written.stdout) == (ExitStatus.DONE, "")
    assert written.stderr.endswith(": 4 events in tests/runs/add.jsonl\n")
    shown = shell("export", "last")
    assert [json.loads(line)["event"] for line in shown.stdout.splitlines()][:1] == ["RunStarted"]
    assert shown.stdout_bytes == (tmp_path / "tests/runs/add.jsonl").read_bytes()
    assert len(read_record(tmp_path / "tests/runs/add.jsonl")) == len(shown.stdout.splitlines())


def test_a_file_that_cannot_be_written_is_told(shell: Shell, write: Write) -> None:
    """In one line."""
    shell("run", f"{write(ADD)}:add", "1", "--quiet")
    refused = shell("export", "last", "--to", "flow.py/add.jsonl")
    assert refused.exit_code == ExitStatus.USAGE
    assert refused.stderr == "error: cannot write flow.py/add.jsonl: File exists\n"


def test_of_a_run_without_an_end_it_is_said(shell: Shell) -> None:
    """No test can go through it."""

    async def begin() -> None:
        journal = open_store()
        epoch = await journal.claim("r", "killed", seconds=0, new=True)
        await journal.append("r", epoch, [RunStarted(run_id="r", at=1.0, name="g", input=1, limits={})])
        await journal.aclose()

    anyio.run(begin)
    assert "it is cut off, and has no end yet that a test could replay" in shell("export", "r").stderr
