"""Searching the index in PostgreSQL: by words, ranked by BM25, and by vectors, among what fulfils conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import log
from typing import Any, Final

from agentrt.embedding import Vector
from agentrt.index.rows import PASSAGE, passage_of
from agentrt.index.stored import K1, TITLE_WEIGHT
from agentrt.index.words import chosen, plain, words_in
from agentrt.passage import Fact, Passage
from agentrt.retrieval import Between, Condition, Query, Where

VECTOR_TYPE: Final = "halfvec"
_B: Final = 0.75
# For one word `ts_rank` is Σ 1/i² over its n occurrences, divided by π²/6. What is missing to 1 is 1/(n + ½), nearly:
# so n is found without taking apart the passage's other words, which takes several times as long.
_TIMES: Final = "1 / (1.6449341 * (1 - least(ts_rank('{weights}', words, word), 0.999))) - 0.5"
_TIMES_AT_ALL: Final = _TIMES.format(weights="{{1,1,1,1}}")
_IN_TITLE: Final = "ts_rank('{{0,0,0,1}}', words, word) > 0"
_TIMES_IN_TITLE: Final = _TIMES.format(weights="{{0,0,0,1}}")
_RANK: Final = f"""
SELECT id, sum(idf * n * {K1 + 1} / (n + {K1} * ({1 - _B} + {_B} * length / $4::float8))) AS score
FROM passages, unnest($2::text[]::tsquery[], $3::float8[]) AS asked (word, idf),
    LATERAL (
        SELECT {_TIMES_AT_ALL} + CASE WHEN {_IN_TITLE} THEN {TITLE_WEIGHT - 1} * ({_TIMES_IN_TITLE}) ELSE 0 END AS n
    ) AS counted
