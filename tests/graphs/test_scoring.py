"""Scoring: what counts as solved, as wrong, and as not said."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrt import Agent, Context, FunctionNode, run
from agentrt.events import Emitted
from agentrt.testing import ScriptedModel
from agentrt_graphs import Case, Score, score

pytestmark = pytest.mark.anyio
CASES = [Case(question="Name?", answers=["Ada Bloom", "Ada"]), Case(question="Age?", answers=[])]


@pytest.mark.parametrize(
    ("answer", "answers", "verdict"),
    [
        ("Ada", ["Ada Bloom", "Ada"], "solved"),
        ("the ada bloom.", ["Ada Bloom"], "solved"),
        ('"Ada"', ["Ada"], "solved"),
        ("98.0", ["98"], "solved"),
        ("Otter, Tern", ["Tern, Otter"], "solved"),
        ("Otter", ["Tern, Otter"], "wrong"),
        ("Ada Bloom", ["Ada"], "wrong"),
        ("", ["Ada"], "wrong"),
        (None, ["Ada"], "not said"),
        (None, [], "solved"),
        ("Ada", [], "wrong"),
    ],
)
def test_an_answer_is_compared(answer: str | None, answers: list[str], verdict: str) -> None:
    """With all that are right, in full; to say nothing is right where there is none."""
    assert Case(question="?", answers=answers).verdict(answer) == verdict


def test_cases_are_read_from_lines(tmp_path: Path) -> None:
    """A JSON object each."""
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(case.model_dump_json() + "\n" for case in CASES), encoding="utf-8")
    assert Case.read(file) == CASES


async def tell(question: str) -> str:
    if question == "Name?":
        return "Ada"
    raise ValueError("too private")


async def test_what_fails_says_nothing() -> None:
    """Its row holds the reason, and the others are counted all the same; the count is told."""
    said: list[object] = []

    async def main(cases: list[Case], ctx: Context) -> Score:
        return await score(ctx, FunctionNode(tell), cases, lambda answer: answer)

    cases = [*CASES, Case(question="Home?", answers=["Vell"])]
    output = (await run(main, cases, observers=[said.append])).output
    assert (output.solved, output.wrong, output.not_said) == (2, 0, 1)
    assert [(row.answer, row.verdict) for row in output.rows] == [
        ("Ada", "solved"),
        ("too private", "solved"),
        ("too private", "not said"),
    ]
    (told,) = [event.value for event in said if isinstance(event, Emitted)]
    assert str(told).startswith("solved 2 of 3, 0 wrong, 1 not said, with 0 tokens in ")


async def test_tokens_are_those_spent_meanwhile() -> None:
    """What was spent before is left out."""
    agent = Agent("agent", model=ScriptedModel(["warm", "Ada", "none"]))

    async def main(question: str, ctx: Context) -> tuple[int, int]:
        await ctx.run(agent, question)
        before = int(ctx.budget.spent["tokens"])
        return before, (await score(ctx, agent, CASES, lambda answer: None if answer == "none" else answer)).tokens

    result = await run(main, "Name?")
    before, tokens = result.output
    assert 0 < tokens == result.usage.tokens - before
