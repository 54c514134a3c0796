"""The example that asks a database: with tools, with worked examples, and on the real model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentrt import ModelRequest, StepFailed, run
from agentrt.messages import ToolMessage
from agentrt.testing import FunctionModel, ScriptedModel, call
from examples import analyst

pytestmark = pytest.mark.anyio
QUESTION = "How many passengers did the Heron carry on average?"


async def test_a_model_of_a_provider_asks_the_database_from_its_code() -> None:
    """It sees the tables, and computes with what a query returned in the sandbox."""
    code = (
        "rows = sql_query(\"SELECT passengers FROM crossings WHERE ferry = 'Heron'\").splitlines()[1:]\n"
        "sum(int(row) for row in rows) / len(rows)"
    )
    with ScriptedModel([call("sql_schema"), call("python", code=code), "98"]) as model:
        assert (await run(analyst.main, analyst.Task(question=QUESTION), model=model)).output == "98"
    schema, computed = [m.text for m in model.requests[2].messages if isinstance(m, ToolMessage)]
    assert "crossings" in schema
    assert computed == "98.0"


def lines(request: ModelRequest) -> str:
    """Go on with the line of the likest example, with the subject of the question in its place."""
    assert request.prompt is not None
    *shots, last = request.prompt.split("\n\n")
    question = last.partition("Question: ")[2].partition("\n")[0]
    like, line = shots[-1].partition("Question: ")[2].split("\n")
    subject = next((w for w in question.rstrip("?").split() if w[0].isupper() and w not in like.rstrip("?")), "")
    there = next((w for w in like.rstrip("?").split() if w[0].isupper() and w not in question.rstrip("?")), "")
    return line.partition(": ")[2].replace(there, subject) if there else line.partition(": ")[2]


async def test_a_small_model_goes_on_with_worked_examples() -> None:
    """Who does just that answers what is like an example, and the count says what was not."""
    result = await run(analyst.main, analyst.Task(), model=FunctionModel(lines, name="local/copying"))
    assert [row.question for row in result.output if not row.solved] == [
        "Which ferry was built first?",
        "What did the Heron earn on Friday?",
    ]
    assert len(result.output) == 12


async def test_a_statement_that_fails_is_no_answer() -> None:
    """The reason is in the row, and nothing else fails with it; one question alone fails by it."""
    model = FunctionModel(lambda request: "DROP TABLE ferries", name="local/hostile")
    rows = (await run(analyst.main, analyst.Task(), model=model)).output
    assert not any(row.solved for row in rows)
    assert all("SqlError" in row.answer for row in rows)
    with pytest.raises(StepFailed, match="what it wrote does not run: SqlError"):
        await run(analyst.main, analyst.Task(question=QUESTION), model=model)


async def test_code_that_fails_is_no_answer() -> None:
    """Its error is not taken for the answer."""
    model = FunctionModel(
        lambda request: "1 / 0" if "Python:" in str(request.prompt) else "SELECT 1", name="local/wrong"
    )
    with pytest.raises(StepFailed, match="what it wrote does not run: SandboxError: ZeroDivisionError"):
        await run(analyst.main, analyst.Task(question=QUESTION), model=model)


@pytest.mark.model
def test_the_embedded_model_answers_a_question() -> None:
    """The printed command works on the real model."""
    command = [sys.executable, "-m", "agentrt", "run", "examples/analyst.py", QUESTION, "--json", "--no-store"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["stop_reason"] == "done"
    assert document["usage"]["model_calls"] == 2
    # What it answers (98.0, here) is the model's affair.
    assert document["output"]
