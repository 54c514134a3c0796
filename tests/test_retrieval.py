"""Retrievers over indexes of one's own, and functions that need none."""

from __future__ import annotations

from typing import Any

import pytest

from agentrt import (
    Agent,
    Budget,
    BudgetExceeded,
    CitedAnswer,
    Passage,
    ProposedCall,
    Query,
    Retriever,
    StepFailed,
    resume,
    run,
)
from agentrt.errors import DefinitionError
from agentrt.events import Event, UsageReserved
from agentrt.forecast import foresee
from agentrt.passage import shown_within
from agentrt.people import approve, inbox
from agentrt.permission import Verdict
from agentrt.stores import MemoryJournal
from agentrt.testing import FunctionEmbedder, ScriptedModel, call
from agentrt.usage import Price

pytestmark = pytest.mark.anyio


class Bells:
    """Find the one passage there is."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | Query, int]] = []

    async def search(self, query: str | Query, k: int) -> list[Passage]:
        self.asked.append((query, k))
        return [Passage(text="The bells ring at noon.", source="parish.md")]


async def test_an_index_needs_no_more_than_a_search() -> None:
    """The tool asks for a query; what it finds can be cited."""
    bells = Bells()
    answer = '{"text": "at noon", "citations": ["parish.md#0"]}'
    with ScriptedModel([call("parish", query="bells"), answer]) as model:
        agent = Agent("clerk", model=model, tools=[Retriever("parish", bells, k=2)], output=CitedAnswer)
        result = await run(agent, "When do they ring?")
    assert result.output.citations[0].text == "The bells ring at noon."
    assert bells.asked == [(Query("bells"), 2)]
    (tool,) = model.requests[0].tools
    assert tool.parameters["properties"]["query"]["description"] == "What to look for: a question, or some words."


class Books:
    """Find passages as long as books, and a short one."""

    async def search(self, query: str | Query, k: int) -> list[Passage]:
        huge = [Passage(text=c * 3_500_000, source=c, metadata={"n": 1}) for c in "ab"]
        return [*huge, Passage(text="The bells ring at noon.", source="parish.md")]


async def test_a_model_reads_no_more_than_it_can() -> None:
    """Of long passages it reads the beginnings, and is told so; what cites them, and code, gets them whole."""
    with ScriptedModel([call("books", query="bells"), '{"text": "at noon", "citations": ["a#0"]}']) as model:
        result = await run(Agent("clerk", model=model, tools=[Retriever("books", Books())], output=CitedAnswer), "?")
    told = model.requests[1].messages[-1].text
    assert 7_500 < len(told) < 8_500
    assert "aaa\\n… 3,496,0" in told
    assert "The bells ring at noon." in told
    assert len(result.output.citations[0].text) == 3_500_000
    assert len((await run(Retriever("books", Books()), "bells")).output[0].text) == 3_500_000


def test_what_is_shown_is_bounded() -> None:
    """The longest are cut to one length; metadata without measure are left out."""
    texts = [Passage(text=c * n, source=c) for c, n in (("a", 10), ("b", 500), ("c", 700))]
    shown = shown_within(texts, 600)
    assert [len(str(one["text"]).split("\n")[0]) for one in shown] == [10, 257, 257]
    assert str(shown[2]["text"]).endswith("\n… 443 more characters, which are not shown")
    assert [one["text"] for one in shown_within(texts, 5_000)] == [p.text for p in texts]
    odd = Passage(text="x", source="s", metadata={str(n): n for n in range(999)})
    assert shown_within([odd], 600) == [{"id": "s#0", "text": "x"}]
    assert shown_within([], 600) == []


async def test_a_function_that_returns_passages_is_enough() -> None:
    """They can be cited like those of a retriever."""

    async def parish(query: str) -> list[Passage]:
        """Search the parish records."""
        return [Passage(text=query, source="parish.md")]

    answer = '{"text": "x", "citations": ["parish.md#0"]}'
    with ScriptedModel([call("parish", query="bells"), answer]) as model:
        result = await run(Agent("clerk", model=model, tools=[parish], output=CitedAnswer), "?")
    assert result.output.citations[0].text == "bells"


def parish(query: str) -> list[Passage]:
    return []


@pytest.mark.parametrize(
    ("index", "told"),
    [
        (parish, r"a function that returns passages is a tool as it is: write tools=\[r\]"),
        (Bells, "is no index: that is an object with an async search"),
        ("docs.db", "'docs.db' is no index"),
    ],
)
def test_what_is_no_index_is_told(index: Any, told: str) -> None:
    """When the retriever is made, with what it lacks."""
    with pytest.raises(DefinitionError, match=told):
        Retriever("r", index)


def test_nothing_cannot_be_wanted() -> None:
    """A retriever finds at least one passage."""
    with pytest.raises(DefinitionError, match="k=0: find at least one"):
        Retriever("r", Bells(), k=0)


async def test_what_is_no_passage_is_told() -> None:
    """With the retriever that found it."""

    class Texts:
        async def search(self, query: str | Query, k: int) -> Any:
            return ["text"]

    with pytest.raises(StepFailed, match=r"r: the index found \['text'\]: its search must return Passage objects"):
        await run(Retriever("r", Texts()), "x")


async def test_a_query_is_cut_and_composed() -> None:
    """So that no model makes it cost more than was foreseen; an accent is one with its letter."""
    bells = Bells()
    await run(Retriever("r", bells), "e\u0301" + "x" * 20_000)
    ((query, _),) = bells.asked
    assert isinstance(query, Query)
    assert (query.text[:2], len(query.text)) == ("\u00e9x", 9_999)


async def test_a_query_costs_no_more_than_the_window() -> None:
    """Whatever an embedder counts, of a text no more than that is billed, as the bounds say."""

    class Searched(Bells):
        embedder = FunctionEmbedder(lambda _: [1.0], 1, window=3, price=Price.per_million(input=1, output=0))

    retriever = Retriever("r", Searched())
    most = foresee(retriever, "x").tokens.greatest
    assert most == 3
    with pytest.raises(BudgetExceeded):
        await run(retriever, "one two three four five", budget=Budget(tokens=2))
    events: list[Event] = []
    await run(retriever, "one two three four five", journal=MemoryJournal(), observers=[events.append])
    assert [e.usage.tokens for e in events if isinstance(e, UsageReserved)] == [most]


def always(call: ProposedCall) -> Verdict:
    return "approve"


async def test_people_may_edit_a_query() -> None:
    """They are asked about a query, and the index is asked what they make of it."""
    bells, journal = Bells(), MemoryJournal()
    retriever = Retriever("parish", bells)

    await run(retriever, "bells", policy=always, journal=journal, run_id="a")
    (question,) = await inbox(journal)
    assert question.asked.about["arguments"] == {"query": "bells"}
    await approve(journal, "a", edit={"query": "clocks"})
    result = await resume(retriever, "a", policy=always, journal=journal)
    assert [asked for asked, _ in bells.asked] == [Query("clocks")]
    assert len(result.output) == 1
