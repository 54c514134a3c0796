"""Searching the file of an index: by words, by vectors that are held in memory, and among facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from agentrt.index.rows import PASSAGE, passage_of
from agentrt.index.sqlite_file import TOKENIZER, rows_of, value_of
from agentrt.index.stored import K1, TITLE_WEIGHT
from agentrt.index.vectors import StoredVectors
from agentrt.index.words import Choice, any_of, both, chosen, words_in
from agentrt.passage import Passage
from agentrt.retrieval import Between, Condition, Where

if TYPE_CHECKING:
    from apsw import Connection

_TEXT_WEIGHT: Final = 1.2 / K1
"""FTS5 has a k1 of 1.2; to count each word so much less ranks as that other one does."""


class Snapshot:
    """Hold in memory what searches need of one version of the index; counts of words are added as they are asked."""

    def __init__(self, version: int, connection: Connection) -> None:
        self.version = version
        rows: Any = connection.execute("SELECT id, vector FROM vectors ORDER BY id")
        self.vectors = StoredVectors(rows)
        self.passages: int = value_of(connection, "SELECT count(*) FROM passages")
        self.counts: dict[str, int] = {}


def by_words(
    connection: Connection, snapshot: Snapshot, text: str, n: int, among: Sequence[int] | None
) -> list[tuple[int, float]]:
    """Return the n passages that fit the words of a text best, with their scores."""
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
    """Return the n best passages that have one word of a choice at least, by the score of all its words."""
    if not choice.any:
        return []
    within = "" if among is None else "AND +rowid IN (SELECT value FROM json_each(?))"
    query = (
        f"SELECT rowid, -bm25(words, {_TEXT_WEIGHT * TITLE_WEIGHT}, {_TEXT_WEIGHT}) AS score FROM words "
        f"WHERE words MATCH ? {within} "
        "ORDER BY score DESC, rowid LIMIT ?"
    )
    values = () if among is None else (json.dumps(among),)
    scores = dict[int, float](rows_of(connection, query, any_of(choice.any), *values, n))
    if choice.more:  # each word is in the query once, or it would count twice; the greater score is that of all words
        for i, score in rows_of(connection, query, both(choice.any, choice.more), *values, n):
            scores[i] = max(score, scores.get(i, score))
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:n]


def _count(connection: Connection, snapshot: Snapshot, word: str) -> int:
    """Return how many passages have a word, or rather the rarest of the terms it is made of."""
    if word not in snapshot.counts:
        terms = connection.fts5_tokenizer(TOKENIZER[0], list(TOKENIZER[1:]))(
            word.encode(), 0x1, None, include_offsets=False, include_colocated=False
        )
        of = [value_of(connection, "SELECT doc FROM temp.counts WHERE term = ?", 0, (t,)) for t in terms]
        snapshot.counts[word] = min(of, default=0)
    return snapshot.counts[word]


def ids_among(connection: Connection, where: Where) -> list[int]:
    """Return the ids of the passages whose metadata is as it must be."""
    parts = [_condition(name, condition) for name, condition in where.items()]
    query = " INTERSECT ".join(sql for sql, _ in parts)
    return [row[0] for row in rows_of(connection, query, *(v for _, values in parts for v in values))]


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


def passages_of(connection: Connection, found: Sequence[tuple[int, float]]) -> list[Passage]:
    """Return the passages of ids, with their scores."""
    query = f"{PASSAGE} WHERE passages.id IN (SELECT value FROM json_each(?))"
    rows = {row[0]: row for row in rows_of(connection, query, json.dumps([i for i, _ in found]))}
    return [passage_of(rows[i], score) for i, score in found]
