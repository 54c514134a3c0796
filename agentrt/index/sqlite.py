"""The index in one SQLite file."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import anyio.to_thread

from agentrt.embedding import Embedder, Vector
from agentrt.errors import IndexTaken, IndexUnavailable
from agentrt.index.changes import Change, StoredDocument
from agentrt.index.fusion import best
from agentrt.index.made import Made
from agentrt.index.rows import NOTE, PASSAGE, passage_of, stored_documents
from agentrt.index.sqlite_file import IndexFile, rows_of, transaction, value_of
from agentrt.index.sqlite_search import Snapshot, by_words, ids_among, passages_of
from agentrt.index.sqlite_writing import Writing
from agentrt.index.stored import DEPTH, Mode, StoredIndex
from agentrt.index.vectors import unpacked
from agentrt.passage import Passage
from agentrt.retrieval import Query

if TYPE_CHECKING:
    from apsw import Connection

T = TypeVar("T")

_STORED: Final = (
    "SELECT source, documents.id, digest, passages.id, content, place FROM documents "
    "LEFT JOIN passages ON document = documents.id WHERE source IN (SELECT value FROM json_each(?)) "
    "ORDER BY documents.id, position"
)
_KNOWN: Final = (
    "SELECT content, vector FROM passages JOIN vectors USING (id) "
    "WHERE content IN (SELECT unhex(value) FROM json_each(?))"
)


class SqliteIndex(StoredIndex):
    """Keep an index in one SQLite file; needs the extra `agentrt[retrieval]`.

    make: makes the file where there is none.
    embedder: makes the vectors: an `Embedder` or its name. An index remembers it, so that None takes the one that the
        file was made with, or makes a file without vectors. As long as it has no documents, an index takes any.
    mode, weights: how to search; see `StoredIndex`.

    Any number of processes may read while one writes. Searches run in threads. Opening blocks. Raises
    `DefinitionError` for a file that is not there, is no index, is damaged, or was made with another embedder.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        make: bool = False,
        embedder: Embedder | str | None = None,
        mode: Mode = "hybrid",
        weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(embedder, mode, weights)
        self.path = Path(path).expanduser()
        self._file = IndexFile(self.path, make=make)
        self._reading = threading.Lock()  # the event loop never waits while vectors are read
        self._snapshot: Snapshot | None = None
        try:
            with self._file.connected() as connection:
                self._agree(connection)
        except BaseException:
            self._file.close()  # of what was refused, nothing is kept open
            raise

    def __repr__(self) -> str:
        return f"<SqliteIndex {str(self.path)!r}>"

    async def sources(self) -> list[str]:
        return await self._do(lambda c: [row[0] for row in rows_of(c, "SELECT source FROM documents ORDER BY source")])

    async def passages(self, source: str) -> list[Passage]:
        query = f"{PASSAGE} WHERE source = ? ORDER BY position"
        return await self._do(lambda c: [passage_of(row) for row in c.execute(query, (source,))])

    async def note(self, name: str) -> str | None:
        query = "SELECT value FROM settings WHERE name = ?"
        return await self._do(lambda c: value_of(c, query, None, (NOTE + name,)))

    async def write_note(self, name: str, text: str) -> None:
        query = "INSERT OR REPLACE INTO settings VALUES (?, ?)"
        await self._do(lambda c: c.execute(query, (NOTE + name, text)).fetchall(), writes=True)

    async def _close(self) -> None:
        self._file.close()

    async def _made_with(self) -> Made | None:
        return await self._do(_made_with)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(f"{self.path}-lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise IndexTaken(f"{self.path}: another update writes to it; wait until that has ended") from error
        except OSError as error:
            raise IndexUnavailable(f"{self.path}-lock cannot be made: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    async def _stored(self, sources: Sequence[str]) -> Mapping[str, StoredDocument]:
        return stored_documents(await self._do(lambda c: rows_of(c, _STORED, json.dumps(sources))))

    async def _known(self, contents: Sequence[bytes]) -> Mapping[bytes, Vector]:
        asked = json.dumps([content.hex() for content in contents])
        rows = await self._do(lambda c: rows_of(c, _KNOWN, asked))
        return {content: unpacked(vector) for content, vector in rows}

    async def _write(self, changes: Sequence[Change], vectors: Mapping[bytes, Vector]) -> None:
        await self._do(lambda c: Writing(c, vectors).carry_out(changes), writes=True)

    async def _delete(self, sources: Sequence[str]) -> int:
        return await self._do(lambda c: Writing(c, {}).delete(sources), writes=True)

    async def _find(self, query: Query, k: int) -> list[Passage]:
        return await self._do(lambda c: self._search(c, query, k))

    def _search(self, connection: Connection, query: Query, k: int) -> list[Passage]:
        snapshot = self._current(connection)
        among = ids_among(connection, query.where) if query.where else None
        depth = max(DEPTH, k)
        rankings = list[Sequence[tuple[int, float]]]()
        if self.mode != "vector":
            rankings.append(by_words(connection, snapshot, query.text, depth, among))
        if query.vector is not None and self.mode != "text":
            rankings.append(snapshot.vectors.nearest(query.vector, depth, among))
        return passages_of(connection, best(rankings, self.weights, k))

    def _current(self, connection: Connection) -> Snapshot:
        """Return what is kept in memory of the index as this transaction sees it."""
        version = value_of(connection, "SELECT value FROM settings WHERE name = 'version'")
        with self._reading:
            if self._snapshot is None or self._snapshot.version != version:
                self._snapshot = Snapshot(version, connection)
            return self._snapshot

    async def _do(self, work: Callable[[Connection], T], *, writes: bool = False) -> T:
        """Do work in a transaction of its own, in a thread; one that was cancelled is waited for."""
        self._must_be_open()
        return await anyio.to_thread.run_sync(lambda: self._file.transact(work, writes=writes))

    def _agree(self, connection: Connection) -> None:
        """Take the embedder of the index, or note in a new one that which was given; refuse another."""
        if self._take_embedder(_made_with(connection), is_new=_is_new(connection)) is None:
            return
        with transaction(connection, writes=True):  # meanwhile, somebody may have written to it
            made = self._take_embedder(_made_with(connection), is_new=_is_new(connection))
            if made is not None:
                query = "INSERT OR REPLACE INTO settings VALUES ('embedder', ?), ('dimensions', ?), ('options', ?)"
                connection.execute(query, (made.name, made.dimensions, made.options)).fetchall()


def _made_with(connection: Connection) -> Made | None:
    query = "SELECT name, value FROM settings WHERE name IN ('embedder', 'dimensions', 'options')"
    known = dict(rows_of(connection, query))
    return Made(known["embedder"], known["dimensions"], known.get("options", "{}")) if known else None


def _is_new(connection: Connection) -> bool:
    return not value_of(connection, "SELECT EXISTS (SELECT 1 FROM documents)")
