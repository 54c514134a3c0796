"""The index in one SQLite file, through apsw, whose SQLite is new enough on every machine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio.to_thread

from agentrt.embedding import Embedder, Vector
from agentrt.errors import AgentrtError, DefinitionError, IndexTaken, IndexUnavailable
from agentrt.index.changes import Change, Piece, StoredDocument, StoredPiece
from agentrt.index.fusion import fused
from agentrt.index.stored import DEPTH, K1, TITLE_WEIGHT, Made, Mode, StoredIndex
from agentrt.index.vectors import StoredVectors, packed, unpacked
from agentrt.index.words import Choice, any_of, both, chosen, words_in
from agentrt.passage import Passage
from agentrt.retrieval import Between, Condition, Query, Where

if TYPE_CHECKING:
    from apsw import Connection

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
_TEXT_WEIGHT: Final = 1.2 / K1
"""FTS5 has a k1 of 1.2; to count each word so much less ranks as that other one does."""
_APPLICATION_ID: Final = int.from_bytes(b"agix")
_BUSY_MILLISECONDS: Final = 10_000
_MOST_READERS: Final = 4
_NOTE: Final = "note "
_TOKENIZER: Final = ("porter", "unicode61", "remove_diacritics", "2")
_SCHEMA: Final = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE settings (name TEXT NOT NULL PRIMARY KEY, value NOT NULL);
INSERT INTO settings VALUES ('version', 0);  -- how often the index was written to
CREATE TABLE documents (
    id     INTEGER PRIMARY KEY,
    source TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL  -- of all its pieces
);
CREATE TABLE passages (
    id       INTEGER PRIMARY KEY,
    document INTEGER NOT NULL REFERENCES documents (id),
    position INTEGER NOT NULL,  -- from 0
    title    TEXT NOT NULL,
    text     TEXT NOT NULL,
    start    INTEGER,
    metadata TEXT NOT NULL,  -- JSON object
    content  BLOB NOT NULL,  -- hash of title and text
    place    BLOB NOT NULL  -- hash of position, start and metadata
);
CREATE INDEX passages_by_document ON passages (document, position);
CREATE INDEX passages_by_content ON passages (content);
CREATE VIRTUAL TABLE words USING fts5 (
    title, text, content = '', contentless_delete = 1, tokenize = '{" ".join(_TOKENIZER)}'
);
CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);  -- of passages; a byte a number
CREATE TABLE facts (  -- the metadata of passages, to look them up by
    name    TEXT NOT NULL,
    value   NOT NULL,
    passage INTEGER NOT NULL,
    PRIMARY KEY (name, value, passage)
) WITHOUT ROWID;
CREATE INDEX facts_by_passage ON facts (passage);
"""
_SETTINGS: Final = """
PRAGMA synchronous = NORMAL;
PRAGMA cache_size = -32768;
PRAGMA temp.journal_mode = MEMORY;
CREATE VIRTUAL TABLE temp.counts USING fts5vocab (main, words, row);
"""
_STORED: Final = (
    "SELECT source, documents.id, digest, passages.id, content, place FROM documents "
    "LEFT JOIN passages ON document = documents.id WHERE source IN (SELECT value FROM json_each(?)) "
    "ORDER BY documents.id, position"
)
_KNOWN: Final = (
    "SELECT content, vector FROM passages JOIN vectors USING (id) "
    "WHERE content IN (SELECT unhex(value) FROM json_each(?))"
)
_INSERT: Final = (
    "INSERT INTO passages (id, document, position, title, text, start, metadata, content, place) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_MOVE: Final = "UPDATE passages SET position = ?, start = ?, metadata = ?, place = ? WHERE id = ?"
_PASSAGE: Final = (
    "SELECT passages.id, text, source, position, title, metadata, start FROM passages "
    "JOIN documents ON documents.id = document"
)
_OF_PASSAGE: Final = {"words": "rowid", "vectors": "id", "facts": "passage", "passages": "id"}
"""The tables that hold something of a passage, and the column that names it."""


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
        if not make and not self.path.exists():
            raise DefinitionError(f"there is no index {self.path}: make it with SqliteIndex(…, make=True)")
        self._may_make = make
        self._apsw = _library()
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # one of its own: the event loop never waits while vectors are read
        self._snapshot: _Snapshot | None = None
        with self._connected() as connection:
            try:
                self._agree(connection)
            except BaseException:
                self._is_closed = True  # of what was not made, nothing is kept open
                raise
        self._may_make = False

    def __repr__(self) -> str:
        return f"<SqliteIndex {str(self.path)!r}>"

    async def sources(self) -> list[str]:
        return await self._do(lambda c: [row[0] for row in _rows(c, "SELECT source FROM documents ORDER BY source")])

    async def passages(self, source: str) -> list[Passage]:
        query = f"{_PASSAGE} WHERE source = ? ORDER BY position"
        return await self._do(lambda c: [_passage(row, 0.0) for row in c.execute(query, (source,))])

    async def note(self, name: str) -> str | None:
        query = "SELECT value FROM settings WHERE name = ?"
        return await self._do(lambda c: _value(c, query, None, (_NOTE + name,)))

    async def write_note(self, name: str, text: str) -> None:
        query = "INSERT OR REPLACE INTO settings VALUES (?, ?)"
        await self._do(lambda c: c.execute(query, (_NOTE + name, text)).fetchall(), writes=True)

    async def _close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

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
        rows = await self._do(lambda c: _rows(c, _STORED, json.dumps(sources)))
        found: dict[str, StoredDocument] = {}
        pieces: dict[str, list[StoredPiece]] = {}
        for source, document, digest, *piece in rows:
            held = pieces.setdefault(source, [])
            found.setdefault(source, StoredDocument(document, digest, held))
            if piece[0] is not None:
                held.append(StoredPiece(*piece))
        return found

    async def _known(self, contents: Sequence[bytes]) -> Mapping[bytes, Vector]:
        asked = json.dumps([content.hex() for content in contents])
        rows = await self._do(lambda c: _rows(c, _KNOWN, asked))
        return {content: unpacked(vector) for content, vector in rows}

    async def _write(self, changes: Sequence[Change], vectors: Mapping[bytes, Vector]) -> None:
        await self._do(lambda c: _Writing(c, vectors).carry_out(changes), writes=True)

    async def _delete(self, sources: Sequence[str]) -> int:
        return await self._do(lambda c: _Writing(c, {}).delete(sources), writes=True)

    async def _find(self, query: Query, k: int) -> list[Passage]:
        return await self._do(lambda c: self._search(c, query, k))

    def _search(self, connection: Connection, query: Query, k: int) -> list[Passage]:
        snapshot = self._current(connection)
        among = _among(connection, query.where) if query.where else None
        depth = max(DEPTH, k)
        rankings = list[list[tuple[int, float]]]()
        if self.mode != "vector":
            rankings.append(_by_words(connection, snapshot, query.text, depth, among))
        if query.vector is not None and self.mode != "text":
            rankings.append(snapshot.vectors.nearest(query.vector, depth, among))
        if len(rankings) == 1:
            return _passages(connection, rankings[0][:k])
        ranked_ids = [([i for i, _ in ranking], w) for ranking, w in zip(rankings, self.weights, strict=True)]
        return _passages(connection, fused(ranked_ids, k))

    def _current(self, connection: Connection) -> _Snapshot:
        """Return what is kept in memory of the index as this transaction sees it."""
        version = _value(connection, "SELECT value FROM settings WHERE name = 'version'")
        with self._reading:
            if self._snapshot is None or self._snapshot.version != version:
                self._snapshot = _Snapshot(version, connection)
            return self._snapshot

    async def _do(self, work: Callable[[Connection], T], *, writes: bool = False) -> T:
        """Do work in a transaction of its own, in a thread; one that was cancelled is waited for."""
        self._must_be_open()

        def transact() -> T:
            with self._connected() as connection, _transaction(connection, writes=writes):
                return work(connection)

        return await anyio.to_thread.run_sync(transact)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Lend a connection that nobody else uses meanwhile; tells errors of SQLite as this package's."""
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            connection = connection or self._connect()
            try:
                yield connection
            finally:
                with self._lock:
                    kept = len(self._idle) < _MOST_READERS and not self._is_closed
                    if kept:
                        self._idle.append(connection)
                if not kept:
                    connection.close()
        except self._apsw.Error as error:
            raise _told(self._apsw, error, self.path) from error

    def _connect(self) -> Connection:
        is_sealed = self._is_sealed()
        connection = self._sealed() if is_sealed else self._unsealed()
        try:
            connection.set_busy_timeout(_BUSY_MILLISECONDS)
            self._check(connection)
            if not is_sealed:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute(_SETTINGS).fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _unsealed(self) -> Connection:
        apsw = self._apsw
        opened: Connection = apsw.Connection(
            str(self.path), flags=apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if self._may_make else 0)
        )
        return opened

    def _sealed(self) -> Connection:
        apsw = self._apsw
        uri = f"{self.path.absolute().as_uri()}?immutable=1"
        opened: Connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        return opened

    def _is_sealed(self) -> bool:
        """Say whether nobody can write where the file is: its log, which readers need, could not be made there."""
        is_whole = self.path.is_file() and not self.path.with_name(f"{self.path.name}-wal").exists()
        return is_whole and not os.access(self.path.parent, os.W_OK)

    def _check(self, connection: Connection) -> None:
        """Make the tables of a new file; refuse one that is no index, or one of a newer agentrt."""
        if self._may_make and _is_empty(connection):
            with _transaction(connection, writes=True):
                if _is_empty(connection):
                    connection.execute(_SCHEMA).fetchall()
        if _value(connection, "PRAGMA application_id") != _APPLICATION_ID:
            raise DefinitionError(f"{self.path} is no index of agentrt: choose another file")
        if _value(connection, "PRAGMA user_version") > SCHEMA_VERSION:
            raise DefinitionError(f"{self.path} was made by a newer agentrt: upgrade agentrt, or make it anew")

    def _agree(self, connection: Connection) -> None:
        """Take the embedder of the index, or note in a new one that which was given; refuse another."""
        if self._take_embedder(_made_with(connection), is_new=_is_new(connection)) is None:
            return
        with _transaction(connection, writes=True):  # meanwhile, somebody may have written to it
            made = self._take_embedder(_made_with(connection), is_new=_is_new(connection))
            if made is not None:
                query = "INSERT OR REPLACE INTO settings VALUES ('embedder', ?), ('dimensions', ?), ('options', ?)"
                connection.execute(query, (made.name, made.dimensions, made.options)).fetchall()


