"""Servers of every sort, started by the tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import anyio
import mcp  # noqa: F401 - takes a second, which would be the first test's
import pytest

from agentrt_tools.mcp.connection import Connection, _Session

HOSTILE = Path(__file__).with_name("hostile.py")
Command: TypeAlias = Callable[[str], list[str]]


@pytest.fixture
def anyio_backend() -> str:
    """Use real time: what these tests wait for are processes and sockets."""
    return "asyncio"


class Log:
    """Read the file in which a server notes what happens."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def lines(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []

    def processes(self) -> list[int]:
        """Return the ids of the processes that were noted."""
        return [int(word) for line in self.lines() for word in line.split() if word.isdigit()]

    def clear(self) -> None:
        self.file.unlink()

    async def wait(self, line: str) -> None:
        """Wait until something is noted."""
        with anyio.fail_after(20):
            while line not in self.lines():  # noqa: ASYNC110 - another process tells, by a file
                await anyio.sleep(0.01)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Return the log of the test's server."""
    return Log(tmp_path / "log")


@pytest.fixture
def hostile(log: Log) -> Command:
    """Return the command that starts a server which behaves in a certain way."""
    return lambda mode: [sys.executable, str(HOSTILE), mode, str(log.file)]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers take their time to start: a short time-out then holds for requests alone."""
    connect = Connection._connect

    async def patiently(opened: Connection) -> _Session:
        server = opened.server
        opened.server = replace(server, timeout=20)
        try:
            return await connect(opened)
        finally:
            opened.server = server

    monkeypatch.setattr(Connection, "_connect", patiently)


async def gone(processes: list[int]) -> bool:
    """Wait until processes have ended, which a kill does not."""
    with anyio.move_on_after(20):
        while any(map(alive, processes)):  # noqa: ASYNC110 - they are not this process's children
            await anyio.sleep(0.01)
    return not any(map(alive, processes))


def alive(process: int) -> bool:
    """Say whether a process runs: one that has ended and is not waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False if Path("/proc/self").exists() else _answers(process)
    return state != "Z"


def _answers(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
