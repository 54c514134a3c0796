"""Content on spans: only where it is asked for, only what is new, and never too much."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agentrt import Agent, Passage, Query, Retriever, run, tool
from agentrt.testing import ScriptedModel, call
from agentrt.tracing import content

if TYPE_CHECKING:
    from tests.tracing.conftest import Spans

pytestmark = pytest.mark.anyio


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def agent() -> Agent[object, str]:
    return Agent("a", model=ScriptedModel([call("add", a=1, b=2), "three"]), tools=[add], instructions="Add.")


@pytest.fixture
def capture(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> Spans:
    monkeypatch.setenv(content.VARIABLE, "true")
    return spans


def parts(value: object) -> list[tuple[str, list[dict[str, object]]]]:
    assert isinstance(value, str)
    return [(m["role"], m["parts"]) for m in json.loads(value)]


async def test_no_content_unless_asked(spans: Spans) -> None:
    """By default neither messages nor arguments nor results are anywhere on the spans."""
    await run(agent(), "1 + 2?")
    text = " ".join(str(dict(s.attributes)) for s in spans.all)
    assert "1 + 2?" not in text
    assert "three" not in text
    assert '"a": 1' not in text


async def test_a_chat_holds_what_is_new_and_what_was_said(capture: Spans) -> None:
    """The second chat holds the tool's answer alone, not the conversation before it."""
    await run(agent(), "1 + 2?")
    opening, second = capture.named("chat scripted")
    assert [role for role, _ in parts(opening.attributes["gen_ai.input.messages"])] == ["system", "user"]
    (asked,) = parts(opening.attributes["gen_ai.output.messages"])
    assert asked[1][0]["type"] == "tool_call"
    answer = {"type": "tool_call_response", "id": "call-1", "response": "3"}
    assert parts(second.attributes["gen_ai.input.messages"]) == [("tool", [answer])]
    (said,) = json.loads(second.attributes["gen_ai.output.messages"])
    assert said == {"role": "assistant", "parts": [{"type": "text", "content": "three"}], "finish_reason": "stop"}


async def test_a_tool_holds_arguments_and_result(capture: Spans) -> None:
    """Arguments are as the model wrote them, the result as text."""
    await run(agent(), "1 + 2?")
    attributes = capture.one("execute_tool add").attributes
    assert json.loads(attributes["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
    assert attributes["gen_ai.tool.call.result"] == "3"


async def test_a_retrieval_holds_query_and_documents(capture: Spans) -> None:
    """Documents are named by source and position."""

    class Shelf:
        embedder = None

        async def search(self, query: str | Query, k: int) -> list[Passage]:
            return [Passage(text="A book.", source="shelf", position=2, score=0.5)]

    await run(Retriever("library", Shelf()), "books?")
    attributes = capture.one("retrieval library").attributes
    assert attributes["gen_ai.retrieval.query.text"] == "books?"
    (document,) = json.loads(attributes["gen_ai.retrieval.documents"])
    assert document == {"id": "shelf#2", "score": 0.5, "content": "A book."}


@pytest.mark.parametrize("question", ["x" * 50_000, "ü" * 50_000, '"\n' * 20_000])
async def test_long_content_is_cut_but_stays_json(capture: Spans, question: str) -> None:
    """One attribute holds at most 8 KiB, and says so."""
    await run(Agent("a", model=ScriptedModel(["hello"])), question)
    attributes = capture.one("chat scripted").attributes
    kept = attributes["gen_ai.input.messages"]
    assert 1000 < len(kept.encode()) <= content.MOST_BYTES
    assert question.startswith(parts(kept)[0][1][0]["content"])
    assert attributes["agentrt.truncated"] is True


async def test_too_many_parts_are_cut_too(capture: Spans) -> None:
    """Where no text is long but there are thousands, the end is cut off."""
    many = [Passage(text="x", source="s")] * 5000

    class Shelf:
        embedder = None

        async def search(self, query: str | Query, k: int) -> list[Passage]:
            return many

    await run(Retriever("library", Shelf()), "books?")
    attributes = capture.one("retrieval library").attributes
    assert len(attributes["gen_ai.retrieval.documents"]) == content.MOST_BYTES
    assert attributes["agentrt.truncated"] is True


@pytest.mark.parametrize(("value", "asked"), [("true", True), ("SPAN_ONLY", True), ("EVENT_ONLY", False), ("", False)])
def test_the_standard_variable_decides(value: str, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All spellings that put content on spans are understood."""
    monkeypatch.setenv(content.VARIABLE, value)
    assert content.captured() is asked
