"""Collections: documents, queries, and which documents are relevant to which query."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrt.errors import DefinitionError
from agentrt.index.document import Document

_ID = ("_id", "id", "query_id")


@dataclass(frozen=True, slots=True)
class Collection:
    """Hold the queries of a test collection that have relevant documents, and the gains of these by their sources."""

    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, queries: Path, qrels: Path) -> Collection:
        """Read queries (JSON lines: id, text) and judgements (tab-separated: query, document, gain).

        A first line whose gain is no number is a header. Raises `DefinitionError` naming the line that is wrong.
        """
        texts = {
            str(_first(row, _ID, place)): str(_first(row, ("text", "question"), place)) for place, row in _rows(queries)
        }
        gains: dict[str, dict[str, float]] = {}
        for place, row in _table(qrels):
            gain = _number(row[-1])
            if len(row) < 3 or row[0] not in texts or gain is None or not math.isfinite(gain):
                raise DefinitionError(f"{place}: write the id of a query, a document and a gain, with tabs between")
            gains.setdefault(row[0], {})[row[-2]] = gain
        answered = {query: judged for query, judged in gains.items() if any(gain > 0 for gain in judged.values())}
        if not answered:
            raise DefinitionError(f"{qrels} holds no judgements, or none with a gain over 0")
        return cls({query: texts[query] for query in answered}, answered)


def corpus(file: Path) -> Iterator[Document]:
    """Yield the documents of a collection, named by their ids; what has neither title nor text is none.

    Raises `DefinitionError` naming the line that is wrong.
    """
    for place, row in _rows(file):
        text = str(row.get("text") or "")
        title = str(row.get("title") or "")
        if text.strip() or title.strip():
            yield Document(source=str(_first(row, _ID, place)), text=text or title, title=title)


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DefinitionError(f"{file} line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise DefinitionError(f"{file} line {number} is no JSON object")
            yield f"{file} line {number}", row


def _table(file: Path) -> Iterator[tuple[str, Sequence[str]]]:
    for number, line in enumerate(_lines(file), 1):
        row = line.split("\t")
        if line.strip() and (number > 1 or _number(row[-1]) is not None):
            yield f"{file} line {number}", row


def _lines(file: Path) -> Iterable[str]:
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")  # splitlines cuts within JSON's texts, too
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{file} cannot be read: {error}") from error


def _first(row: Mapping[str, Any], names: Iterable[str], place: str) -> object:
    for name in names:
        if row.get(name) not in (None, ""):
            return row[name]
    raise DefinitionError(f"{place} has none of {', '.join(names)}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
