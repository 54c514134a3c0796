"""The index in PostgreSQL with pgvector: for many processes and machines. Needs `agentrt[postgres]`, and asyncio.

Words are ranked by BM25, as the index in a file ranks them, and vectors by an HNSW index.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Self

from agentrt.embedding import Embedder, Vector
from agentrt.errors import DefinitionError, IndexTaken, IndexUnavailable
from agentrt.index.changes import Change, Piece, StoredDocument
from agentrt.index.fusion import best
from agentrt.index.made import Made
from agentrt.index.postgres_search import VECTOR_TYPE, Snapshot, by_words, nearest, passages_of, text_of
from agentrt.index.rows import NOTE, PASSAGE, passage_of, stored_documents
from agentrt.index.stored import DEPTH, Mode, StoredIndex
from agentrt.index.words import plain
from agentrt.passage import Passage
from agentrt.retrieval import Query
from agentrt.stores.link import shown

SCHEMA_VERSION: Final = 1
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_MOST_CONNECTIONS: Final = 4
_MOST_CHARACTERS: Final = 500_000
"""How much of a passage is searched by words: a tsvector holds a megabyte."""
_SCHEMA: Final = """
CREATE TEXT SEARCH DICTIONARY stem (TEMPLATE = snowball, LANGUAGE = english);  -- with no stop words
CREATE TEXT SEARCH CONFIGURATION stems (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION stems ALTER MAPPING FOR asciiword, word, numword WITH stem;
CREATE TABLE settings (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source TEXT NOT NULL UNIQUE,
    digest BYTEA NOT NULL
);
CREATE TABLE passages (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document BIGINT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    title    TEXT NOT NULL,
    text     TEXT NOT NULL,
    start    INTEGER,
    metadata JSONB NOT NULL,
    content  BYTEA NOT NULL,
    place    BYTEA NOT NULL,
    words    TSVECTOR NOT NULL,
    length   INTEGER NOT NULL  -- in words
);
ALTER TABLE passages ALTER words SET STORAGE MAIN;  -- in the row where it fits: ranking reads it again and again
CREATE INDEX passages_by_document ON passages (document, position);
CREATE INDEX passages_by_content ON passages (content);
CREATE INDEX passages_by_words ON passages USING gin (words);
CREATE INDEX passages_by_metadata ON passages USING gin (metadata jsonb_path_ops);
"""
_VECTORS: Final = """
ALTER TABLE passages DROP COLUMN IF EXISTS vector;
ALTER TABLE passages ADD COLUMN vector {type}({dimensions});
CREATE INDEX passages_by_vector ON passages USING hnsw (vector {type}_cosine_ops);
"""
_STORED: Final = (
    "SELECT source, documents.id, digest, passages.id, content, place FROM documents "
    "LEFT JOIN passages ON document = documents.id WHERE source = ANY($1::text[]) ORDER BY documents.id, position"
)
_INSERT: Final = """
INSERT INTO passages (document, position, title, text, start, metadata, content, place, words, length{vector})
SELECT document, position, title, text, start, metadata, content, place, words,
    (SELECT coalesce(sum(cardinality(positions)), 0) FROM unnest(words)){cast}
FROM unnest(
        $1::int8[], $2::int4[], $3::text[], $4::text[], $5::int4[], $6::jsonb[], $7::bytea[], $8::bytea[],
        $9::text[], $10::text[]{array}
    ) AS new (document, position, title, text, start, metadata, content, place, of_title, of_text{vector}),
    LATERAL (SELECT setweight(to_tsvector('stems', of_title), 'A') || to_tsvector('stems', of_text) AS words) AS found
"""
_MOVE: Final = (
    "UPDATE passages SET position = new.position, start = new.start, metadata = new.metadata, place = new.place "
    "FROM unnest($1::int8[], $2::int4[], $3::int4[], $4::jsonb[], $5::bytea[]) "
    "AS new (id, position, start, metadata, place) WHERE passages.id = new.id"
)
_BUMP: Final = "UPDATE settings SET value = (value::int8 + 1)::text WHERE name = 'version'"


class PostgresIndex(StoredIndex):
    """Keep an index in a schema of a PostgreSQL database (13 or later, pgvector 0.7 or later); see `open`."""

    def __init__(
        self,
        where: str,
        schema: str,
        embedder: Embedder | str | None,
        mode: Mode,
        weights: tuple[float, float],
    ) -> None:
        super().__init__(embedder, mode, weights)
        self._where = where
        self._schema = schema
        self._pool: Any = None
        self._writer: Any = None
        self._snapshot = Snapshot()

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        schema: str = "agentrt_index",
        make: bool = False,
        embedder: Embedder | str | None = None,
        mode: Mode = "hybrid",
        weights: tuple[float, float] = (1.0, 1.0),
    ) -> Self:
        """Open the index in a schema of `postgresql://USER@HOST/DATABASE`.

        make: makes the schema where there is none.
        embedder: as for `SqliteIndex`: what it was made with where None.

        Serves one event loop. Raises `IndexUnavailable` where the server cannot be reached, and `DefinitionError` for
        an index that is not there, a database without pgvector and another embedder than the index was made with.
        """
        try:
            import asyncpg
        except ImportError as error:
            raise DefinitionError(f"{shown(url)} needs asyncpg: pip install 'agentrt[postgres]'") from error
        if not _NAME.fullmatch(schema):
            raise DefinitionError(f"schema={schema!r}: use lower-case letters, digits and _")
        # `public` is where pgvector usually is; a filtered search goes on until it has found enough.
        settings = {
            "search_path": f"{schema}, public",
            "hnsw.ef_search": "200",
            "hnsw.iterative_scan": "strict_order",
        }
        index = cls(shown(url), schema, embedder, mode, weights)
        with _told(shown(url)):
            pool = await asyncpg.create_pool(url, min_size=0, max_size=_MOST_CONNECTIONS, server_settings=settings)
        index._pool = pool
        try:
            with _told(shown(url)):
                async with pool.acquire() as connection:
                    await index._prepare(connection, make=make)
                    await index._agree(connection)
        except BaseException:
            pool.terminate()
            raise
        return index

    def __repr__(self) -> str:
        return f"<PostgresIndex {self._where} {self._schema}>"

    async def sources(self) -> list[str]:
        rows = await self._fetch('SELECT source FROM documents ORDER BY source COLLATE "C"')
        return [row[0] for row in rows]

    async def passages(self, source: str) -> list[Passage]:
        rows = await self._fetch(f"{PASSAGE} WHERE source = $1 ORDER BY position", source)
        return [passage_of(row) for row in rows]

    async def note(self, name: str) -> str | None:
        for row in await self._fetch("SELECT value FROM settings WHERE name = $1", NOTE + name):
            return str(row[0])
        return None

    async def write_note(self, name: str, text: str) -> None:
        query = "INSERT INTO settings VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        await self._fetch(query, NOTE + name, text)

    async def _close(self) -> None:
        await self._pool.close()

    async def _made_with(self) -> Made | None:
        with _told(self._where):
            async with self._pool.acquire() as connection:
                return await _made_with(connection)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        with _told(self._where):
            connection = await self._pool.acquire()
        try:
            with _told(self._where):
                is_free = await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", self._schema)
            if not is_free:
                raise IndexTaken(f"{self!r}: another update writes to it; wait until that has ended")
            self._writer = connection
            yield
        finally:
            if self._writer is connection:
                self._writer = None
            await self._pool.release(connection)  # which lets go of the lock

    async def _stored(self, sources: Sequence[str]) -> Mapping[str, StoredDocument]:
        return stored_documents(await self._fetch(_STORED, list(sources)))

    async def _known(self, contents: Sequence[bytes]) -> Mapping[bytes, Vector]:
        query = "SELECT content, vector::real[] FROM passages WHERE content = ANY($1::bytea[]) AND vector IS NOT NULL"
        return dict(await self._fetch(query, list(contents)))

    async def _write(self, changes: Sequence[Change], vectors: Mapping[bytes, Vector]) -> None:
        with _told(self._where):
            async with self._writer.transaction():
                await self._writer.execute(_BUMP)
                documents = await self._documents(changes)
                removed = [i for c in changes for i in c.removed]
                await self._writer.execute("DELETE FROM passages WHERE id = ANY($1::int8[])", removed)
                await self._move([m for c in changes for m in c.moved])
                await self._add([(documents[c.source], p) for c in changes for p in c.added], vectors)

    async def _documents(self, changes: Sequence[Change]) -> Mapping[str, int]:
        """Write the documents, and return their ids by source."""
        query = (
            "INSERT INTO documents (source, digest) SELECT * FROM unnest($1::text[], $2::bytea[]) "
            "ON CONFLICT (source) DO UPDATE SET digest = excluded.digest RETURNING source, id"
        )
        return dict(await self._writer.fetch(query, [c.source for c in changes], [c.digest for c in changes]))

    async def _move(self, moved: Sequence[tuple[int, Piece]]) -> None:
        rows = [(i, p.passage.position, p.passage.start, _json(p), p.place) for i, p in moved]
        if rows:
            await self._writer.execute(_MOVE, *map(list, zip(*rows, strict=True)))

    async def _add(self, pieces: Sequence[tuple[int, Piece]], vectors: Mapping[bytes, Vector]) -> None:
        if not pieces:
            return
        has_vectors = self._embedder is not None
        rows = [_row(document, piece, vectors) for document, piece in pieces]
        columns = list(map(list, zip(*rows, strict=True)))
        query = _INSERT.format(
            vector=", vector" if has_vectors else "",
            cast=f", vector::{VECTOR_TYPE}" if has_vectors else "",
            array=", $11::text[]" if has_vectors else "",
        )
        await self._writer.execute(query, *columns[: 11 if has_vectors else 10])

    async def _delete(self, sources: Sequence[str]) -> int:
        with _told(self._where):
            async with self._writer.transaction():
                await self._writer.execute(_BUMP)
                query = "DELETE FROM documents WHERE source = ANY($1::text[]) RETURNING id"
                return len(await self._writer.fetch(query, list(sources)))

    async def _find(self, query: Query, k: int) -> list[Passage]:
        with _told(self._where):
            async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
                return await self._search(connection, query, k)

    async def _search(self, connection: Any, query: Query, k: int) -> list[Passage]:
        depth = max(DEPTH, k)
        rankings = list[Sequence[tuple[int, float]]]()
        if self.mode != "vector":
            rankings.append(await by_words(connection, await self._current(connection), query, depth))
        if query.vector is not None and self.mode != "text":
            rankings.append(await nearest(connection, query.vector, query.where, depth))
        return await passages_of(connection, best(rankings, self.weights, k))

    async def _current(self, connection: Any) -> Snapshot:
        version = await connection.fetchval("SELECT value FROM settings WHERE name = 'version'")
        if self._snapshot.version != version:
            total, length = await connection.fetchrow("SELECT count(*), coalesce(avg(length), 1)::float8 FROM passages")
            self._snapshot = Snapshot(version, total, length)
        return self._snapshot

    async def _fetch(self, query: str, *values: object) -> list[Any]:
        self._must_be_open()
        with _told(self._where):
            async with self._pool.acquire() as connection:
                rows: list[Any] = await connection.fetch(query, *values)
                return rows

    async def _prepare(self, connection: Any, *, make: bool) -> None:
        """Make the tables where they are missing and may be made; refuse those of a newer agentrt."""
        settings = f"{self._schema}.settings"
        if await connection.fetchval("SELECT to_regclass($1)", settings) is None:
            if not make:
                raise DefinitionError(f"there is no index {self!r}: make it with PostgresIndex.open(…, make=True)")
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"{self._schema} schema")
                if await connection.fetchval("SELECT to_regclass($1)", settings) is None:
                    await _make(connection, self._schema)
        known = await connection.fetchval("SELECT value FROM settings WHERE name = 'schema'")
        if int(known) > SCHEMA_VERSION:
            raise DefinitionError(f"the index in {self._schema} was made by a newer agentrt: upgrade agentrt")

    async def _agree(self, connection: Any) -> None:
        """Take the embedder of the index, or note in a new one that which was given, and make room for its vectors."""
        if await self._to_be_noted(connection) is None:
            return
        async with connection.transaction():  # meanwhile, somebody may have written to it
            await connection.execute("LOCK TABLE documents IN SHARE ROW EXCLUSIVE MODE")
            if (made := await self._to_be_noted(connection)) is None:
                return
            query = (
                "INSERT INTO settings VALUES ('embedder', $1), ('dimensions', $2), ('options', $3) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            )
            await connection.execute(query, made.name, str(made.dimensions), made.options)
            await connection.execute(_VECTORS.format(type=VECTOR_TYPE, dimensions=made.dimensions))

    async def _to_be_noted(self, connection: Any) -> Made | None:
        has_documents = await connection.fetchval("SELECT EXISTS (SELECT 1 FROM documents)")
        return self._take_embedder(await _made_with(connection), is_new=not has_documents)


async def _make(connection: Any, schema: str) -> None:
    await connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    await connection.execute(_SCHEMA)
    settings = [("schema", str(SCHEMA_VERSION)), ("version", "0")]
    await connection.executemany("INSERT INTO settings VALUES ($1, $2)", settings)


async def _made_with(connection: Any) -> Made | None:
    query = "SELECT name, value FROM settings WHERE name IN ('embedder', 'dimensions', 'options')"
    known = dict(await connection.fetch(query))
    return Made(known["embedder"], int(known["dimensions"]), known.get("options", "{}")) if known else None


def _row(document: int, piece: Piece, vectors: Mapping[bytes, Vector]) -> tuple[object, ...]:
    p, vector = piece.passage, vectors.get(piece.content)
    place = (document, p.position, p.title, p.text, p.start, _json(piece), piece.content, piece.place)
    words = plain(p.title[:_MOST_CHARACTERS]), plain(p.text[:_MOST_CHARACTERS])
    return (*place, *words, None if vector is None else text_of(vector))


def _json(piece: Piece) -> str:
    return json.dumps(dict(piece.passage.metadata))


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Tell errors of PostgreSQL and of the way to it as this package's."""
    import asyncpg

    try:
        yield
    except asyncpg.UndefinedFileError as error:
        raise DefinitionError(f"{where} has no pgvector: install it at the server") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise IndexUnavailable(f"{where}: {error}") from error