WHERE words @@ $1::tsquery AND words @@ word AND {{where}}
GROUP BY id ORDER BY score DESC, id LIMIT $5
"""
_NEAREST: Final = (
    f"SELECT id, 1 - (vector <=> $1::text::{VECTOR_TYPE}) AS score FROM passages "
    "WHERE vector IS NOT NULL AND {where} "
    f"ORDER BY vector <=> $1::text::{VECTOR_TYPE} LIMIT $2"  # by nothing else, or the HNSW index would not be used
)
_NUMBER: Final = "CASE metadata -> {{name}} WHEN 'true' THEN '1' WHEN 'false' THEN '0' ELSE metadata -> {{name}} END"
_BOUND: Final = f"{_NUMBER} {{sign}} {{{{value}}}}::jsonb AND jsonb_typeof({_NUMBER}) = '{{kind}}'"


class Snapshot:
    """Hold in memory what searches need of one version of the index; counts of words are added as they are asked."""

    def __init__(self, version: str = "", passages: int = 0, length: float = 1.0) -> None:
        self.version = version
        self.passages = passages
        self.length = length
        self._counts: dict[str, int] = {}

    async def count(self, connection: Any, lexeme: str) -> int:
        """Return how many passages have a lexeme."""
        if lexeme not in self._counts:
            query = "SELECT count(*) FROM passages WHERE words @@ $1::tsquery"
            self._counts[lexeme] = await connection.fetchval(query, _quoted(lexeme))
        return self._counts[lexeme]


async def by_words(connection: Any, snapshot: Snapshot, query: Query, n: int) -> list[tuple[int, float]]:
    """Return the n passages that fit the words of a query best, with their scores."""
    asked_words = " ".join(words_in(plain(query.text)))
    asked = await connection.fetch("SELECT lexeme FROM unnest(to_tsvector('stems', $1))", asked_words)
    counts = {row[0]: await snapshot.count(connection, row[0]) for row in asked}
    choice = chosen(counts, n, passages=snapshot.passages)
    if choice.more and query.where:
        where, values = _where(query.where, 1)
        size = await connection.fetchval(f"SELECT count(*) FROM passages WHERE {where}", *values)
        choice = chosen(counts, n, passages=snapshot.passages, among=size)
    weights = {lexeme: _idf(snapshot.passages, counts[lexeme]) for lexeme in (*choice.any, *choice.more)}
    found = await _ranked(connection, snapshot, choice.any, weights, query.where, n)
    if query.where and choice.more and len(found) < n:  # rare words may not be there among these at all
        return await _ranked(connection, snapshot, list(weights), weights, query.where, n)
    return found


async def _ranked(
    connection: Any, snapshot: Snapshot, words: Sequence[str], weights: Mapping[str, float], among: Where, n: int
) -> list[tuple[int, float]]:
    """Return the n best passages that have one of some words at least, by the score of all that have a weight."""
    if not words:
        return []
    where, values = _where(among, 6)
    any_of = " | ".join(map(_quoted, words))
    each = list(map(_quoted, weights))
    query = _RANK.format(where=where)
    rows = await connection.fetch(query, any_of, each, list(weights.values()), snapshot.length, n, *values)
    return [(row[0], row[1]) for row in rows]


async def nearest(connection: Any, vector: Vector, among: Where, n: int) -> list[tuple[int, float]]:
    """Return the n passages whose vectors are nearest, with their cosines."""
    where, values = _where(among, 3)
    rows = await connection.fetch(_NEAREST.format(where=where), text_of(vector), n, *values)
    return [(row[0], row[1]) for row in rows]


async def passages_of(connection: Any, found: Sequence[tuple[int, float]]) -> list[Passage]:
    """Return the passages of ids, with their scores."""
    rows = await connection.fetch(f"{PASSAGE} WHERE passages.id = ANY($1::int8[])", [i for i, _ in found])
    by_id = {row[0]: row for row in rows}
    return [passage_of(by_id[i], score) for i, score in found]


def text_of(vector: Vector) -> str:
    """Write a vector as pgvector reads it."""
    return f"[{','.join(map(repr, vector))}]"


def _quoted(lexeme: str) -> str:
    """Write a lexeme as a tsquery: nothing in it is syntax."""
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _idf(passages: int, count: int) -> float:
    return log(1 + (passages - count + 0.5) / (count + 0.5))


def _where(where: Where, first: int) -> tuple[str, list[object]]:
    """Write the conditions on metadata, and their values, numbered from `first`."""
    tests, values = list[str](), list[object]()
    for name, condition in where.items():
        for test, given in _conditions(condition):
            values += [name, given]
            at = first + len(values)
            tests.append(test.format(name=f"${at - 2}::text", value=f"${at - 1}"))
    return " AND ".join(tests) or "true", values


def _conditions(condition: Condition) -> list[tuple[str, object]]:
    """Return the tests of one condition, each with its value."""
    if isinstance(condition, Between):
        given = ((">=", condition.least), ("<=", condition.most))
        return [
            (_BOUND.format(sign=sign, kind="string" if isinstance(bound, str) else "number"), _bound(bound))
            for sign, bound in given
            if bound is not None
        ] or [("metadata ? {name} AND {value}::bool", True)]
    if isinstance(condition, str):
        return [("metadata @> jsonb_build_object({name}, {value}::jsonb)", json.dumps(condition))]
    wanted = [condition] if isinstance(condition, int | float) else condition
    return [("metadata -> {name} = ANY({value}::jsonb[])", [text for v in wanted for text in _equal(v)])]


def _bound(value: Fact) -> str:
    """Return the JSON of a bound; true and false are numbers here, too."""
    return json.dumps(value if isinstance(value, str | float) else int(value))


def _equal(value: Fact) -> list[str]:
    """Return the JSON of all that is equal to a value: 1 is true here as in Python and SQLite, and 0 is false."""
    if isinstance(value, str) or value not in (0, 1):
        return [json.dumps(value)]
    return [json.dumps(int(value)), json.dumps(bool(value))]
