"""Full-text search over passages in memory: SQLite's FTS5, ranked by bm25."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from agentrt.errors import DefinitionError
from agentrt.heading import heading
from agentrt.passage import Passage
from agentrt.retrieval import Query

_SUFFIXES: Final = {".md", ".txt"}
_WORD: Final = re.compile(r"\w+")
_MOST_WORDS: Final = 200
_FENCE: Final = ("```", "~~~")


class FullTextIndex:
    """Find passages that share words with the query; words are compared without case, accents and English endings.

    The index is built once, in memory. A search takes well under a millisecond in a thousand passages, so it runs
    in the event loop. `agentrt.index` has one for more passages, with vectors, metadata and a file.
    """

    embedder = None

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list(passages)
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE passages USING fts5 (title, text, tokenize = 'porter unicode61 remove_diacritics 2')"
        )
        self._database.executemany(
            "INSERT INTO passages (rowid, title, text) VALUES (?, ?, ?)",
            ((i, _storable(p.title), _storable(p.text)) for i, p in enumerate(self._passages)),
        )

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Index the .md and .txt files (UTF-8) below a folder: a passage a paragraph, titled by the heading above it.

        Raises `DefinitionError` for a folder that is missing or holds no such text, and for a file that cannot be read.
        """
        return cls(read_passages(Path(folder)))

    def __len__(self) -> int:
        return len(self._passages)

    def __repr__(self) -> str:
        return f"<FullTextIndex of {len(self)} passages>"

    async def search(self, query: str | Query, k: int) -> list[Passage]:
        """Return at most k passages, the one that fits best first; `score` is bm25, higher is better.

        Any word of the query may match, in the title too; of a query over 200 different words the first 200 count.
        Raises `DefinitionError` for a query with `where`.
        """
        rows: Iterable[tuple[int, float]] = ()
        query = Query.of(query)
        if query.where:
            raise DefinitionError("a FullTextIndex knows no where=: use agentrt.index.SqliteIndex")
        if (expression := _expression(query.text)) and k > 0:
            rows = self._database.execute(
                "SELECT rowid, -bm25(passages) FROM passages WHERE passages MATCH ? ORDER BY rank, rowid LIMIT ?",
                (expression, k),
            )
        return [self._found(row, score) for row, score in rows]

    def _found(self, row: int, score: float) -> Passage:
        return replace(self._passages[row], score=score)


def _expression(query: str) -> str:
    """Write the FTS5 query: every word quoted, so that nothing a user or a model writes is syntax."""
    words = dict.fromkeys(w.lower() for w in _WORD.findall(query))
    return " OR ".join(f'"{w}"' for w in list(words)[:_MOST_WORDS])


def _storable(text: str) -> str:
    """Replace lone surrogates, which SQLite cannot hold."""
    return text.encode("utf-8", "replace").decode()


def read_passages(folder: Path) -> list[Passage]:
    """Return the paragraphs of the .md and .txt files below a folder, in the order of the files' names.

    Raises `DefinitionError` as `FullTextIndex.load` says.
    """
    if not folder.is_dir():
        reason = "is a file" if folder.exists() else "does not exist"
        raise DefinitionError(f"{folder} {reason}: give a folder of .md or .txt files")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
    passages = [p for file in files for p in _read(file, file.relative_to(folder).as_posix())]
    if not passages:
        found = f"its {len(files)} .md and .txt files hold no text" if files else "it holds no .md or .txt file"
        raise DefinitionError(f"nothing to read in {folder}: {found}")
    return passages


def _read(file: Path, source: str) -> list[Passage]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{file} is not UTF-8 text (byte {error.start}): convert it or take it away") from error
    except OSError as error:
        raise DefinitionError(f"{file} cannot be read: {error.strerror}") from error
    pieces = read_paragraphs(text, headings=file.suffix.lower() == ".md")
    return [Passage(text=t, source=source, position=i, title=title) for i, (title, t) in enumerate(pieces)]


def read_paragraphs(text: str, *, headings: bool) -> Iterator[tuple[str, str]]:
    """Yield each paragraph with its title; a heading ends the paragraph before it and is none itself."""
    title, lines, fenced = "", list[str](), False
    for line in [*text.splitlines(), ""]:
        fenced ^= headings and line.lstrip().startswith(_FENCE)
        marked = heading(line) if headings and not fenced else None
        if line.strip() and marked is None:
            lines.append(line.rstrip())
            continue
        if lines:
            yield title, "\n".join(lines).strip()
            lines = []
        if marked is not None:
            title = marked[1]
