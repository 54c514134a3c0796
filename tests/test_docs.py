"""Every example in the README and the docs runs."""

import re
from pathlib import Path

import anyio
import pytest

import agentrt.model
import agentrt.testing.cassette
from agentrt import Agent, ModelRequest, run_sync
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionModel, dump_record

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(match.group(1), id=f"{page.name}-{i}")
    for page in PAGES
    for i, match in enumerate(re.finditer(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTRT_RECORD", raising=False)


def reply(request: ModelRequest) -> str:
    """Answer as the agents of the examples expect."""
    answers = {"planner": '{"result": ["prices", "support"]}', "writer": '{"title": "Churn", "body": "It rose."}'}
    schema = request.output_schema or {}
    return answers.get(schema.get("title", ""), '{"ok": true, "why": "clear"}' if schema else "nothing found")


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_run(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python block of the docs runs as printed, with a fake model behind every name."""
    monkeypatch.setattr(agentrt.model, "resolve_model", lambda name: FunctionModel(reply))
    exec(compile(block, "docs", "exec"), {"__name__": "__main__"})


def test_tests_of_the_docs_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the docs show as tests is run by pytest, with the plugin."""
    monkeypatch.setattr(agentrt.testing.cassette, "resolve_model", lambda name: FunctionModel(reply, name=name))
    (block,) = (param.values[0] for param in BLOCKS if "def test_" in str(param.values[0]))
    pytester.makepyfile(test_reader=str(block))
    pytester.makeconftest("import pytest\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n")
    journal = MemoryJournal()
    run_sync(Agent("reader", model=FunctionModel(lambda _: "A bird.")), "What is an owl?", journal=journal, run_id="r")
    (pytester.mkdir("runs") / "owl.jsonl").write_bytes(dump_record(anyio.run(journal.events, "r")))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = ("-p", "agentrt.testing.plugin", "-p", "anyio", "-p", "no:cacheprovider")
    pytester.runpytest_inprocess(*plugins).assert_outcomes(passed=5)
    assert (pytester.path / "cassettes/test_reader/test_with_a_recording.jsonl").exists()


def test_ci_runs_the_readme_command() -> None:
    """The README has one line to run and one to test, and CI reads the latter from it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python3 -m venv .*", readme, re.MULTILINE)
    assert ["agentrt run" in commands[0], "pytest" in commands[1]] == [True, True]
    assert "README.md" in (ROOT / ".ci/run").read_text(encoding="utf-8")
