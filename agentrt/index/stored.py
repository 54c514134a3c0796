"""Stored indexes: what all of them have in common, wherever they keep their passages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, Literal, Self, TypeAlias

import anyio
import anyio.to_thread

from agentrt.embedding import Embedder, Vector, vectors_of
from agentrt.embedding import embedder as embedder_named
from agentrt.errors import DefinitionError, IndexTaken
from agentrt.group import one_error
from agentrt.index.batches import MOST_PIECES, Documents, batches, check_documents
from agentrt.index.changes import (
    Change,
    Changes,
    Chunk,
    Cut,
    StoredDocument,
    Survey,
    change,
    digest_of,
    whole,
)
from agentrt.index.conditions import checked_where, storable
from agentrt.index.made import Made
from agentrt.passage import Passage
from agentrt.retrieval import Query, plain_query

Mode: TypeAlias = Literal["hybrid", "text", "vector"]
Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[Vector]]]
Settle: TypeAlias = Callable[[str, Survey], Survey]
"""Is told what is to be done, and by what name that goes; returns what was to be done when it was first looked at."""

DEPTH: Final = 100
"""How many passages of each ranking are fused, at least."""
TITLE_WEIGHT: Final = 4.0
"""How much more a word counts in a title than in the text."""
K1: Final = 1.7
"""How late BM25 takes a word that comes again for nothing new; both were chosen on the odd queries of Cranfield."""
_CALLS_AT_ONCE: Final = 4
_MOST_FOUND: Final = 1_000_000
_LOOK_EVERY: Final = 0.05


class StoredIndex(ABC):
    """Find passages by their words (BM25 or the like), their meaning (vectors), or both, fused by reciprocal rank.

    mode: "hybrid" for both, "text" or "vector" for one of them; an index without an embedder only has "text".
    weights: of the two rankings in a hybrid search, by words and by meaning.
    """

    def __init__(
        self,
        embedder: Embedder | str | None,
        mode: Mode,
        weights: tuple[float, float],
    ) -> None:
        if mode not in {"hybrid", "text", "vector"}:
            raise DefinitionError(f"mode={mode!r}: use hybrid, text or vector")
        self._is_own = isinstance(embedder, str)
        self._embedder = embedder_named(embedder) if isinstance(embedder, str) else embedder
        self._made: Made | None = None if self._embedder is None else Made.by(self._embedder)
        self.mode: Mode = mode
        self.weights = weights
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def embedder(self) -> Embedder | None:
        """Return what makes the vectors of queries; None where they need none."""
        return None if self.mode == "text" else self._embedder

    @property
    def made_by(self) -> Embedder | None:
        """Return what makes the vectors of passages, whatever the mode."""
        return self._embedder

    async def search(self, query: str | Query, k: int = 5) -> list[Passage]:
        """Return at most k passages, the one that fits best first.

        A hybrid `score` is the sum of weight / (60 + rank), a text one that of the words, a vector one the cosine: the
        nearest vectors are found however far they are. A query without a vector is embedded here, outside every budget:
        retrievers, which bring it along, ask within the run's. Raises `DefinitionError` for conditions and vectors that
        cannot be compared.
        """
        self._must_be_open()
        query = Query.of(query)
        if k < 1:
            return []
        text, where = plain_query(storable(query.text)), checked_where(query.where)
        return await self._find(Query(text, await self._vector(text, query.vector), where), min(k, _MOST_FOUND))

    async def _vector(self, text: str, given: Vector | None) -> Vector | None:
        """Return the vector of a query, None where none is compared."""
        if self.embedder is None:
            return None
        if given is None:
            (given,) = await vectors_of(self.embedder, [text])
        if len(given) != self.embedder.dimensions:
            raise DefinitionError(f"{self!r} has vectors of {self.embedder.dimensions} numbers, the query {len(given)}")
        return given

    async def update(
        self,
        documents: Documents,
        *,
        chunk: Chunk = whole,
        embed: Embed | None = None,
        settle: Settle | None = None,
        prune: bool | Callable[[str], bool] = False,
        wait: float = 60.0,
    ) -> Changes:
        """Bring the index up to date with documents: what has not changed is neither written nor embedded again.

        Documents are taken as they come, some at a time, and each batch is kept whole or not at all. Sync iterables
        are gone through, and documents are chunked, in a thread.

        chunk: cuts a document into passages.
        embed: makes the vectors, where they are to be made within a budget; else the embedder is asked as it is.
        settle: decides what is embedded, where a run that goes on has to embed what it did; see `Indexer`.
        prune: removes the documents that were not among these: all, or those of whose source it says so.
        wait: how many seconds it waits for another update, of any process, to end.

        Raises `IndexTaken` where that takes longer, and `DefinitionError` for two documents of one source.
        """
        check_documents(documents)
        embed, settle = embed or self._embed, settle or _as_it_is
        total, seen = Changes(), set[str]()
        async with self._turn(wait):
            self._must_agree(await self._made_with())
            async for batch in batches(documents, chunk):
                for document in batch:
                    if document.source in seen:
                        raise DefinitionError(f"two documents are named {document.source!r}: sources name documents")
                    seen.add(document.source)
                total += await self._take(batch, embed, settle)
            if prune:
                gone = [source for source in await self.sources() if source not in seen]
                if callable(prune):
                    gone = list(filter(prune, gone))
                total += settle("prune", Survey(removed=len(gone))).changes()
                await self._remove(gone)
        return total

    async def remove(self, sources: Iterable[str], *, wait: float = 60.0) -> Changes:
        """Remove documents by their sources; those that are not there are none. `wait` is as for `update`."""
        async with self._turn(wait):
            return await self._remove([sources] if isinstance(sources, str) else list(sources))

    @abstractmethod
    async def sources(self) -> list[str]:
        """Return the sources of all documents, in order."""

    @abstractmethod
    async def passages(self, source: str) -> list[Passage]:
        """Return the passages of a document, in order; none if it is not there."""

    @abstractmethod
    async def note(self, name: str) -> str | None:
        """Return what was written down in the index under a name; None if nothing was."""

    @abstractmethod
    async def write_note(self, name: str, text: str) -> None:
        """Write something down in the index, such as where its documents come from; no search finds it."""

    async def aclose(self) -> None:
        """Release what is open, and the embedder if it was given by name; nothing can be asked any more."""
        if not self._is_closed:
            self._is_closed = True
            await self._close()
            if self._embedder is not None and self._is_own:
                await self._embedder.aclose()

    @abstractmethod
    async def _close(self) -> None:
        """Release what is open."""

    @abstractmethod
    async def _made_with(self) -> Made | None:
        """Return the embedder that the index has noted."""

    @abstractmethod
    def _writing(self) -> AbstractAsyncContextManager[object]:
        """Be the only one who writes; raises `IndexTaken`."""

    @abstractmethod
    async def _stored(self, sources: Sequence[str]) -> Mapping[str, StoredDocument]:
        """Return what is stored of documents, those that are."""

    @abstractmethod
    async def _known(self, contents: Sequence[bytes]) -> Mapping[bytes, Vector]:
        """Return the vectors that are stored of contents, by hash."""

    @abstractmethod
    async def _write(self, changes: Sequence[Change], vectors: Mapping[bytes, Vector]) -> None:
        """Carry out changes, all or none."""

    @abstractmethod
    async def _delete(self, sources: Sequence[str]) -> int:
        """Delete documents and return how many there were."""

    @abstractmethod
    async def _find(self, query: Query, k: int) -> list[Passage]:
        """Search as `mode` says; the query has a vector where that takes one."""

    async def _take(self, batch: Sequence[Cut], embed: Embed, settle: Settle) -> Changes:
        stored = await self._stored([document.source for document in batch])
        found = [change(document, stored.get(document.source)) for document in batch]
        changes = [c for c in found if c is not None]
        texts = {piece.content: piece.text for document in batch for piece in document.pieces}
        known = await self._known_of(changes)
        survey = settle(digest_of(batch).hex(), _survey(found, texts, known))
        vectors = await self._vectors(survey, texts, known, embed)
        if changes:
            await self._write(changes, vectors)
        return survey.changes()

    async def _known_of(self, changes: Sequence[Change]) -> Mapping[bytes, Vector | None]:
        """Return the contents that are new in the index, each with its vector where that is known."""
        new = list(dict.fromkeys(piece.content for c in changes for piece in c.added))
        if self._embedder is None or not new:
            return {}
        return dict.fromkeys(new) | dict(await self._known(new))

    async def _vectors(
        self, survey: Survey, texts: Mapping[bytes, str], known: Mapping[bytes, Vector | None], embed: Embed
    ) -> Mapping[bytes, Vector]:
        """Return the vectors of new contents by their hash: those that are known, those that the survey says are not,
        and those that have gone missing since.
        """
        contents = list(texts)
        asked = [contents[place] for place in survey.missing]
        made = await self._made_of(asked, texts, embed)
        gone = [content for content, vector in known.items() if vector is None and content not in made]
        made |= await self._made_of(gone, texts, embed)
        return {content: vector for content, vector in known.items() if vector is not None} | made

    async def _made_of(
        self, contents: Sequence[bytes], texts: Mapping[bytes, str], embed: Embed
    ) -> dict[bytes, Vector]:
        if not contents:
            return {}
        return dict(zip(contents, await embed([texts[content] for content in contents]), strict=True))

    async def _embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """Ask the embedder in batches, some at once."""
        assert self._embedder is not None
        embedder, size = self._embedder, self._embedder.batch_size
        made: dict[int, Sequence[Vector]] = {}
        limit = anyio.Semaphore(_CALLS_AT_ONCE)

        async def ask(start: int) -> None:
            async with limit:
                made[start] = await vectors_of(embedder, texts[start : start + size])

        async with one_error(), anyio.create_task_group() as tasks:
            for start in range(0, len(texts), size):
                tasks.start_soon(ask, start)
        return [vector for start in sorted(made) for vector in made[start]]

    async def _remove(self, sources: Sequence[str]) -> Changes:
        removed = 0
        for i in range(0, len(sources), MOST_PIECES):
            removed += await self._delete(sources[i : i + MOST_PIECES])
        return Changes(removed=removed)

    @asynccontextmanager
    async def _turn(self, wait: float) -> AsyncIterator[None]:
        """Be the only one who writes, as soon as nobody else does."""
        self._must_be_open()
        deadline = anyio.current_time() + wait
        async with AsyncExitStack() as stack:
            while True:
                try:
                    await stack.enter_async_context(self._writing())
                    break
                except IndexTaken:
                    if anyio.current_time() >= deadline:
                        raise
                await anyio.sleep(_LOOK_EVERY)
            yield

    def _take_embedder(self, made_with: Made | None, *, is_new: bool) -> Made | None:
        """Take the embedder of the index where none was given; return the one that is to be noted in it.

        is_new: whether the index has no documents yet, and so may have any. Raises `DefinitionError` for another one.
        By words alone it can be searched without, whoever has made it.
        """
        if self._made is None:
            if made_with is not None and self.mode != "text":
                self._embedder, self._is_own, self._made = made_with.again(), True, made_with
            return None
        if not is_new:
            self._must_agree(made_with)
        return None if self._made == made_with else self._made

    def _must_agree(self, made_with: Made | None) -> None:
        """Raise `DefinitionError` where the index was made with another embedder than this one has."""
        if self._made == made_with:
            return
        if self._made is None or made_with is None:
            reason = f"was made {_told(made_with)}, not {_told(self._made)}: its passages stay as they are"
        else:
            reason = (
                f"was made {_told(made_with)}, not {_told(self._made)}: vectors of two embedders cannot be compared"
            )
        raise DefinitionError(f"{self!r} {reason}; open it as it was made, or make another index")

    def _must_be_open(self) -> None:
        if self._is_closed:
            raise DefinitionError(f"{self!r} is closed: use it within its `async with`, or before aclose()")


def _as_it_is(_: str, survey: Survey) -> Survey:
    return survey


def _survey(found: Sequence[Change | None], texts: Mapping[bytes, str], known: Mapping[bytes, Vector | None]) -> Survey:
    new = sum(c is not None and c.id is None for c in found)
    unchanged = sum(c is None for c in found)
    missing = [place for place, content in enumerate(texts) if content in known and known[content] is None]
    return Survey(added=new, changed=len(found) - new - unchanged, unchanged=unchanged, missing=missing)


def _told(made: Made | None) -> str:
    return "without an embedder" if made is None else f"with {made.name} ({made.dimensions} dimensions)"
