"""A node that brings an index up to date: embedding is then paid from the run's budget, and in its record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict

from agentrt.budget import Budget
from agentrt.embedding import Embeddings, Vector, embed_all
from agentrt.errors import DefinitionError
from agentrt.index.batches import Documents
from agentrt.index.changes import Changes, Chunk, Survey, whole
from agentrt.index.document import Document
from agentrt.index.stored import StoredIndex
from agentrt.interval import Interval, Outlook, anything
from agentrt.node import Context, Node
from agentrt.retry import Retry


class Indexer(Node[Sequence[Document], Changes]):
    """Update an index with the documents of its input, or with those of `documents`; see `StoredIndex.update`.

    documents: what makes them, where they are too many for an input, which is part of the run's record.
    retry: for calls of the embedder; the errors of providers that pass are worth it.
    limit: how many of those calls are made at once.

    A run that is resumed goes through the documents again: what it had embedded is answered from its record, and what
    it had written stays. They have to be the same, or it is refused (`ReplayMismatch`): a new run writes what changed.
    """

    kind = "index"
    effect = "idempotent"

    def __init__(
        self,
        name: str,
        index: StoredIndex,
        *,
        documents: Documents | None = None,
        chunk: Chunk = whole,
        prune: bool | Callable[[str], bool] = False,
        retry: Retry | None = None,
        limit: int = 4,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(name, input=list[Document], output=Changes, budget=budget)
        if limit < 1:
            raise DefinitionError(f"{name}: limit={limit}: make at least one call at a time")
        if isinstance(documents, Iterator | AsyncIterator):  # what is not there a second time would be pruned
            raise DefinitionError(
                f"{name}: documents= can be gone through only once: give what every run can, a list or load(…)"
            )
        self.index = index
        self._documents = documents
        self._chunk = chunk
        self._prune = prune
        self._limit = limit
        made_by = index.made_by
        self._embeddings = None if made_by is None else Embeddings(made_by, retry=retry)
        self.parts = () if self._embeddings is None else (self._embeddings,)

    def interval(self, outlook: Outlook) -> Interval:
        return Interval() if self._embeddings is None else anything(outlook.path, "embeds any number of texts")

    async def invoke(self, ctx: Context, value: Sequence[Document], /) -> Changes:
        async def embed(texts: Sequence[str]) -> Sequence[Vector]:
            assert self._embeddings is not None
            return await embed_all(ctx, self._embeddings, texts, limit=self._limit)

        def settle(name: str, survey: Survey) -> Survey:
            return Survey(**ctx.draw(name, lambda: asdict(survey)))

        documents = value if self._documents is None else self._documents
        return await self.index.update(documents, chunk=self._chunk, embed=embed, settle=settle, prune=self._prune)
