"""Batches: documents cut into pieces, as many at a time as are written at once."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from os import PathLike
from typing import Final, TypeAlias

import anyio.to_thread

from agentrt.errors import DefinitionError
from agentrt.index.changes import Chunk, Cut, cut
from agentrt.index.document import Document

Documents: TypeAlias = Iterable[Document] | AsyncIterable[Document]
MOST_PIECES: Final = 1000
_MOST_CHARACTERS: Final = 1_000_000


def check_documents(documents: object) -> None:
    """Raise `DefinitionError` for what is no iterable of documents, and looks like one."""
    if isinstance(documents, Document):
        raise DefinitionError("an update takes documents: write update([document])")
    if isinstance(documents, str | bytes | PathLike):
        raise DefinitionError(f"{documents!r} is no document: write update(load(PATH)) with agentrt.index.load")
    if not isinstance(documents, Iterable | AsyncIterable):
        raise DefinitionError(f"{documents!r} holds no documents: an update takes an iterable of Document")


class _Batch:
    """Gather documents until there are enough to write."""

    def __init__(self) -> None:
        self.cuts: list[Cut] = []
        self._characters = self._pieces = 0

    def add(self, document: Cut) -> bool:
        """Take a document; say whether the batch is full."""
        self.cuts.append(document)
        self._pieces += len(document.pieces)
        self._characters += sum(len(piece.passage.text) for piece in document.pieces)
        return self._pieces >= MOST_PIECES or self._characters >= _MOST_CHARACTERS


async def batches(documents: Documents, chunk: Chunk) -> AsyncIterator[list[Cut]]:
    """Yield documents as they come, cut in a thread."""
    if isinstance(documents, AsyncIterable):
        batch = _Batch()
        async for document in documents:
            if batch.add(await anyio.to_thread.run_sync(cut, document, chunk)):
                yield batch.cuts
                batch = _Batch()
        if batch.cuts:
            yield batch.cuts
    else:
        left = iter(documents)
        while cuts := await anyio.to_thread.run_sync(_next_batch, left, chunk):
            yield cuts


def _next_batch(documents: Iterator[Document], chunk: Chunk) -> list[Cut]:
    batch = _Batch()
    for document in documents:
        if batch.add(cut(document, chunk)):
            break
    return batch.cuts
