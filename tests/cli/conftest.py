"""A shell to type commands in: a folder of its own, a store of its own, nothing left behind."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from typer.testing import CliRunner, Result

from agentrt.cli import app
from agentrt.models import weights

Shell: TypeAlias = Callable[..., Result]
Write: TypeAlias = Callable[..., str]
Complete: TypeAlias = Callable[[str], list[str]]

GRAPH = """
from agentrt import START, END, Agent, Context, Graph, Price, first, collect, tool
from agentrt.testing import FunctionModel

model = FunctionModel(lambda request: "so it is", price=Price.per_million(input=1, output=2))
"""


@pytest.fixture(autouse=True)
def _heeds_interruptions() -> Iterator[None]:
    """A shell lets programs in the background ignore Ctrl-C, and what they start ignores it, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which the shell finds weights, so that it need not fetch any: a file that takes no space."""
    folder = tmp_path_factory.mktemp("cache")
    for known in weights.known():
        file = folder / "models" / known.file
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.truncate(file, known.size)
    return folder


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Iterator[None]:
    """Give each test its folder and store, and forget the modules it imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTRT_CACHE", str(cache))
    monkeypatch.setenv("AGENTRT_STORE", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.setenv("COLUMNS", "120")
    signals = [f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT" for kind in ("", "TRACES_", "METRICS_")]
    for name in ("AGENTRT_MODEL", *signals):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def shell() -> Shell:
    """Type a command: `shell("run", "file.py", …)` returns what it printed and its exit status."""

    def type_(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=stdin)

    return type_


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file that defines a graph, after the usual imports and a fake model; returns its name."""

    def write(body: str, name: str = "flow.py") -> str:
        (tmp_path / name).write_text(GRAPH + body)
        return name

    return write


@pytest.fixture
def complete() -> Complete:
    """Return what bash is offered for the last word of what was typed."""

    def complete(typed: str) -> list[str]:
        env = {"_AGENTRT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
        done = CliRunner().invoke(app, [], prog_name="agentrt", env=env)
        assert done.stderr == ""
        return done.stdout.split()

    return complete


def document(result: Result) -> Any:
    """Return the one JSON document on stdout."""
    return json.loads(result.stdout)
