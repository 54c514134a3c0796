"""Every example in the README and the docs runs."""

import re
from pathlib import Path

import pytest

import agentrt.runtime
from agentrt import ModelRequest
from agentrt.testing import FunctionModel

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(match.group(1), id=f"{page.name}-{i}")
    for page in PAGES
    for i, match in enumerate(re.finditer(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


def reply(request: ModelRequest) -> str:
    """Answer as the agents of the examples expect."""
    answers = {"planner": '{"result": ["prices", "support"]}', "writer": '{"title": "Churn", "body": "It rose."}'}
    schema = request.output_schema or {}
    return answers.get(schema.get("title", ""), '{"ok": true, "why": "clear"}' if schema else "nothing found")


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_run(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python block of the docs runs as printed, with a fake model behind every name."""
    monkeypatch.setattr(agentrt.runtime, "resolve_model", lambda name: FunctionModel(reply))
    exec(compile(block, "docs", "exec"), {"__name__": "__main__"})


def test_ci_runs_the_readme_command() -> None:
    """The README has one line to run and one to test, and CI reads the latter from it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python3 -m venv .*", readme, re.MULTILINE)
    assert ["agentrt run" in commands[0], "pytest" in commands[1]] == [True, True]
    assert "README.md" in (ROOT / ".ci/run").read_text(encoding="utf-8")
