"""The example that asks a database: with tools, with worked examples, and on the real model."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agentrt import ModelRequest, run
from agentrt.messages import ToolMessage
from agentrt.testing import FunctionModel, ScriptedModel, call
from agentrt_graphs import Case
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


def small(reply: Callable[[ModelRequest], str]) -> FunctionModel:
    """Return a model whose name says that it is in this process."""
    return FunctionModel(reply, name="local/fake")


def copied(request: ModelRequest) -> str:
    """Go on with the line of the likest example, which is the last."""
    assert request.prompt is not None
    return request.prompt.split("\n\n")[-2].rpartition("Python: ")[2]


async def test_a_small_model_goes_on_with_worked_examples() -> None:
    """They are about what the question names, so that who copies the likest answers what is like it."""
    result = await run(analyst.main, analyst.Task(question=QUESTION), model=small(copied))
    assert (result.output, result.usage.model_calls) == ("98.0", 3)


async def test_questions_are_counted(tmp_path: Path) -> None:
    """Without a question, those of a file."""
    file = tmp_path / "questions.jsonl"
    cases = [Case(question=QUESTION, answers=["98"]), Case(question="Has the Tern more seats than 90?", answers=["no"])]
    file.write_text("\n".join(case.model_dump_json() for case in cases), encoding="utf-8")
    output = (await run(analyst.main, analyst.Task(questions=file), model=small(copied))).output
    assert (output.solved, output.wrong, output.not_said) == (1, 0, 1)


def test_no_question_is_in_both_files() -> None:
    """What the example is tested by, it was not developed with."""
    test, development = (Case.read(analyst.HERE / name) for name in ("test.jsonl", "development.jsonl"))
    assert (len(test), len(development)) == (20, 16)
    assert not {case.question for case in test} & {case.question for case in development}


async def test_what_fails_is_mended_by_its_error() -> None:
    """The model is shown the line and the error, once."""

    def reply(request: ModelRequest) -> str:
        column = "passengers FROM crossings" if "Error: " in str(request.prompt) else "fee FROM crossings"
        return f"average(\"SELECT {column} WHERE ferry = 'Heron'\")"

    result = await run(analyst.main, analyst.Task(question=QUESTION), model=small(reply))
    assert (result.output, result.usage.model_calls) == ("98.0", 6)


@pytest.mark.parametrize(
    "line",
    ['first("DROP TABLE ferries")', "1 / 0", "average(\"SELECT passengers FROM crossings WHERE ferry = 'Tern'\")"],
)
async def test_what_cannot_be_right_is_no_answer(line: str) -> None:
    """What fails, and what is about something else than the question."""
    result = await run(analyst.main, analyst.Task(question=QUESTION), model=small(lambda request: line))
    assert result.output == analyst.UNKNOWN


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("What does the Petrel cost?", ["'Petrel'", "fare"]),
        ("Which ferries have more than 100 seats?", ["100", "seats"]),
        ("What did the Otter earn on Monday?", ["'Otter'", "fare", "passengers", "'Monday'"]),
    ],
)
def test_words_are_linked_to_the_database(question: str, found: list[str]) -> None:
    """To its columns and values."""
    assert analyst.links(question) == found


def test_worked_examples_are_about_the_database() -> None:
    """Each worked example runs, and what is known of the columns is what is in the tables."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript((analyst.HERE / "tables.sql").read_text(encoding="utf-8"))
        for example in analyst.EXAMPLES:
            statement = example["line"].format(**analyst.subjects("")).partition('"')[2].removesuffix('")')
            connection.execute(statement)
        for column, known in analyst.VALUES.items():
            table = "crossings" if column == "day" else "ferries"
            assert {value for (value,) in connection.execute(f"SELECT {column} FROM {table}")} == {*known}


@pytest.mark.model
def test_the_embedded_model_answers_a_question() -> None:
    """The printed command works on the real model."""
    command = [sys.executable, "-m", "agentrt", "run", "examples/analyst.py", QUESTION, "--json", "--no-store"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["stop_reason"] == "done"
    assert document["usage"]["model_calls"] >= 3
    # What it answers (98.0, here) is the model's affair.
    assert document["output"]
