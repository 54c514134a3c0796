"""Retrieval: a node that finds passages, and thus a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol, TypeAlias
from unicodedata import normalize

from agentrt.arguments import Arguments
from agentrt.budget import Budget
from agentrt.embedding import Embedder, Embeddings
from agentrt.errors import DefinitionError
from agentrt.forecast import step_interval
from agentrt.interval import Interval, Outlook
from agentrt.node import Context, Node
from agentrt.passage import Fact, Passage, shown_within


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Hold the least and the most that a value may be, both included; None leaves a side open."""

    least: float | str | None = None
    most: float | str | None = None


_LONGEST_QUERY: Final = 10_000

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
        """Return what is looked for; raises `DefinitionError` for what is neither text nor a query."""
        if not isinstance(query, str | Query):
            raise DefinitionError(f"{query!r:.100} is no query: write a text, or Query(text, where=…)")
        return cls(query) if isinstance(query, str) else query


def plain_query(text: str) -> str:
    """Return what of a query is looked at: the first 10,000 characters, each accent with its letter (NFC)."""
    return normalize("NFC", text[:_LONGEST_QUERY])


class Index(Protocol):
    """Find passages. `search` is called in the event loop and must not block it for long.

    One that compares vectors has an `embedder`, too, which makes those that queries then come with.
    """

    async def search(self, query: str | Query, k: int) -> list[Passage]:
        """Return the k passages that fit the query best, the best first; fewer where fewer fit at all.

        Raises `DefinitionError` for what the index cannot look for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """Hold the passages found for a query, the best first, for a node that puts them in a better order."""

    query: str
    passages: Sequence[Passage]


class Retriever(Node[str, list[Passage]]):
    """Find the `k` passages of an index that fit a query, among those whose metadata is as `where` says.

    index: any object with an async `search(query, k)` that returns passages; see `Index`.
    rerank: puts the best `among` passages in order before the best k are taken: a `Reranker`, or a node of yours.
    characters: how much a model that uses it as a tool reads of the passages, about: the longest are cut. Who calls it
        in code, and what cites them, gets them whole.
    untrusted: whether others may have written what the index holds; False where every document is your own.

    Of a query the first 10,000 characters are looked at. Raises `DefinitionError` for what is no index.
    """

    kind = "retrieval"
    argument = "query"
    effect = "read"

    def __init__(
        self,
        name: str,
        index: Index,
        *,
        k: int = 3,
        where: Where | None = None,
        rerank: Node[Candidates, list[Passage]] | None = None,
        among: int = 20,
        description: str = "",
        characters: int = 8_000,
        budget: Budget | None = None,
        untrusted: bool = True,
    ) -> None:
        super().__init__(
            name,
            input=str,
            output=list[Passage],
            description=description or f"Search {name} for passages about a query.",
            budget=budget,
        )
        if k < 1:
            raise DefinitionError(f"{name}: k={k}: find at least one passage")
        if characters < 1:
            raise DefinitionError(f"{name}: characters={characters}: let a model read something of what is found")
        self.characters = characters
        self.untrusted = untrusted
        self.index = _checked(name, index)
        self.k = k
        self.where = where or {}
        self.attributes = {"k": k}
        embedder: Embedder | None = getattr(index, "embedder", None)
        self._embeddings = None if embedder is None else Embeddings(embedder, remember=1000)
        self._rerank = rerank
        self._among = max(k, among)
        self.parts = [part for part in (self._embeddings, rerank) if part is not None]

    @cached_property
    def arguments(self) -> Arguments:
        return Arguments.of_field(self.name, self.argument, str, "What to look for: a question, or some words.")

    def shown(self, output: Sequence[Passage]) -> object:
        return shown_within(output, self.characters)

    def interval(self, outlook: Outlook) -> Interval:
        return sum((step_interval(part, outlook) for part in self.parts), Interval())

    async def invoke(self, ctx: Context, value: str, /) -> list[Passage]:
        value = plain_query(value)
        vector = None
        if self._embeddings is not None:
            (vector,) = await ctx.run(self._embeddings, [value])
        query = Query(value, vector, self.where)
        if self._rerank is None:
            return await self._search(query, self.k)
        found = await self._search(query, self._among)
        return (await ctx.run(self._rerank, Candidates(value, found)))[: self.k]

    async def _search(self, query: Query, k: int) -> list[Passage]:
        found: object = await self.index.search(query, k)
        if not isinstance(found, list | tuple) or not all(isinstance(one, Passage) for one in found):
            raise DefinitionError(
                f"{self.name}: the index found {found!r:.100}: its search must return Passage objects"
            )
        return list(found)


def _checked(name: str, index: Index) -> Index:
    """Return an index; raises `DefinitionError` for what is none, with what it lacks."""
    if callable(getattr(index, "search", None)) and not isinstance(index, type):
        return index
    if callable(index) and not isinstance(index, type):
        raise DefinitionError(f"{name}: a function that returns passages is a tool as it is: write tools=[{name}]")
    raise DefinitionError(f"{name}: {index!r} is no index: that is an object with an async search(query, k)")
