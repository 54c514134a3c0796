"""Rows of a stored index, as both stores read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from agentrt.index.changes import StoredDocument, StoredPiece
from agentrt.passage import Passage

NOTE: Final = "note "
"""What the names of notes begin with among the settings."""
PASSAGE: Final = (
    "SELECT passages.id, text, source, position, title, metadata, start FROM passages "
    "JOIN documents ON documents.id = document"
)


def passage_of(row: Sequence[Any], score: float = 0.0) -> Passage:
    """Return the passage in a row of `PASSAGE`."""
    _, text, source, position, title, metadata, start = row
    return Passage(
        text=text,
        source=source,
        position=position,
        title=title,
        score=score,
        metadata=json.loads(metadata),
        start=start,
    )


def stored_documents(rows: Iterable[Sequence[Any]]) -> Mapping[str, StoredDocument]:
    """Return documents by source, of rows of source, id and digest, and of one piece: its id, content and place."""
    found: dict[str, StoredDocument] = {}
    pieces: dict[str, list[StoredPiece]] = {}
    for source, document, digest, *piece in rows:
        held = pieces.setdefault(source, [])
        found.setdefault(source, StoredDocument(document, digest, held))
        if piece[0] is not None:
            held.append(StoredPiece(*piece))
    return found
