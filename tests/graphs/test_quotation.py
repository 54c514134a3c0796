"""Quotation: which passage is read, which answers may be one, and when nothing is said."""

from __future__ import annotations

import pytest

from agentrt import CitedAnswer, FunctionNode, ModelRequest, Passage, run
from agentrt.testing import FunctionModel
from agentrt_graphs import quotation
from agentrt_graphs.quotation import Evidence, Finding, best, is_about, is_possible, plain

pytestmark = pytest.mark.anyio
INN = Passage(
    text="Rooms cost 74 crowns a night. The landlady, Ismene Tark, keeps a telescope on the roof.",
    title="Inns > The Zura Inn",
    source="inns.md",
)
MARKET = Passage(text="The market fills Anchor Square on Thursdays.", title="Markets", source="markets.md")


async def ask(question: str, *answers: str) -> tuple[CitedAnswer, int]:
    """Ask three readers, who answer so one after the other; return how often they were asked, too."""

    async def library(query: str) -> list[Passage]:
        return [MARKET, INN]

    said = iter(answers)
    asked: list[ModelRequest] = []

    def reply(request: ModelRequest) -> str:
        asked.append(request)
        return next(said)

    result = await run(quotation(FunctionNode(library)), question, model=FunctionModel(reply))
    return result.output, len(asked)


async def test_what_two_readers_find_is_the_answer() -> None:
    """It is cited from the first passage that is about the question, whatever stands before it."""
    output, asked = await ask("Who keeps a telescope?", "Ismene Tark", "Odo Brasket", "Ismene Tark.")
    assert (output.text, output.citations, asked) == ("Ismene Tark", [INN], 3)


@pytest.mark.parametrize(
    "answers",
    [
        ("Ismene Tark", "the landlady", "a telescope"),
        ("Ada Bloom", "Ada Bloom", "Ada Bloom"),
        ("Ismene Tark", "74 crowns", "74 crowns"),
    ],
    ids=["none agree", "not in the passage", "a price is no person"],
)
async def test_nothing_is_said_where_readers_are_not_sure(answers: tuple[str, ...]) -> None:
    """Nor cited."""
    output, _ = await ask("Who keeps a telescope?", *answers)
    assert (output.text, output.citations) == ("The documents do not say.", [])


async def test_no_reader_is_asked_where_no_passage_is_about_the_question() -> None:
    """Which costs nothing."""
    output, asked = await ask("Who wrote Hamlet?")
    assert (output.text, asked) == ("The documents do not say.", 0)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("Who keeps a telescope at the Zura Inn?", True),
        ("Who keeps a telescope at the Copper Heron?", False),
        ("What do 9 nights cost?", False),
        ("What does a night cost?", True),
        ("What is the password of the server?", False),
    ],
)
def test_a_passage_is_about_names_numbers_and_words(question: str, told: bool) -> None:
    """All names and numbers, half of the words; headings count."""
    assert is_about(question, INN) is told


@pytest.mark.parametrize(
    ("question", "answer", "possible"),
    [
        ("Who is the landlady?", "Ismene Tark", True),
        ("Who is the landlady?", "the landlady", False),
        ("Which inn has a telescope?", "The Zura Inn", True),
        ("What does a night cost?", "74", True),
        ("What does a night cost?", "7", False),
        ("What does a night cost?", "crowns", False),
        ("In which year did it open?", "74", False),
        ("What does she keep?", "", False),
    ],
)
def test_an_answer_stands_in_the_passage(question: str, answer: str, possible: bool) -> None:
    """In whole words, of the kind that was asked for, and says what the question does not."""
    assert is_possible(Finding(question=question, passage=INN, text=answer)) is possible


def test_the_likeliest_sentence_is_shown() -> None:
    """Under the last of the headings; what has a number, where a number is asked for."""
    assert best(Evidence(question="What does a night cost?", passage=INN), 1) == (
        "The Zura Inn. Rooms cost 74 crowns a night."
    )
    assert best(Evidence(question="Who keeps a telescope?", passage=INN), 1).endswith("on the roof.")


def test_an_article_makes_no_difference() -> None:
    """Nor do case and signs."""
    assert plain("The Zura Inn.") == plain("zura inn")
