"""Writing to the file of an index: the rows of documents, passages, words, vectors and facts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from agentrt.embedding import Vector
from agentrt.index.changes import Change, Piece
from agentrt.index.sqlite_file import rows_of, value_of
from agentrt.index.vectors import packed

if TYPE_CHECKING:
    from apsw import Connection

_INSERT: Final = (
    "INSERT INTO passages (id, document, position, title, text, start, metadata, content, place) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_MOVE: Final = "UPDATE passages SET position = ?, start = ?, metadata = ?, place = ? WHERE id = ?"
_OF_PASSAGE: Final = {"words": "rowid", "vectors": "id", "facts": "passage", "passages": "id"}
"""The tables that hold something of a passage, and the column that names it."""


class Writing:
    """Write to the index within a transaction."""

    def __init__(self, connection: Connection, vectors: Mapping[bytes, Vector]) -> None:
        self._connection = connection
        self._vectors = vectors

    def carry_out(self, changes: Sequence[Change]) -> None:
        """Write how documents change."""
        self._bump()
        self._forget([i for c in changes for i in c.removed])
        self._move([m for c in changes for m in c.moved])
        self._add([(document, p) for c in changes for document in [self._document(c)] for p in c.added])

    def delete(self, sources: Sequence[str]) -> int:
        """Delete documents and return how many there were."""
        self._bump()
        ids = self._ids("documents", "source", sources)
        self._forget(self._ids("passages", "document", ids))
        self._connection.executemany("DELETE FROM documents WHERE id = ?", [(i,) for i in ids])
        return len(ids)

    def _ids(self, table: str, column: str, among: Sequence[str] | Sequence[int]) -> list[int]:
        query = f"SELECT id FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))"
        return [row[0] for row in rows_of(self._connection, query, json.dumps(among))]

    def _bump(self) -> None:
        self._connection.execute("UPDATE settings SET value = value + 1 WHERE name = 'version'")

    def _document(self, c: Change) -> int:
        if c.id is not None:
            self._connection.execute("UPDATE documents SET digest = ? WHERE id = ?", (c.digest, c.id))
            return c.id
        self._connection.execute("INSERT INTO documents (source, digest) VALUES (?, ?)", (c.source, c.digest))
        return self._connection.last_insert_rowid()

    def _add(self, pieces: Sequence[tuple[int, Piece]]) -> None:
        many = self._connection.executemany
        first = value_of(self._connection, "SELECT coalesce(max(id), 0) + 1 FROM passages")
        new = list(enumerate(pieces, first))
        many(_INSERT, (_row(i, document, piece) for i, (document, piece) in new))
        texts = ((i, piece.passage.title, piece.passage.text) for i, (_, piece) in new)
        many("INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", texts)
        made = [(i, self._vectors[piece.content]) for i, (_, piece) in new if piece.content in self._vectors]
        many("INSERT INTO vectors VALUES (?, ?)", zip([i for i, _ in made], packed([v for _, v in made]), strict=True))
        self._add_facts([(i, piece) for i, (_, piece) in new])

    def _add_facts(self, pieces: Iterable[tuple[int, Piece]]) -> None:
        rows = ((name, value, i) for i, piece in pieces for name, value in piece.passage.metadata.items())
        self._connection.executemany("INSERT INTO facts VALUES (?, ?, ?)", rows)

    def _move(self, moved: Sequence[tuple[int, Piece]]) -> None:
        many = self._connection.executemany
        places = ((p.passage.position, p.passage.start, _json(p), p.place, i) for i, p in moved)
        many(_MOVE, places)
        many("DELETE FROM facts WHERE passage = ?", [(i,) for i, _ in moved])
        self._add_facts(moved)

    def _forget(self, ids: Sequence[int]) -> None:
        for table, column in _OF_PASSAGE.items():
            self._connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(i,) for i in ids])


def _row(i: int, document: int, piece: Piece) -> tuple[Any, ...]:
    p = piece.passage
    return (i, document, p.position, p.title, p.text, p.start, _json(piece), piece.content, piece.place)


def _json(piece: Piece) -> str:
    return json.dumps(dict(piece.passage.metadata)) if piece.passage.metadata else "{}"
