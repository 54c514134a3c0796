"""Earlier: what a part of a run takes over from the parts before it, whose spans are in other traces."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from opentelemetry.trace import Link

from agentrt.events import QuestionAnswered, RunResumed, RunStarted, StepStarted
from agentrt.tracing import conventions as c
from agentrt.tracing.carriers import followed
from agentrt.tracing.operations import Attributes
from agentrt.usage import Usage


class Earlier:
    """Hold what was left open before a part of a run; what it returns belongs on that part's root."""

    def __init__(self, opening: RunStarted | RunResumed) -> None:
        self.links: Sequence[Link] = ()
        self._is_resumed = False
        self._answers: dict[str, QuestionAnswered] = {}
        self._abandoned = 0
        self._in_doubt = Usage()
        if isinstance(opening, RunResumed):
            self.links = followed(opening.trace, opening.kind)
            self._is_resumed = opening.kind == "resume"
            self._answers = {answer.path: answer for answer in opening.answers}

    def answer(self, event: StepStarted) -> QuestionAnswered | None:
        """Return the answer that a step finds, as if given when it starts: no span has events from before it began."""
        answer = self._answers.pop(event.path, None)
        return None if answer is None else msgspec.structs.replace(answer, at=event.at)

    def abandon(self) -> Attributes:
        """Count a step whose span died with its process; what is open where a fork begins lives on elsewhere."""
        self._abandoned += self._is_resumed
        return {c.STEPS_ABANDONED: self._abandoned} if self._abandoned else {}

    def doubt(self, usage: Usage) -> Attributes:
        """Add up what is charged for calls that were cut off, whose bills nobody knows."""
        self._in_doubt += usage
        return {c.USAGE + "in_doubt_tokens": self._in_doubt.tokens, c.COST_IN_DOUBT: self._in_doubt.usd}
