"""Changes: what of an index has to be written so that it holds a document as it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

from agentrt.errors import DefinitionError
from agentrt.index.conditions import storable, stored_facts
from agentrt.index.document import Document
from agentrt.passage import Passage

Chunk: TypeAlias = Callable[[Document], Iterable[Passage]]
"""Cuts a document into passages; their `source` and `position` are set by the index."""


def whole(document: Document) -> Iterable[Passage]:
    """Return the document as one passage, none if it has no text."""
    if document.text.strip():
        yield Passage(text=document.text, source=document.source, start=0)


@dataclass(frozen=True, slots=True)
class Piece:
    """Hold one passage of a document as it is to be stored.

    content: the hash of what is searched and embedded, `text`; place: the hash of the rest.
    """

    passage: Passage
    content: bytes
    place: bytes

    @property
    def text(self) -> str:
        """Return what is embedded: the title tells what the text is about."""
        return embedded_text(self.passage)


def embedded_text(passage: Passage) -> str:
    """Return the text of a passage that its vector is made of."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """Hold of a piece in the index what is compared."""

    id: int
    content: bytes
    place: bytes


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """Hold of a document in the index what is compared."""

    id: int
    digest: bytes
    pieces: Sequence[StoredPiece] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Say how one document changes: `id` where it is stored, and which of its pieces move, come and go."""

    source: str
    digest: bytes
    id: int | None
    moved: Sequence[tuple[int, Piece]]
    added: Sequence[Piece]
    removed: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Count the documents that an update added, changed, removed or found as they were, and the passages embedded."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            added=self.added + other.added,
            changed=self.changed + other.changed,
            removed=self.removed + other.removed,
            unchanged=self.unchanged + other.unchanged,
            embedded=self.embedded + other.embedded,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Say what of a batch is to be done: how many documents are new, changed or gone, and which contents, by their
    place among those of the batch, have no vector yet.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    missing: Sequence[int] = ()

    def changes(self) -> Changes:
        return Changes(
            added=self.added,
            changed=self.changed,
            removed=self.removed,
            unchanged=self.unchanged,
            embedded=len(self.missing),
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """Hold a document cut into pieces, and the hash of them all."""

    source: str
    pieces: Sequence[Piece]
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _hash(*(p.content + p.place for p in self.pieces)))


def cut(document: Document, chunk: Chunk) -> Cut:
    """Cut a document into pieces, numbered in their order, with the document's title and metadata where they have none
    of their own; raises `DefinitionError` for what is no document."""
    if not isinstance(document, Document):
        raise DefinitionError(f"{document!r:.100} is no document: write Document(source=…, text=…)")
    pieces = [_piece(document, i, passage) for i, passage in enumerate(chunk(document))]
    return Cut(storable(document.source), pieces)


def digest_of(batch: Iterable[Cut]) -> bytes:
    """Return what tells a batch of documents from every other."""
    return _hash(*(part for document in batch for part in (document.source.encode(), document.digest)))


def change(document: Cut, stored: StoredDocument | None) -> Change | None:
    """Return what is to be written of a document; None if nothing is."""
    if stored is None:
        return Change(document.source, document.digest, None, (), document.pieces, ())
    if stored.digest == document.digest:
        return None
    left: dict[bytes, list[StoredPiece]] = {}
    for old in stored.pieces:
        left.setdefault(old.content, []).append(old)
    moved, added = list[tuple[int, Piece]](), list[Piece]()
    for piece in document.pieces:
        if same := left.get(piece.content):
            old = same.pop(0)
            if old.place != piece.place:
                moved.append((old.id, piece))
        else:
            added.append(piece)
    removed = [old.id for rest in left.values() for old in rest]
    return Change(document.source, document.digest, stored.id, moved, added, removed)


def _piece(document: Document, position: int, passage: Passage) -> Piece:
    kept = Passage(
        text=storable(passage.text),
        source=storable(document.source),
        position=position,
        title=storable(passage.title or document.title),
        metadata=stored_facts(document.source, {**document.metadata, **passage.metadata}),
        start=passage.start,
    )
    place = _hash(repr((position, kept.start, sorted(kept.metadata.items()))).encode())
    return Piece(kept, _hash(kept.title.encode(), kept.text.encode()), place)


def _hash(*parts: bytes) -> bytes:
    """Return 16 bytes that tell any two sequences of parts apart."""
    state = blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
