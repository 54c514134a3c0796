"""The shell: a person approves, nothing is left running, and only so much comes back."""

from __future__ import annotations

import importlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentrt import Agent, DefinitionError, InvalidArguments, StopReason, run
from agentrt.people import inbox
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionModel, call
from agentrt.tool import tool_spec
from agentrt_tools import shell
from agentrt_tools.shell import ShellError

shell_module = importlib.import_module("agentrt_tools.shell")
pytestmark = pytest.mark.anyio


async def sh(command: str, root: Path | None = None, **options: Any) -> str:
    answer: str = await shell(root, approval=False, **options)(command)
    return answer


def is_alive(pid: int) -> bool:
    """Say whether a process is there, and no mere entry that nobody has asked for yet."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


async def gone(file: Path) -> bool:
    """Say whether the process whose number a command wrote to a file ends before it would by itself."""
    pid = int(await anyio.Path(file).read_text())
    ends = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < ends:
        await anyio.to_thread.run_sync(time.sleep, 0.01)
    return not is_alive(pid)


def is_written(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


class Clock:
    """Stand in for the module `time`: what begins with the first look is over once a file is written."""

    sleep = staticmethod(time.sleep)

    def __init__(self, file: Path) -> None:
        self._file = file
        self._has_begun = False

    def monotonic(self) -> float:
        is_over = self._has_begun and is_written(self._file)
        self._has_begun = True
        return time.monotonic() + (1e6 if is_over else 0)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("echo a; echo b >&2; echo c", "a\nb\nc\n(exit status 0)"),
        ("printf x; exit 3", "x\n(exit status 3)"),
        ("true", "(exit status 0)"),
        ("kill -TERM $$", "(ended by SIGTERM)"),
        ("kill -40 $$", "(ended by signal 40)"),
        ("-la 2>/dev/null", "(exit status 127)"),
        ("cat", "(exit status 0)"),
        ("none-such 2>/dev/null", "(exit status 127)"),
        ("printf '\\377'", "�\n(exit status 0)"),
        ("echo é | tr -d '\\n'", "é\n(exit status 0)"),
    ],
)
async def test_what_a_command_writes(command: str, answer: str) -> None:
    """And how it ended; there is no input."""
    assert await sh(command) == answer


async def test_it_runs_in_a_folder(tmp_path: Path) -> None:
    """As `root` says."""
    assert await sh('basename "$PWD"', tmp_path) == f"{tmp_path.name}\n(exit status 0)"


async def test_the_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are not in it."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("EDITOR", "ed")
    monkeypatch.setenv("LANG", "C.UTF-8")
    names = "env | cut -d= -f1 | grep -v '^PWD$\\|^_$\\|^SHLVL$\\|^OLDPWD$' | sort | tr '\\n' ' '"
    assert await sh(names) == "HOME LANG PATH \n(exit status 0)"
    assert await sh(names, allow_env=["EDITOR", "NONE"]) == "EDITOR HOME LANG PATH \n(exit status 0)"


async def test_a_long_output_is_cut_in_the_middle() -> None:
    """With how much is missing, and how to see it."""
    answer = await sh("seq 1 10000", most=100)
    assert answer.startswith("1\n2\n3\n")
    assert "… 48,794 characters left out; to see them write the output to a file, and show parts of it …" in answer
    assert answer.endswith("9999\n10000\n(exit status 0)")
    assert len(answer) < 250


async def test_an_output_without_end_is_stopped(tmp_path: Path) -> None:
    """While it is read."""
    answer = await sh("echo $$ > pid; yes", tmp_path)
    assert answer.endswith("(killed: it wrote more than 1,000,000 bytes)")
    assert await gone(tmp_path / "pid")


@pytest.mark.parametrize(
    "command",
    [
        "echo $$ > pid; sleep 60",
        "(echo $BASHPID; sh -c 'echo $$ > pid; exec sleep 60')",
        "sh -c 'echo $$ > pid; exec sleep 60' & wait",
        "trap '' TERM HUP INT; echo $$ > pid; while :; do sleep 60; done",
        "exec >&- 2>&-; echo $$ > pid; sleep 60",
        "timeout 50 sh -c 'echo $$ > pid; exec sleep 60'",
        "bash -c 'set -m; sleep 60 & echo $! > pid; wait'",
        "setsid -w sh -c 'echo $$ > pid; exec sleep 60'",
    ],
)
async def test_a_command_that_takes_too_long_is_killed(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that it has started, whatever it does with signals and pipes."""
    monkeypatch.setattr(shell_module, "time", Clock(tmp_path / "pid"))
    assert (await sh(command, tmp_path, seconds=50)).endswith("(killed: it took longer than 50 s)")
    assert await gone(tmp_path / "pid")


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'echo $$ > pid; exec sleep 60' & until test -s pid; do :; done; echo x",
        "bash -c 'set -m; sleep 60 & echo $! > pid'; echo x",
    ],
)
async def test_what_stays_behind_holds_nobody_up(tmp_path: Path, command: str) -> None:
    """It has the pipe, and would keep it open: it is killed when the command ends."""
    began = time.perf_counter()
    assert await sh(command, tmp_path) == "x\n(exit status 0)"
    assert time.perf_counter() - began < 20
    assert await gone(tmp_path / "pid")


