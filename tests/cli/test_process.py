"""The command as a process: what only a real one shows."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, Write

NOISY = """
import os, subprocess, sys
os.write(1, b"raw noise\\n")
def loud(text: str) -> str:
    print("noise")
    os.write(1, b"raw noise\\n")
    subprocess.run([sys.executable, "-c", "print('child noise')"], check=True)
    return text
"""
STUCK = """
import anyio, time
async def wait(x: str, ctx: Context) -> str:
    ctx.emit("waiting")
    await anyio.sleep(600)
    return x
def block(x: str, ctx: Context) -> str:
    ctx.emit("waiting")
    time.sleep(600)
    return x
"""


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agentrt", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(*words: str, by: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
    """Start a command, interrupt it once its node waits, and return its exit status, stdout and stderr."""
    process = start(*words)
    assert process.stderr is not None
    seen = ""
    while "waiting" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    process.send_signal(by)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, seen + err


def test_nothing_but_json_on_stdout(write: Write) -> None:
    """Neither prints, nor writes to the descriptor, nor a child's output get between --json and its reader."""
    process = start("run", f"{write(NOISY)}:loud", "hi", "--json")
    out, err = process.communicate(timeout=60)
    assert json.loads(out)["output"] == "hi"
    assert err.count("noise") == 4


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_cancels_and_records(write: Write, shell: Shell, by: signal.Signals) -> None:
    """Ctrl-C, or a service manager, ends the run in one line with status 130, and the record says cancelled."""
    status, out, err = interrupted("run", f"{write(STUCK)}:wait", "hi", by=by)
    assert (status, out) == (130, "")
    assert "cancelled" in err.splitlines()[-1]
    assert [r["status"] for r in json.loads(shell("runs", "--json").stdout)] == ["cancelled"]


def test_interrupt_does_not_wait_for_a_thread(write: Write) -> None:
    """A function that blocks in a thread is left behind; --json still prints its object."""
    status, out, _ = interrupted("run", f"{write(STUCK)}:block", "hi", "--json")
    assert status == 130
    assert json.loads(out)["stop_reason"] == "cancelled"


def test_reader_that_leaves(write: Write, tmp_path: Path) -> None:
    """A pipe that closes early, as of `head`, ends the command without a traceback."""
    write("def many() -> list[str]:\n    return ['x' * 1000] * 100\n")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "agentrt", "run", "flow.py:many", "--quiet"]
    process = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err


def test_version_loads_no_engine_extras() -> None:
    """The command starts without litellm, networkx, sqlite3's run file or the trace SDK."""
    code = (
        "import sys, agentrt.cli; print([m for m in ('litellm', 'networkx', 'opentelemetry.sdk') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_command_runs_nothing() -> None:
    """What walks through a package, as tools for documentation do, may import `agentrt.__main__`."""
    code = "import agentrt.__main__; print('imported')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "imported\n"