class _Snapshot:
    """Hold in memory what searches need of one version of the index; counts of words are added as they are asked."""

    def __init__(self, version: int, connection: Connection) -> None:
        self.version = version
        rows: Any = connection.execute("SELECT id, vector FROM vectors ORDER BY id")
        self.vectors = StoredVectors(rows)
        self.passages: int = _value(connection, "SELECT count(*) FROM passages")
        self.counts: dict[str, int] = {}


class _Writing:
    """Write to the index within a transaction."""

    def __init__(self, connection: Connection, vectors: Mapping[bytes, Vector]) -> None:
        self._connection = connection
        self._vectors = vectors

    def carry_out(self, changes: Sequence[Change]) -> None:
        self._bump()
        self._forget([i for c in changes for i in c.removed])
        self._move([m for c in changes for m in c.moved])
        self._add([(document, p) for c in changes for document in [self._document(c)] for p in c.added])

    def delete(self, sources: Sequence[str]) -> int:
        self._bump()
        ids = self._ids("documents", "source", sources)
        self._forget(self._ids("passages", "document", ids))
        self._connection.executemany("DELETE FROM documents WHERE id = ?", [(i,) for i in ids])
        return len(ids)

    def _ids(self, table: str, column: str, among: Sequence[str] | Sequence[int]) -> list[int]:
        query = f"SELECT id FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))"
        return [row[0] for row in _rows(self._connection, query, json.dumps(among))]

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
        first = _value(self._connection, "SELECT coalesce(max(id), 0) + 1 FROM passages")
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