async def test_what_leaves_the_session_holds_nobody_up(tmp_path: Path) -> None:
    """In a session of its own it lives on, and with it the pipe."""
    began = time.perf_counter()
    command = "setsid sh -c 'echo $$ > pid; exec sleep 60' & until test -s pid; do :; done; echo x"
    assert await sh(command, tmp_path) == "x\n(exit status 0)"
    assert time.perf_counter() - began < 20
    os.kill(int((tmp_path / "pid").read_text()), 9)


async def test_a_cancelled_command_is_killed(tmp_path: Path) -> None:
    """At once, and before the step is over."""
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sh, "echo $$ > pid; sleep 60", tmp_path)
        while not is_written(tmp_path / "pid"):  # noqa: ASYNC110 - another process tells, by a file
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert time.perf_counter() - began < 20
    assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("command", ["a\0b", "x" * 10_001])
async def test_a_command_of_no_use_is_told(command: str) -> None:
    """For a model to mend."""
    with pytest.raises(InvalidArguments, match="at most 10,000 characters, and no NUL"):
        await sh(command)


async def test_a_folder_that_has_gone_is_told(tmp_path: Path) -> None:
    """When it is used."""
    folder = tmp_path / "folder"
    folder.mkdir()
    tool = shell(folder, approval=False)
    folder.rmdir()
    with pytest.raises(ShellError, match="cannot be run: No such file or directory"):
        await tool("true")


def test_what_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is defined."""
    with pytest.raises(DefinitionError, match="is no folder"):
        shell(tmp_path / "none")
    with pytest.raises(DefinitionError, match="write a list of names"):
        shell(allow_env="HOME")
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(DefinitionError, match="process groups"):
        shell()


async def test_a_person_approves_each_call(tmp_path: Path) -> None:
    """Unless the developer says otherwise; a run that nobody can answer for does nothing."""
    tool = shell(tmp_path)
    assert (tool.approval, tool.effect, tool.untrusted, tool.name) == (True, "unsafe", True, "shell")
    assert tool_spec(tool).parameters["properties"]["command"]["description"]
    agent = Agent("clerk", model=FunctionModel(lambda _: [call("shell", command="touch x")]), tools=[tool], max_turns=1)
    journal = MemoryJournal()
    assert (await run(agent, "go", journal=journal, run_id="r")).stop_reason is StopReason.WAITING
    (question,) = await inbox(journal)
    assert question.asked.kind == "approve"
    assert os.listdir(tmp_path) == []
