"""Asking a person: the run of an agent parks, and goes on with the answer."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field

from agentrt import Agent, DefinitionError, InvalidArguments, ModelRequest, Result, StopReason, replay, resume, run
from agentrt import events as ev
from agentrt.forecast import foresee
from agentrt.messages import AssistantMessage, ToolMessage
from agentrt.people import answer, inbox
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionModel, call
from agentrt.tool import tool_spec
from agentrt_tools import AskHuman, ask_human
from tests.journals import journal_of

pytestmark = pytest.mark.anyio


class Clerk:
    """Hold an agent that calls a tool once for each of some arguments, and says what it was told."""

    def __init__(self, tool: AskHuman, *calls: dict[str, Any]) -> None:
        self.journal = MemoryJournal()

        def say(request: ModelRequest) -> Any:
            told = [m.text for m in request.messages if isinstance(m, ToolMessage)]
            asked = (call(tool.name, **arguments) for arguments in calls)
            numbered = tuple(dataclasses.replace(c, id=str(n)) for n, c in enumerate(asked))
            return " | ".join(told) if told else AssistantMessage("I lack the date.", numbered)

        self.agent = Agent("clerk", model=FunctionModel(say), tools=[tool])

    async def begin(self) -> list[ev.QuestionAsked]:
        await run(self.agent, "go", journal=self.journal, run_id="r")
        return [q.asked for q in await inbox(self.journal)]

    async def go_on(self) -> Result[str]:
        return await resume(self.agent, "r", journal=self.journal)


async def test_a_run_waits_for_a_person_and_goes_on_with_the_answer() -> None:
    """Who sees what is asked and why; the model is not asked again, nor the person."""
    clerk = Clerk(ask_human, {"question": "When?"})
    (asked,) = await clerk.begin()
    assert (asked.path, asked.prompt) == ("clerk/ask_human/ask", "When?")
    assert (asked.about, asked.schema) == ({"why": "I lack the date."}, {"type": "string"})
    assert (await clerk.go_on()).stop_reason is StopReason.WAITING
    await answer(clerk.journal, "r", "on Friday")
    result = await clerk.go_on()
    assert (result.output, result.usage.model_calls) == ("on Friday", 2)
    assert (await replay(clerk.agent, "r", journal=clerk.journal)).output == "on Friday"


async def test_a_model_may_say_what_answer_it_can_use() -> None:
    """Answers are held against its schema."""
    wanted = {"type": "object", "properties": {"nights": {"type": "integer"}}, "required": ["nights"]}
    clerk = Clerk(ask_human, {"question": "How long?", "answer_schema": wanted})
    await clerk.begin()
    with pytest.raises(InvalidArguments, match="'many' is not of type 'integer'"):
        await answer(clerk.journal, "r", {"nights": "many"})
    await answer(clerk.journal, "r", {"nights": 3})
    assert (await clerk.go_on()).output == '{"nights":3}'


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "string", "pattern": "("}, "nothing can be checked against the pattern '(': write another"),
        ({"items": {"pattern": "(?=a)a"}}, "without look-around, back-references and patternProperties, or none"),
        ({"type": "string", "pattern": r"(a)\1"}, "nothing can be checked against the pattern"),
        ({"patternProperties": {"^a": {"type": "integer"}}}, "nothing can be checked against the pattern '^a'"),
        ({"type": "text"}, "'text' is not valid under any of the given schemas"),
        ({"type": "array", "items": {"$ref": "https://example.org/schema"}}, "write it without $ref"),
        ({"allOf": [{"$dynamicRef": "#x"}]}, "write it without $ref"),
        ({"enum": []}, "no answer fits it"),
        ({"type": "integer", "enum": ["a", "b"]}, "no answer fits it"),
        ({"type": "number", "minimum": 5, "maximum": 4}, "no answer fits it"),
        ({"minLength": 3, "maxLength": 2}, "no answer fits it"),
        ({"not": {}}, "no answer fits it"),
        ({"anyOf": [{"enum": []}, False]}, "no answer fits it"),
        ({"allOf": [{"type": "string"}, False]}, "no answer fits it"),
        ({"type": "object", "required": ["x"], "properties": {"x": {"enum": []}}}, "no answer fits it"),
        ({"type": "object", "required": ["x"], "additionalProperties": False}, "no answer fits it"),
    ],
)
async def test_a_schema_that_no_answer_could_be_held_against_is_told_to_the_model(
    schema: dict[str, Any], told: str
) -> None:
    """Nobody is asked."""
    clerk = Clerk(ask_human, {"question": "How long?", "answer_schema": schema})
    assert await clerk.begin() == []
    assert told in str((await clerk.go_on()).output)


async def test_several_questions_of_one_turn_are_told_apart() -> None:
    """By the order in which the model asked."""
    clerk = Clerk(ask_human, {"question": "When?"}, {"question": "Where?"})
    asked = {q.prompt: q.path for q in await clerk.begin()}
    await answer(clerk.journal, "r", "here", asked["Where?"])
    assert (await clerk.go_on()).stop_reason is StopReason.WAITING
    await answer(clerk.journal, "r", "now", asked["When?"])
    assert (await clerk.go_on()).output == "now | here"


async def test_a_developer_may_state_the_answers_type() -> None:
    """The model then states only the question."""
    confirm = AskHuman(bool, name="confirm", description="Ask whether to go on.")
    clerk = Clerk(confirm, {"question": "Shall I?"})
    (asked,) = await clerk.begin()
    assert (asked.path, asked.schema) == ("clerk/confirm/ask", {"type": "boolean"})
    await answer(clerk.journal, "r", False)
    assert (await clerk.go_on()).output == "false"
    spec = tool_spec(confirm)
    assert (spec.description, set(spec.parameters["properties"])) == ("Ask whether to go on.", {"question"})
    with pytest.raises(DefinitionError, match="odd: no JSON schema for answers of"):
        AskHuman(object(), name="odd")


@pytest.mark.parametrize(
    ("options", "told"),
    [({}, "Nobody has answered in time."), ({"output": bool, "default": False}, "false")],
)
async def test_nobody_needs_to_answer_in_time(options: dict[str, Any], told: str) -> None:
    """The agent goes on with the default, or is told."""
    clerk = Clerk(AskHuman(timeout=60, **options), {"question": "Shall I?"})
    await clerk.begin()
    record = await clerk.journal.events("r")
    passed = [msgspec.structs.replace(e, until=e.at) if isinstance(e, ev.QuestionAsked) else e for e in record]
    clerk.journal = await journal_of("r", passed)
    assert (await clerk.go_on()).output == told


async def test_a_graph_asks_too() -> None:
    """As a node it takes the question."""
    journal = MemoryJournal()
    confirm = AskHuman(bool)
    await run(confirm, "Shall I?", journal=journal, run_id="r")
    await answer(journal, "r", True)
    assert (await resume(confirm, "r", journal=journal)).output is True
    bounds = foresee(confirm, "Shall I?")
    assert (bounds.steps.least, bounds.steps.greatest) == (2, 2)


class Code(BaseModel):
    """Hold a word that no linear engine could check."""

    model_config = ConfigDict(regex_engine="python-re")

    code: str = Field(pattern="^(?!no)[a-z]+$")


async def test_what_a_schema_cannot_check_the_type_does() -> None:
    """An answer that it refuses is asked for again; the default need not fit."""
    clerk = Clerk(AskHuman(Code, timeout=60), {"question": "Which?"})
    await clerk.begin()
    await answer(clerk.journal, "r", {"code": "nope"})
    assert (await clerk.go_on()).stop_reason is StopReason.WAITING
    (question,) = await inbox(clerk.journal)
    assert "String should match pattern" in str(question.asked.about["refused"])
    await answer(clerk.journal, "r", {"code": "yes"})
    assert (await clerk.go_on()).output == '{"code":"yes"}'


async def test_a_pattern_of_a_model_holds_nobody_up() -> None:
    """Python's own expressions would try all ways to match."""
    clerk = Clerk(ask_human, {"question": "What?", "answer_schema": {"type": "string", "pattern": "^(a+)+$"}})
    await clerk.begin()
    began = time.process_time()
    with pytest.raises(InvalidArguments, match="does not match"):
        await answer(clerk.journal, "r", "a" * 40 + "!")
    assert time.process_time() - began < 10
    await answer(clerk.journal, "r", "aaa")
    assert (await clerk.go_on()).output == "aaa"