def _by_words(
    connection: Connection, snapshot: _Snapshot, text: str, n: int, among: Sequence[int] | None
) -> list[tuple[int, float]]:
    counts = {word: _count(connection, snapshot, word) for word in words_in(text)}
    size = None if among is None else len(among)
    choice = chosen(counts, n, passages=snapshot.passages, among=size)
    if among is None:  # what is in most passages weighs nothing, says FTS5
        choice = choice._replace(more=[word for word in choice.more if counts[word] < snapshot.passages / 2])
    found = _ranked(connection, choice, n, among)
    if among is not None and choice.more and len(found) < n:  # rare words may not be there among these at all
        return _ranked(connection, choice.whole(), n, among)
    return found


def _ranked(connection: Connection, choice: Choice, n: int, among: Sequence[int] | None) -> list[tuple[int, float]]:
    """Return the n best passages, by the score of all words: the greater of those of a passage is that."""
    if not choice.any:
        return []
    within = "" if among is None else "AND +rowid IN (SELECT value FROM json_each(?))"
    query = (
        f"SELECT rowid, -bm25(words, {_TEXT_WEIGHT * TITLE_WEIGHT}, {_TEXT_WEIGHT}) AS score FROM words "
        f"WHERE words MATCH ? {within} "
        "ORDER BY score DESC, rowid LIMIT ?"
    )
    values = () if among is None else (json.dumps(among),)
    scores = dict[int, float](_rows(connection, query, any_of(choice.any), *values, n))
    if choice.more:
        for i, score in _rows(connection, query, both(choice.any, choice.more), *values, n):
            scores[i] = max(score, scores.get(i, score))
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:n]


