"""What is said around a run: where it is traced, how it went."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

import agentrt.tracing
from agentrt.cli.exits import ExitStatus
from tests.cli.conftest import Shell, Write

ADD = "def add(n: int) -> int:\n    return n + 1\n"
AGAIN = """
from agentrt import Retry
tries = []

@tool(retry=Retry(attempts=3, backoff=0, on=OSError))
def often(n: int) -> int:
    tries.append(n)
    if len(tries) < 3:
        raise OSError("not yet")
    return n
"""


@dataclass
class Tracing:
    """Be what `configure` returns: traces of which some may be lost."""

    dropped: int
    signal: str
    is_shut: bool = False

    def shutdown(self) -> None:
        self.is_shut = True


@pytest.mark.parametrize(
    ("tracing", "quiet", "said"),
    [
        (Tracing(0, "traces and metrics"), [], "traces and metrics sent to http://there"),
        (Tracing(0, "traces and metrics"), ["--quiet"], ""),
        (Tracing(2, "traces"), ["--quiet"], "2 spans of the trace lost: does a collector listen at http://there?"),
        (Tracing(0, ""), [], ""),
    ],
)
def test_where_the_traces_went(
    shell: Shell, write: Write, monkeypatch: pytest.MonkeyPatch, tracing: Tracing, quiet: list[str], said: str
) -> None:
    """That some are lost is said in any case."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there")
    monkeypatch.setattr(agentrt.tracing, "configure", lambda: tracing)
    ran = shell("run", f"{write(ADD)}:add", "1", *quiet)
    assert (ran.exit_code, ran.stdout, tracing.is_shut) == (ExitStatus.DONE, "2\n", True)
    assert said in ran.stderr
    assert "there" not in ran.stderr or said


def test_a_run_without_a_record(shell: Shell, write: Write) -> None:
    """Nothing is said of steps to look at."""
    ran = shell("run", f"{write(ADD)}:add", "1", "--no-store")
    assert ran.stdout == "2\n"
    assert " · not recorded" in ran.stderr
    assert "agentrt show" not in ran.stderr


def test_attempts_that_failed_are_counted(shell: Shell, write: Write) -> None:
    """In the last line."""
    assert " · done · 3 steps · 2 retried · " in shell("run", f"{write(AGAIN)}:often", "1").stderr


def test_the_error_of_a_step_is_in_the_document(shell: Shell, write: Write) -> None:
    """With its path; of what never began there is neither path nor run."""
    failed = json.loads(shell("run", f"{write('def no(n: int) -> int: return 1 // n')}:no", "0", "--json").stdout)
    assert failed["error"] == {
        "type": "ZeroDivisionError",
        "message": "integer division or modulo by zero",
        "path": "no",
    }
    unknown = json.loads(shell("run", "nowhere.py", "--json").stdout)
    assert (unknown["run_id"], unknown["error"]["path"], unknown["stop_reason"]) == (None, None, "failed")
