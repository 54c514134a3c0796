"""Retrieval: a node that finds passages, and thus a tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agentrt.budget import Budget
from agentrt.interval import Interval, Outlook
from agentrt.node import Context, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Hold a piece of text with where it comes from: `source` names the document, `position` counts in it from 0."""

    text: str
    source: str
    position: int = 0
    title: str = ""
    score: float = 0.0


class Index(Protocol):
    """Find passages. `search` is called in the event loop and must not block it for long."""

    async def search(self, query: str, k: int) -> list[Passage]:
        """Return the k passages that fit the query best, the best first; fewer where fewer fit at all."""
        ...


class Retriever(Node[str, list[Passage]]):
    """Find the `k` passages of an index that fit a query."""

    kind = "retrieval"

    def __init__(
        self, name: str, index: Index, *, k: int = 3, description: str = "", budget: Budget | None = None
    ) -> None:
        super().__init__(
            name,
            input=str,
            output=list[Passage],
            description=description or f"Search {name} for passages about a query.",
            budget=budget,
        )
        self.index = index
        self.k = k
        self.attributes = {"k": k}

    def interval(self, outlook: Outlook) -> Interval:
        return Interval()

    async def invoke(self, ctx: Context, value: str, /) -> list[Passage]:
        return await self.index.search(value, self.k)