def _count(connection: Connection, snapshot: _Snapshot, word: str) -> int:
    """Return how many passages have a word, or rather the rarest of the terms it is made of."""
    if word not in snapshot.counts:
        terms = connection.fts5_tokenizer(_TOKENIZER[0], list(_TOKENIZER[1:]))(
            word.encode(), 0x1, None, include_offsets=False, include_colocated=False
        )
        of = [_value(connection, "SELECT doc FROM temp.counts WHERE term = ?", 0, (t,)) for t in terms]
        snapshot.counts[word] = min(of, default=0)
    return snapshot.counts[word]


def _among(connection: Connection, where: Where) -> list[int]:
    """Return the ids of the passages whose metadata is as it must be."""
    parts = [_condition(name, condition) for name, condition in where.items()]
    query = " INTERSECT ".join(sql for sql, _ in parts)
    return [row[0] for row in _rows(connection, query, *(v for _, values in parts for v in values))]


def _condition(name: str, condition: Condition) -> tuple[str, tuple[object, ...]]:
    """Write the query for the passages that fulfil one condition, and its values."""
    if isinstance(condition, Between):
        given = {">=": condition.least, "<=": condition.most}
        bounds = {sign: bound for sign, bound in given.items() if bound is not None}
        kind = "=" if any(isinstance(bound, str) for bound in bounds.values()) else "<>"  # texts are above all numbers
        tests = [f"value {sign} ?" for sign in bounds] + ([f"typeof(value) {kind} 'text'"] if bounds else [])
        test = " AND ".join(tests) or "true"
        values: tuple[object, ...] = tuple(bounds.values())
    elif isinstance(condition, str | int | float):
        test, values = "value = ?", (condition,)
    else:
        test, values = "value IN (SELECT value FROM json_each(?))", (json.dumps(list(condition)),)
    return f"SELECT passage FROM facts WHERE name = ? AND {test}", (name, *values)


def _passages(connection: Connection, found: Sequence[tuple[int, float]]) -> list[Passage]:
    query = f"{_PASSAGE} WHERE passages.id IN (SELECT value FROM json_each(?))"
    rows = {row[0]: row for row in _rows(connection, query, json.dumps([i for i, _ in found]))}
    return [_passage(rows[i], score) for i, score in found]


def _passage(row: Sequence[Any], score: float) -> Passage:
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


def _made_with(connection: Connection) -> Made | None:
    query = "SELECT name, value FROM settings WHERE name IN ('embedder', 'dimensions', 'options')"
    known = dict(_rows(connection, query))
    return Made(known["embedder"], known["dimensions"], known.get("options", "{}")) if known else None


def _is_new(connection: Connection) -> bool:
    return not _value(connection, "SELECT EXISTS (SELECT 1 FROM documents)")


def _is_empty(connection: Connection) -> bool:
    return not _value(connection, "SELECT count(*) FROM sqlite_schema")


def _rows(connection: Connection, query: str, *values: Any) -> list[Any]:
    return connection.execute(query, values).fetchall()


def _value(connection: Connection, query: str, default: Any = None, values: Sequence[Any] = ()) -> Any:
    """Return the first value of the first row."""
    for row in connection.execute(query, tuple(values)):
        return row[0]
    return default


@contextmanager
def _transaction(connection: Connection, *, writes: bool) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite itself has rolled back where the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _library() -> Any:
    try:
        import apsw
        import numpy  # noqa: F401 - told here, and not in the midst of a search
    except ImportError as error:
        raise DefinitionError("an index in a file needs apsw and numpy: pip install 'agentrt[retrieval]'") from error
    return apsw


def _told(apsw: Any, error: Exception, path: Path) -> AgentrtError:
    """Return this package's error for one of SQLite's, with what to do."""
    for kind, told, remedy in (
        (apsw.NotADBError, DefinitionError, "it is no index: choose another file"),
        (apsw.CorruptError, DefinitionError, "the file is damaged: move it away and make it anew"),
        (apsw.CantOpenError, DefinitionError, "it cannot be opened: check that its folder exists and may be written"),
        (apsw.ReadOnlyError, IndexUnavailable, "it may not be written: change its permissions"),
        (apsw.FullError, IndexUnavailable, "the disk is full: make room"),
        (apsw.BusyError, IndexUnavailable, "another process keeps it locked: let that end"),
    ):
        if isinstance(error, kind):
            return told(f"{path}: {remedy}")
    return IndexUnavailable(f"{path}: {error}")
