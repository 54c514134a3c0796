"""Scoring: questions with known answers, put to any node, and how many of them it solves."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel

from agentrt import Context, Node

T = TypeVar("T")
Verdict = Literal["solved", "wrong", "not said"]


class Case(BaseModel):
    """A question with the answers that are right, each in full; none where only to say nothing is right."""

    question: str
    answers: list[str]

    @classmethod
    def read(cls, path: Path) -> list[Self]:
        """Return the cases of a file with a JSON object a line."""
        return [cls(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def verdict(self, answer: str | None) -> Verdict:
        """Say what an answer is worth; None is no answer. Names with commas between them may be in any order."""
        if answer is None:
            return "not said" if self.answers else "solved"
        return "solved" if _plain(answer) in map(_plain, self.answers) else "wrong"


class Row(BaseModel):
    """A question, what was answered, and what that is worth; no answer may have been right, or an error the reason."""

    question: str
    answer: str
    verdict: Verdict


class Score(BaseModel):
    """How many questions were solved, answered wrongly, and not answered, with the tokens and the seconds it took."""

    solved: int
    wrong: int
    not_said: int
    tokens: int
    seconds: float
    rows: list[Row]

    def __str__(self) -> str:
        return (
            f"solved {self.solved} of {len(self.rows)}, {self.wrong} wrong, {self.not_said} not said, "
            f"with {self.tokens:,} tokens in {self.seconds:.0f} s"
        )


async def score(ctx: Context, answerer: Node[str, T], cases: Sequence[Case], said: Callable[[T], str | None]) -> Score:
    """Put every question to the node, side by side, and count; the count is told as an event, too.

    said: the answer in what the node returns, or None where that says that it has none. A node that fails has none.
    The tokens are all that the caller spends meanwhile.
    """
    before, began = ctx.budget.spent["tokens"], time.perf_counter()
    rows = []
    for case, told in zip(cases, await ctx.gather([(answerer, case.question) for case in cases]), strict=True):
        failed = isinstance(told.outcome, Exception)
        answer = None if failed else said(told.outcome)
        shown = str(told.outcome)[:200] if failed else answer or ""
        rows.append(Row(question=case.question, answer=shown, verdict=case.verdict(answer)))
    counts = Counter(row.verdict for row in rows)
    result = Score(
        solved=counts["solved"],
        wrong=counts["wrong"],
        not_said=counts["not said"],
        tokens=int(ctx.budget.spent["tokens"] - before),
        seconds=round(time.perf_counter() - began, 1),
        rows=rows,
    )
    ctx.emit(str(result))
    return result


def _plain(answer: str) -> frozenset[str]:
    """Return what counts of an answer: no case, article, quotes, final dot, or fraction of a number that is zero."""
    parts = (part.strip().strip("\"'").rstrip(".").removesuffix(".0").lower() for part in answer.split(","))
    return frozenset(part.removeprefix("the ") for part in parts)
