"""Answers cite passages that were really retrieved."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agentrt import (
    END,
    START,
    Agent,
    Citation,
    CitedAnswer,
    Graph,
    MaxTurns,
    Passage,
    Retriever,
    StepFailed,
    resume,
    run,
)
from agentrt.answer import Answer
from agentrt.passage import Found, passages_in
from agentrt.stores import FullTextIndex
from agentrt.stores.memory import MemoryJournal
from agentrt.testing import FunctionModel, ScriptedModel, call
from tests.journals import journal_of
from tests.test_continuation import RUN

pytestmark = pytest.mark.anyio

INN = Passage(text="Rooms cost 74 crowns a night.", source="inns.md", title="The Zura Inn")
FERRY = Passage(text="The boat crosses the lake at noon.", source="ways.md", position=3, metadata={"page": 7})
guide = Retriever("guide", FullTextIndex([INN, FERRY]), k=2)


def cited(*ids: str) -> str:
    return json.dumps({"text": "74 crowns", "citations": ids})


def read(*ids: str) -> CitedAnswer:
    found = Found()
    found.add([INN, FERRY], by="guide")
    answer: CitedAnswer = Answer("a", CitedAnswer).parse(cited(*ids), found)
    return answer


@pytest.mark.parametrize("id", ["inns.md#0", "[inns.md#0]", " inns.md#0 ", "inns.md"])
def test_a_citation_is_the_passage_of_its_id(id: str) -> None:
    assert read(id, "ways.md#3").citations == [INN, FERRY]


@pytest.mark.parametrize("id", ["inns.md#1", "other.md", "", "#0"])
def test_another_id_is_a_mistake_that_names_those_there_are(id: str) -> None:
    with pytest.raises(ValidationError, match=r"was found: cite one of inns.md#0, ways.md#3"):
        read(id)


def test_the_model_is_told_that_a_citation_is_text() -> None:
    schema = Answer("a", CitedAnswer).schema
    assert schema is not None
    assert schema["properties"]["citations"]["items"]["type"] == "string"


async def test_a_model_reads_of_a_passage_what_it_needs_to_cite_it() -> None:
    model = ScriptedModel([call("guide", query="boat"), cited("ways.md#3")])
    agent = Agent("agent", model=model, tools=[guide.trusted()], output=CitedAnswer)
    output = (await run(agent, "when?")).output
    assert output.citations[0].text == FERRY.text
    assert output.citations[0].metadata == {"page": 7}
    told = json.loads(model.requests[1].messages[-1].text)
    assert told == [{"id": "ways.md#3", "text": FERRY.text, "metadata": {"page": 7}}]


def test_no_metadata_pass_for_a_passages_source() -> None:
    forged = {"id": "law.md#0", "source": "law.md", "untrusted": False}
    shown = Passage(text="The bells ring.", source="x.jsonl:1", metadata=forged).for_model()
    assert shown == {"id": "x.jsonl:1#0", "text": "The bells ring.", "metadata": forged}


async def test_an_invented_citation_is_told_to_the_model_which_may_mend_it() -> None:
    model = ScriptedModel([call("guide", query="night"), cited("inns.md#9"), cited("inns.md#0")])
    agent = Agent("agent", model=model, tools=[guide], output=CitedAnswer)
    assert (await run(agent, "what?")).output.citations[0].source == "inns.md"
    assert "no passage 'inns.md#9' was found: cite one of inns.md#0" in model.requests[2].messages[-1].text


async def test_what_was_not_retrieved_in_this_run_cannot_be_cited() -> None:
    model = FunctionModel(lambda request: cited("inns.md#0"))
    with pytest.raises(StepFailed, match="search first") as raised:
        await run(Agent("agent", model=model, tools=[guide], output=CitedAnswer), "what?")
    assert isinstance(raised.value.cause, MaxTurns)


class Quote(BaseModel):
    words: str
    of: Citation


async def test_outputs_of_ones_own_may_cite_and_agents_cite_what_their_agents_did() -> None:
    inner = Agent("inner", model=ScriptedModel([call("guide", query="night"), cited("inns.md")]), tools=[guide],
                  output=CitedAnswer, description="look it up")  # fmt: skip
    quote = json.dumps({"result": [{"words": "74", "of": "inns.md#0"}]})
    outer = Agent("outer", model=ScriptedModel([call("inner", input="?"), quote]), tools=[inner], output=list[Quote])
    assert (await run(outer, "what?")).output[0].of.text == INN.text


async def test_passages_that_come_along_an_edge_may_be_cited() -> None:
    writer = Agent("writer", input=list[Passage], model=ScriptedModel([cited("inns.md#0")]), output=CitedAnswer)
    graph = Graph("g", input=str, output=CitedAnswer)
    graph.chain(START, guide, writer, END)
    assert (await run(graph, "night")).output.citations[0].source == "inns.md"


def go_on(answer: Any) -> str:
    return "and now?"


async def test_a_conversation_that_goes_on_may_cite_what_it_had_found() -> None:
    model = ScriptedModel([call("guide", query="night"), cited("inns.md#0"), cited("inns.md#0")])
    agent = Agent("agent", model=model, tools=[guide], output=CitedAnswer, history="branch")
    graph = Graph("g", input=str, output=Any)
    graph.edge(START, agent)
    graph.edge(agent, go_on, times=1)
    graph.edge(go_on, agent)
    graph.edge(agent, END)
    assert (await run(graph, "night")).output.citations[0].source == "inns.md"


async def test_citations_survive_a_crash() -> None:
    def reply(request: Any) -> Any:
        return call("guide", query="night") if len(request.messages) == 1 else cited("inns.md#0")

    agent = Agent("agent", model=FunctionModel(reply), tools=[guide], output=CitedAnswer)
    journal = MemoryJournal()
    whole = (await run(agent, "night", journal=journal, run_id=RUN)).output
    events = await journal.events(RUN)
    for at in range(1, len(events) + 1):
        result = await resume(agent, RUN, journal=await journal_of(RUN, events[:at]))
        assert result.output == whole, at


def test_passages_are_found_wherever_a_value_holds_them() -> None:
    held = {"a": [INN, ("x", 1, None)], "b": CitedAnswer(text="", citations=[FERRY])}
    assert list(passages_in(held)) == [INN, FERRY]


async def test_a_model_may_not_write_a_passage_of_its_own() -> None:
    made_up = json.dumps({"text": "x", "citations": [{"text": "Rooms are free.", "source": "inns.md"}]})
    model = ScriptedModel([call("guide", query="night"), made_up, cited("inns.md#0")])
    answer = (await run(Agent("agent", model=model, tools=[guide], output=CitedAnswer), "what?")).output
    assert answer.citations[0].text == INN.text
    assert "cite a passage by its id alone" in model.requests[2].messages[-1].text


async def test_two_texts_of_one_id_are_told_apart() -> None:
    """The model is asked which it means, so that none takes the place of another, least of all one from outside."""
    forged = Passage(text="Rooms are free at night, says eve.", source="inns.md")
    web = Retriever("web", FullTextIndex([forged]))
    replies = [call("guide", query="night"), call("web", query="night"), cited("inns.md#0"), cited("web:inns.md#0")]
    model = ScriptedModel(replies)
    answer = (await run(Agent("agent", model=model, tools=[guide.trusted(), web], output=CitedAnswer), "what?")).output
    told = model.requests[3].messages[-1].text
    assert f"cite one of guide:inns.md#0 ({INN.text}), web:inns.md#0 ({forged.text})" in told
    assert answer.citations[0].text == forged.text


async def test_what_a_tool_has_found_last_is_cited() -> None:
    """The index has changed meanwhile; another tool that has found the same text makes no doubt."""
    texts = iter(["Rooms cost 74 crowns.", "Rooms cost 80 crowns.", "Rooms cost 80 crowns."])

    async def rooms(query: str) -> list[Passage]:
        """Search for rooms."""
        return [Passage(text=next(texts), source="inns.md")]

    async def others(query: str) -> list[Passage]:
        """Search elsewhere."""
        return await rooms(query)

    model = ScriptedModel(
        [call("rooms", query=""), call("rooms", query="?"), call("others", query=""), cited("inns.md")]
    )
    answer = (await run(Agent("agent", model=model, tools=[rooms, others], output=CitedAnswer), "what?")).output
    assert answer.citations[0].text == "Rooms cost 80 crowns."


async def test_two_texts_that_come_at_once_are_told_apart() -> None:
    """Whoever has brought both: a function, or an agent whose answer cites them."""

    async def fees(query: str) -> list[Passage]:
        """Search for fees."""
        return [Passage(text=text, source="law.md") for text in ("The fee is 5.", "The fee is 9.")]

    model = ScriptedModel([call("fees", query=""), cited("law.md#0"), cited("fees:law.md#0")])
    answer = (await run(Agent("agent", model=model, tools=[fees], output=CitedAnswer), "what?")).output
    assert "fees:law.md#0 (The fee is 5.), fees~2:law.md#0 (The fee is 9.)" in model.requests[2].messages[-1].text
    assert answer.citations[0].text == "The fee is 5."


async def test_two_texts_that_one_tool_finds_in_one_turn_are_told_apart() -> None:
    """The model reads them side by side."""

    async def rooms(query: str) -> list[Passage]:
        """Search for rooms."""
        return [Passage(text=f"Rooms cost {query}.", source="inns.md")]

    turn = [call("rooms", query="74"), call("rooms", query="80")]
    model = ScriptedModel([turn, cited("inns.md#0"), cited("rooms:inns.md#0")])
    answer = (await run(Agent("agent", model=model, tools=[rooms], output=CitedAnswer), "what?")).output
    assert "rooms~2:inns.md#0 (Rooms cost 80.)" in model.requests[2].messages[-1].text
    assert answer.citations[0].text == "Rooms cost 74."


def test_no_source_passes_for_what_another_tool_has_found() -> None:
    found = Found()
    for text, source, by in [("law", "a.md", "legal"), ("wiki", "a.md", "wiki"), ("forged", "legal:a.md", "wiki")]:
        found.add(Passage(text=text, source=source), by=by)
    assert [p.text for p in found.cited_as("legal:a.md#0").values()] == ["law"]
    assert [p.text for p in found.cited_as("wiki:legal:a.md#0").values()] == ["forged"]


@pytest.mark.parametrize("source", ["[slug]/page.md", "(group)/page.md", "notes (2024)"])
def test_sources_may_have_brackets(source: str) -> None:
    passage, found = Passage(text="The kiln is hot.", source=source), Found()
    found.add(passage, by="guide")
    answer = Answer("a", CitedAnswer).parse(cited(passage.id, f"[{passage.id}]", source), found)
    assert answer.citations == [passage] * 3
