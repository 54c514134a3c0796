"""Guidance: answers that people wanted to be kept, for later questions of the same kind."""

from __future__ import annotations

import re
from typing import Final

from pydantic_core import to_json

from agentrt.events import QuestionAnswered, QuestionAsked
from agentrt.value import Value

_BRANCH_OR_VISIT: Final = re.compile(r"\[[^\]]*\]|#[0-9]+")
_VERDICTS: Final = {"approve": "approved", "deny": "denied", "answer": "answered"}


class Guidance(Value):
    """Hold an answer that was kept, in whatever run of the same graph, and its question."""

    run_id: str
    asked: QuestionAsked
    answered: QuestionAnswered

    @property
    def place(self) -> str:
        return place_of(self.asked.path)

    def __str__(self) -> str:
        """Tell an agent, or a person: `pay({"amount": 20}): denied by ann: too expensive`."""
        answered, about = self.answered, self.asked.about
        asked = f"{about['tool']}({_json(about.get('arguments'))})" if self.asked.kind != "ask" else self.asked.prompt
        said = f"{_VERDICTS.get(answered.verdict, answered.verdict)} by {answered.by}"
        value = f" as {_json(answered.value)}" if answered.value is not None else ""
        return f"{asked}: {said}{value}" + (f": {answered.because}" if answered.because else "")


def place_of(path: str) -> str:
    """Return what all questions of a kind share: the path of the step that asks, without branches and visits."""
    return _BRANCH_OR_VISIT.sub("", path)


def _json(value: object) -> str:
    return to_json(value, fallback=str, inf_nan_mode="constants").decode()
