"""Retrieval: a node that finds passages, and thus a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from agentrt.budget import Budget
from agentrt.embedding import Embedder, Embeddings
from agentrt.forecast import step_interval
from agentrt.interval import Interval, Outlook
from agentrt.node import Context, Node

Fact: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Hold a piece of text with where it comes from: `source` names the document, `position` counts in it from 0.

    start: where it begins in its document's text, in characters; page numbers and the like are `metadata`.
    """

    text: str
    source: str
    position: int = 0
    title: str = ""
    score: float = 0.0
    metadata: Metadata = field(default_factory=dict, hash=False)
    start: int | None = None

    @property
    def id(self) -> str:
        return f"{self.source}#{self.position}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Hold the least and the most that a value may be, both included; None leaves a side open."""

    least: float | str | None = None
    most: float | str | None = None


Condition: TypeAlias = Fact | Sequence[Fact] | Between
Where: TypeAlias = Mapping[str, Condition]
"""What the metadata of a passage must be, by name: a value, one of a list, or between two. All must hold."""


@dataclass(frozen=True, slots=True)
class Query:
    """Hold what is looked for: `text`, its `vector` for an index that compares meanings, and `where`."""

    text: str
    vector: Sequence[float] | None = None
    where: Where = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, query: str | Query) -> Query:
        return cls(query) if isinstance(query, str) else query


class Index(Protocol):
    """Find passages. `search` is called in the event loop and must not block it for long.

    `embedder` makes the vectors that queries should come with; None where the index needs none.
    """

    @property
    def embedder(self) -> Embedder | None: ...

    async def search(self, query: str | Query, k: int) -> list[Passage]:
        """Return the k passages that fit the query best, the best first; fewer where fewer fit at all.

        Raises `DefinitionError` for what the index cannot look for.
        """
        ...


class Retriever(Node[str, list[Passage]]):
    """Find the `k` passages of an index that fit a query, among those whose metadata is as `where` says."""

    kind = "retrieval"

    def __init__(
        self,
        name: str,
        index: Index,
        *,
        k: int = 3,
        where: Where | None = None,
        description: str = "",
        budget: Budget | None = None,
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
        self.where = where or {}
        self.attributes = {"k": k}
        self._embeddings = None if index.embedder is None else Embeddings(index.embedder, remember=1000)
        self.parts = () if self._embeddings is None else (self._embeddings,)

    def interval(self, outlook: Outlook) -> Interval:
        return Interval() if self._embeddings is None else step_interval(self._embeddings, outlook)

    async def invoke(self, ctx: Context, value: str, /) -> list[Passage]:
        vector = None
        if self._embeddings is not None:
            (vector,) = await ctx.run(self._embeddings, [value])
        return await self.index.search(Query(value, vector, self.where), self.k)
