"""The research assistant: it reads a folder, keeps its index, and cites passages that were found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from agentrt import CitedAnswer, ModelRequest, Result, StepFailed, run
from agentrt.events import Emitted
from agentrt.messages import AssistantMessage, ToolCall, ToolMessage
from agentrt.testing import FunctionModel
from agentrt_graphs import Case
from examples import research


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the embedder's threads and the files do not know of virtual time."""
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(research, "EMBEDDER", None)  # words alone will do, and need no second to load
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two notes."""
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "staff.md").write_text("# Staff\n\n## Garden\n\nThe gardener is called Ada Bloom.", encoding="utf-8")
    (notes / "house.html").write_text("<title>House</title><p>The cook is called Rolf.", encoding="utf-8")
    return notes


async def ask(question: str, folder: Path, model: FunctionModel) -> Result[CitedAnswer]:
    said.clear()
    return await run(
        research.graph, research.Task(question=question, folder=folder), model=model, observers=[said.append]
    )


said: list[object] = []


def emitted() -> list[object]:
    return [event.value for event in said if isinstance(event, Emitted)]


def small(reply: Callable[[ModelRequest], str]) -> FunctionModel:
    """Return a model whose name says that it is in this process."""
    return FunctionModel(reply, name="local/fake")


def by_name(request: ModelRequest) -> str:
    """Answer with the name in the passage that is shown, whatever is asked."""
    passage = (request.prompt or "").rpartition("Passage: ")[2]
    return "Ada Bloom" if "Ada Bloom" in passage else "Berta"


async def test_a_small_model_quotes_what_its_readers_find(folder: Path) -> None:
    """What stands in the passage, which is cited."""
    output = (await ask("What is the gardener called?", folder, small(by_name))).output
    assert (output.text, [p.id for p in output.citations]) == ("Ada Bloom", ["staff.md#0"])
    assert output.citations[0].text == "The gardener is called Ada Bloom."


async def test_what_no_passage_supports_is_not_answered(folder: Path) -> None:
    """Nothing is cited then."""
    output = (await ask("What is the dog called?", folder, small(lambda request: "Rex"))).output
    assert (output.text, output.citations) == (research.UNKNOWN, [])


async def test_a_large_model_searches_and_cites(folder: Path) -> None:
    """An id that was not found is told to it as a mistake."""
    turns = iter(["house.html#7", "house.html#0"])

    def clerk(request: ModelRequest) -> AssistantMessage:
        if not any(isinstance(m, ToolMessage) for m in request.messages):
            return AssistantMessage("", (ToolCall("1", "library", '{"query": "cook"}'),))
        return AssistantMessage(json.dumps({"text": "Rolf", "citations": [next(turns)]}))

    output = (await ask("What is the cook called?", folder, FunctionModel(clerk))).output
    assert (output.text, [(p.id, p.title) for p in output.citations]) == ("Rolf", [("house.html#0", "House")])
    assert next(turns, None) is None


async def test_only_what_changed_is_indexed_anew(folder: Path) -> None:
    """Between runs the index is kept; what could not be read is told."""
    await ask("What?", folder, small(by_name))
    assert emitted() == ["2 files: 2 documents new, 0 changed, 0 gone"]
    (folder / "house.html").unlink()
    (folder / "staff.md").write_text("The gardener is called Cleo.", encoding="utf-8")
    (folder / "photo.png").write_bytes(b"x")
    await ask("What?", folder, small(by_name))
    assert emitted()[0] == "1 files: 0 documents new, 1 changed, 1 gone"
    assert str(emitted()[1]).startswith("photo.png: ")


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Is a mistake of whoever named it."""
    with pytest.raises(StepFailed, match="there is no folder"):
        await ask("What?", tmp_path / "nowhere", small(by_name))


async def test_questions_are_counted(folder: Path, tmp_path: Path) -> None:
    """Without a question, those of a file: what is solved, wrong, and not said."""
    file = tmp_path / "questions.jsonl"
    asked = {"What is the gardener called?": ["Ada Bloom"], "Who is the cook?": ["Rolf"], "Who wrote Hamlet?": []}
    rows = [json.dumps({"question": question, "answers": answers}) for question, answers in asked.items()]
    file.write_text("\n".join(rows), encoding="utf-8")
    task = research.Task(folder=folder, questions=file)
    output = (await run(research.graph, task, model=small(by_name))).output
    assert (output.solved, output.wrong, output.not_said) == (2, 0, 1)


def test_answers_to_the_test_stand_in_the_guide() -> None:
    """Each question has one there, or none; no question is in both files."""
    guide = "\n".join(file.read_text(encoding="utf-8") for file in research.Task().folder.iterdir()).lower()
    test, development = (Case.read(research.HERE / f"research-{name}.jsonl") for name in ("test", "development"))
    assert all(any(a.lower() in guide for a in case.answers) for case in test if case.answers)
    assert [len(test), sum(not case.answers for case in test)] == [24, 8]
    assert not {case.question for case in test} & {case.question for case in development}


async def test_two_may_ask_at_once(folder: Path) -> None:
    """Whoever finds the index being made waits until it is."""
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask, "Who?", folder, FunctionModel(lambda request: '{"text": "x", "citations": []}'))


@pytest.mark.model
def test_the_embedded_model_answers_and_does_not() -> None:
    """The printed command works on the real model; what the guide does not say costs no call of it."""
    command = [sys.executable, "-m", "agentrt", "run", "examples/research.py", "--json", "--no-store"]
    root = Path(__file__).parents[2]
    answers = []
    for question in ("Which inn of Dorrel has a telescope on its roof?", "Who wrote Hamlet?"):
        done = subprocess.run([*command, question], capture_output=True, text=True, check=False, cwd=root)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    # What it answers to the first (The Zura Inn, here) is the model's affair.
    assert [answer["usage"]["model_calls"] for answer in answers] == [3, 0]
    assert answers[1]["output"] == {"text": research.UNKNOWN, "citations": []}
