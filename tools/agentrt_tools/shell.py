"""The shell: a tool that runs any command. It is no sandbox: a person approves each call unless you say otherwise."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from agentrt import AgentrtError, DefinitionError, InvalidArguments, Tool
from agentrt.tool import Approval
from agentrt_tools.excerpt import MOST_CHARACTERS
from agentrt_tools.session import LONGEST_END, kill_session
from agentrt_tools.thread import run_stoppable

MOST_OUTPUT: Final = 1_000_000
"""A command that writes more bytes is killed."""
_MOST_COMMAND: Final = 10_000
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG")
_CHUNK: Final = 65_536
_PAUSE: Final = 0.02


class ShellError(AgentrtError):
    """Say why a command cannot be run."""


def shell(
    root: str | Path | None = None,
    *,
    allow_env: Sequence[str] = (),
    seconds: float = 30.0,
    approval: Approval = True,
    most: int = MOST_CHARACTERS,
) -> Tool[..., str]:
    """Return the tool `shell`, which runs a command in a folder with all the rights of this process.

    root: where commands begin; without it where this process is. allow_env: what they see of the environment besides
    PATH, HOME and LANG; what they go and look for it does not keep from them, such as this process's own environment
    in `/proc`. seconds: a command that takes longer is killed, with all that it has started. approval: whether
    a person approves each call; pass False only where the whole process is confined. most: how many characters a call
    returns.

    Raises `DefinitionError` for a root that is no folder, and on systems without process groups.
    """
    if not hasattr(os, "killpg"):
        raise DefinitionError("shell needs a system with process groups, such as Linux or macOS")
    if root is not None and not Path(root).is_dir():
        raise DefinitionError(f"{root} is no folder: make it first, or name another")
    if isinstance(allow_env, str):
        raise DefinitionError(f"allow_env={allow_env!r}: write a list of names")

    async def run_command(command: str) -> str:
        """Run a command in a POSIX shell; return what it writes, and its exit status.

        Args:
            command: The command, like ls -l | head. It gets no input.
        """
        if "\0" in command or len(command) > _MOST_COMMAND:
            raise InvalidArguments(f"command: at most {_MOST_COMMAND:,} characters, and no NUL: write a script first")
        names = (*_ENVIRONMENT, *allow_env)
        environment = {name: os.environ[name] for name in names if name in os.environ}
        job = _Job(command.encode(errors="replace"), root, environment, seconds)
        end = await job.run()
        return f"{_cut(job.output.decode(errors='replace'), most)}({end})"

    return Tool(
        run_command,
        name="shell",
        effect="unsafe",
        approval=approval,
        untrusted=True,
        timeout=seconds + 2 * LONGEST_END,
    )


def _cut(text: str, most: int) -> str:
    """Return the beginning and the end of a text that is too long. To run a command again for the rest may do harm."""
    if len(text) > most:
        left = len(text) - most
        told = f"\n… {left:,} characters left out; to see them write the output to a file, and show parts of it …\n"
        text = f"{text[: most // 2]}{told}{text[len(text) - (most - most // 2) :]}"
    return text if not text or text.endswith("\n") else f"{text}\n"


class _Job:
    """Run one command in a session of its own, in a thread, which kills all that is in it however that ends."""

    def __init__(self, command: bytes, root: str | Path | None, environment: Mapping[str, str], seconds: float) -> None:
        self.output = bytearray()
        self._arguments = ("/bin/sh", "-c", "--", command)  # a command may begin with a dash
        self._root = root
        self._environment = environment
        self._seconds = seconds

    async def run(self) -> str:
        """Return how the command ended. Who is cancelled waits until it is killed."""
        return await run_stoppable(self._run)

    def _run(self, unwanted: threading.Event) -> str:
        try:
            process = subprocess.Popen(
                self._arguments,
                cwd=self._root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise ShellError(f"the command cannot be run: {error.strerror}") from error
        assert process.stdout is not None
        try:
            return self._read(process, process.stdout, unwanted)
        finally:
            self._kill(process)
            process.stdout.close()

    def _read(self, process: subprocess.Popen[bytes], pipe: IO[bytes], unwanted: threading.Event) -> str:
        ends = time.monotonic() + self._seconds
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not unwanted.is_set():
                has_ended = _has_ended(process)
                if selector.select(0 if has_ended or not selector.get_map() else _PAUSE):
                    chunk = os.read(pipe.fileno(), _CHUNK)
                    self.output += chunk
                    if len(self.output) > MOST_OUTPUT:
                        return f"killed: it wrote more than {MOST_OUTPUT:,} bytes"
                    if not chunk:
                        selector.unregister(pipe)
                elif has_ended:  # others that it has started may hold the pipe open for ever
                    return self._status(process)
                if not selector.get_map() and not has_ended:
                    time.sleep(_PAUSE)
                if time.monotonic() > ends:
                    return f"killed: it took longer than {self._seconds:g} s"
        return "killed"

    def _status(self, process: subprocess.Popen[bytes]) -> str:
        self._kill(process)
        if process.returncode < 0:
            return f"ended by {_signal_name(-process.returncode)}"
        return f"exit status {process.returncode}"

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the whole session, before its first process is forgotten and its number is given to another."""
        if process.returncode is not None:
            return
        kill_session(process.pid)
        process.wait(LONGEST_END)


def _signal_name(number: int) -> str:
    names = {s.value: s.name for s in signal.Signals}
    return names.get(number, f"signal {number}")


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
