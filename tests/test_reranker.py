"""Passages put in order by a model."""

from __future__ import annotations

import pytest

from agentrt import Budget, BudgetExceeded, Passage, Query, Reranker, Retriever, run
from agentrt.errors import DefinitionError
from agentrt.forecast import foresee
from agentrt.reranker import ranking
from agentrt.retrieval import Candidates
from agentrt.testing import FunctionModel, ScriptedModel

pytestmark = pytest.mark.anyio


class Shelf:
    """Hold four passages, a to d, and find them in this order."""

    embedder = None

    async def search(self, query: str | Query, k: int) -> list[Passage]:
        return [Passage(text=f"text {s}", source=s, title="T" if s == "a" else "") for s in "abcd"][:k]


def retriever(model: object, k: int = 2, **options: int) -> Retriever:
    return Retriever("shelf", Shelf(), k=k, rerank=Reranker(model=model), **options)  # type: ignore[arg-type]


async def test_the_models_order_counts() -> None:
    """The passages it names come first; the best k of all that were found are taken."""
    model = ScriptedModel(['{"result": [3, 1]}'])
    result = await run(retriever(model, k=3), "why?")
    assert [(p.source, p.score) for p in result.output] == [("c", 1.0), ("a", 0.5), ("b", pytest.approx(1 / 3))]
    (request,) = model.requests
    asked = request.messages[-1].text
    assert "[1] T: text a\n\n[2] text b" in asked
    assert asked.endswith("Query: why?")


@pytest.mark.parametrize(
    ("answer", "is_told"),
    [("no idea", True), ("5 2 1", True), ('{"result": ["a"]}', True), ('{"result": []}', False), ("[0, 9]", False)],
)
async def test_nonsense_leaves_the_order(answer: str, is_told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that names no passage changes nothing; one that cannot be read is warned of."""
    result = await run(retriever(ScriptedModel([answer])), "why?")
    assert [p.source for p in result.output] == ["a", "b"]
    assert ("rerank: the model's answer is no list of numbers" in caplog.text) == is_told


async def test_so_many_are_read() -> None:
    """The model reads the best `among`, and of each no more than so many characters."""
    model = ScriptedModel(['{"result": [3]}'])
    await run(retriever(model, among=3), "why?")
    assert "[4]" not in model.requests[0].messages[-1].text
    model = ScriptedModel(['{"result": [1]}'])
    passages = [Passage(text="x" * 99, source="s")] * 2
    await run(Reranker(model=model, characters=10), Candidates("q", passages))
    assert model.requests[0].messages[-1].text.count("x") == 20


async def test_one_passage_needs_no_order() -> None:
    """Nothing is asked where there is nothing to choose."""
    result = await run(Reranker(model=ScriptedModel([])), Candidates("q", [Passage(text="x", source="s")]))
    assert [p.source for p in result.output] == ["s"]


async def test_it_is_paid() -> None:
    """The call is a step of the run, within its budget."""
    result = await run(retriever(ScriptedModel(['{"result": [2]}'])), "why?")
    assert (result.usage.model_calls, result.usage.steps) == (1, 3)
    with pytest.raises(BudgetExceeded):
        await run(retriever(FunctionModel(lambda _: "[1]")), "why?", budget=Budget(tokens=10))


def test_bounds_know_the_call() -> None:
    """At most one call; none where nothing is found."""
    bounds = foresee(retriever(FunctionModel(lambda _: "[1]")), "why?")
    assert (bounds.model_calls.least, bounds.model_calls.greatest) == (0, 1)
    assert (bounds.steps.least, bounds.steps.greatest) == (2, 3)


def test_ranking() -> None:
    """Numbers that name no passage, or one twice, are passed over; the rest follow."""
    assert ranking([3, 3, 7, 0, 1], 4) == [2, 0, 1, 3]


def test_something_of_a_passage_is_read() -> None:
    """A model cannot judge what it does not see."""
    with pytest.raises(DefinitionError, match="characters=0"):
        Reranker(characters=0)
