"""Stopped runs: the roots of those that may yet go on, which are then linked to."""

from __future__ import annotations

from typing import ClassVar, Final

from opentelemetry.trace import Link, Span

from agentrt.tracing import conventions as c
from agentrt.usage import Usage

MOST_STOPPED: Final = 1024
"""Stopped runs that are remembered; the oldest is forgotten first."""


class Stopped:
    """Remember the last root of a run that its budget stopped, and what it had used by then."""

    __slots__ = ("attempt", "context", "usage")
    _kept: ClassVar[dict[str, Stopped]] = {}

    def __init__(self, root: Span, usage: Usage, attempt: int) -> None:
        self.context = root.get_span_context()
        self.usage = usage
        self.attempt = attempt

    def keep(self, run_id: str) -> None:
        self._kept[run_id] = self
        if len(self._kept) > MOST_STOPPED:
            del self._kept[next(iter(self._kept))]

    @classmethod
    def recall(cls, run_id: str) -> Stopped | None:
        return cls._kept.pop(run_id, None)

    def link(self) -> Link:
        return Link(self.context, {c.LINK_TYPE: "resume"})
